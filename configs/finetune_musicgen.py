"""Fine-tunes a pretrained MusicGen, on its own codec's tokens or on those of a new one.

    python -m indep_jax.encode --codec=CODEC --source=folder:PATH --output=TOKENS
    python -m indep_jax.train --config=configs/finetune_musicgen.py \
        --config.pretrained=hf:facebook/musicgen-small --config.codec=CODEC \
        --config.data.source=tokens:TOKENS --workdir=DIR

`pretrained` is a Hugging Face folder, or hf:NAME; the model, and the text encoder that it was
trained with, are what it says. CODEC is the codec of configs/finetune_encodec_32khz_mmd.py, whose
codebooks are as many and as large.
"""

import runpy
from pathlib import Path

get_base = runpy.run_path(str(Path(__file__).with_name("musicgen.py")))["get_config"]


def get_config():
    config = get_base("small")
    config.pretrained = ""
    config.steps = 20_000
    config.batch_size = 32
    config.optimizer.update(learning_rate=1e-5, warmup_steps=500)
    config.evaluate_every = 1_000
    return config
