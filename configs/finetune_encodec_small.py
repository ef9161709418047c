"""The small codec of results/, trained on: what the arms of the study of the loss start from.

    python -m indep_jax.train --config=configs/finetune_encodec_small.py \
        --config.data.source=folder:music --workdir=runs/study/none

48 minutes on two CPU cores at 0.6 s a step; without the loss by default. The discriminator is a fresh one, as nobody
keeps them; its terms weigh little here, so it needs no steps alone.
"""

from configs import encodec_small


def get_config():
    config = encodec_small.get_config()
    config.pretrained = "indep_jax/pretrained/small_none"
    config.steps = 4_800
    config.quantizer.warmup_steps = 0
    return config
