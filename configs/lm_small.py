"""A language model that two CPU cores train in half an hour: 6 layers of 256, 5 s segments.

    python -m indep_jax.encode --codec=CODEC --source=folder:PATH --output=TOKENS
    python -m indep_jax.train --config=configs/lm_small.py --config.data.source=tokens:TOKENS \
        --config.codec=CODEC --workdir=DIR

For the tokens of configs/encodec_small.py. `--config.text.encoder=minilm` reads captions.
"""

import runpy
from pathlib import Path

get_base = runpy.run_path(str(Path(__file__).with_name("musicgen.py")))["get_config"]


def get_config():
    config = get_base("debug")
    config.steps = 2_000
    config.batch_size = 8
    config.data.update(segment_seconds=5.0, workers=0)
    config.model.update(codebook_size=256, dim=256, layers=6, heads=4, ffn_dim=1_024)
    config.model.depth.update(dim=128, layers=2, heads=4, ffn_dim=512)
    config.optimizer.update(learning_rate=1e-3, warmup_steps=200)
    config.update(log_every=50, evaluate_every=250, evaluate_items=32, save_every=250)
    return config
