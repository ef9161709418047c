"""EnCodec 32 kHz with the paper's independence loss: permutation MMD on delayed streams.

    python -m indep_jax.train --config=configs/encodec_32khz_mmd.py \
        --config.data.source=folder:PATH --workdir=DIR

ICML 2024, Algorithm 1: weight 1000, six fixed bandwidths, streams of 32 training batches
joined once every 32 steps. The statistics are the correct ones (see independence/permutation.py);
`--config.loss.independence.published=True` gives the published code's arithmetic.
"""

import runpy
from pathlib import Path

get_base = runpy.run_path(str(Path(__file__).with_name("encodec_32khz.py")))["get_config"]


def get_config():
    config = get_base()
    config.loss.independence.update(kind="permutation", macro_batch=32, every=32)
    return config
