"""A small EnCodec that trains on two CPU cores and is still the real thing, all parts on.

    python -m indep_jax.train --config=configs/encodec_small.py \
        --config.data.source=folder:music --workdir=runs/none

16 kHz, 100 frames/s, 4 codebooks of 256 codes (3.2 kbit/s), multi-scale STFT discriminator.
It begins as a plain autoencoder: k-means on an untrained encoder leaves codebooks that carry
next to nothing, and training them from there does not recover at this scale.
"""

import runpy
from pathlib import Path

get_base = runpy.run_path(str(Path(__file__).with_name("encodec_32khz.py")))["get_config"]


def get_config():
    config = get_base()
    config.steps = 11_800
    config.batch_size = 4
    config.model.update(
        sample_rate=16_000, n_filters=16, ratios=(5, 4, 4, 2), dimension=32, init_std=1.0
    )
    config.quantizer.update(codebook_size=256, kmeans_batches=16, warmup_steps=8_000)
    config.discriminator.update(filters=8, n_ffts=(512, 128))
    config.loss.update(adversarial=0.25, feature=0.5, l1=2.0, relative_l1=True, mel=10.0)
    # The latents that the warm-up leaves are large (standard deviation 15): at 1 the commitment
    # loss shrinks them faster than the codebooks can follow, and a handful of codes remain.
    config.loss.commitment = 0.05
    config.loss.independence.update(
        bandwidths="median",
        exclude_files=True,
        delay=False,
        condition=1,
        share=0.3,
        warmup_steps=400,
    )
    config.optimizer.update(
        learning_rate=1e-3, betas=(0.8, 0.95), schedule="cosine", warmup_steps=100
    )
    config.update(
        log_every=50, evaluate_every=500, evaluate_items=10, evaluate_seconds=5.0, save_every=250
    )
    return config
