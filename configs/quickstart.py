"""The small codec with the independence loss, for minutes on the package's sample music.

    python -m indep_jax.train --config=configs/quickstart.py --workdir=DIR

A codec trained for so short a time sounds rough: this shows that everything works, not how good
it gets. Six minutes on two CPU cores.
"""

import runpy
from pathlib import Path

get_base = runpy.run_path(str(Path(__file__).with_name("encodec_small.py")))["get_config"]


def get_config():
    config = get_base()
    config.steps = 550
    config.data.source = "sample:"
    config.quantizer.update(warmup_steps=300, kmeans_batches=16)
    config.loss.independence.update(kind="dhsic", warmup_steps=50)
    config.optimizer.warmup_steps = 50
    config.update(log_every=10, evaluate_every=275, evaluate_items=4, save_every=50)
    return config
