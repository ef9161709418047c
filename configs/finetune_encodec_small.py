"""The small codec of results/, trained on: what the arms of the study of the loss start from.

    python -m indep_jax.train --config=configs/finetune_encodec_small.py \
        --config.data.source=folder:music --workdir=runs/study/none

48 minutes on two CPU cores at 0.6 s a step; without the loss by default. The discriminator is a fresh one, as nobody
keeps them; its terms weigh little here, so it needs no steps alone.
"""

import runpy
from pathlib import Path

get_base = runpy.run_path(str(Path(__file__).with_name("encodec_small.py")))["get_config"]


def get_config():
    config = get_base()
    config.pretrained = "small_none"
    config.steps = 4_800
    config.quantizer.warmup_steps = 0
    return config
