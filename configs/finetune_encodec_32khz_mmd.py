"""Fine-tunes a pretrained EnCodec with the paper's independence loss.

    python -m indep_jax.train --config=configs/finetune_encodec_32khz_mmd.py \
        --config.pretrained=hf:facebook/encodec_32khz --config.data.source=folder:PATH --workdir=DIR

`pretrained` is a Hugging Face folder (or hf:NAME) of EnCodec at 32 or 24 kHz, or of a MusicGen, whose
codec is taken; the model is what it says. Nobody publishes discriminators: a fresh one is trained
alone first, while the codec stays as it is, or its noise would undo what was learned.

`--config.optimizer.trainable=encoder` trains the encoder and the codebooks alone, so that the
decoder network stays what its users have.
"""

import runpy
from pathlib import Path

get_base = runpy.run_path(str(Path(__file__).with_name("encodec_32khz_mmd.py")))["get_config"]


def get_config():
    config = get_base()
    config.pretrained = ""
    config.steps = 20_000
    config.discriminator.warmup_steps = 1_000  # in which it alone is trained
    config.discriminator.rate_factor = 10.0  # over the learning rate: the published 3e-4
    config.optimizer.learning_rate = 3e-5
    config.optimizer.trainable = "all"  # all | encoder (and codebooks: the decoder stays as it is)
    config.loss.independence.warmup_steps = 1_000
    config.evaluate_every = 1_000
    return config
