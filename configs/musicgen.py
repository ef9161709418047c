"""MusicGen as published (Copet et al. 2023), on tokens of any codec, in its sizes.

    python -m indep_jax.encode --codec=CODEC --source=folder:PATH --output=TOKENS
    python -m indep_jax.train --config=configs/musicgen.py:small --config.data.source=tokens:TOKENS \
        --config.codec=CODEC --workdir=DIR

Sizes: small (300M parameters), medium (1.5B), large (3.3B), and debug, for a look at the machinery.
The published runs: a million steps, 192 segments of 30 s each, on 32 to 96 A100; text by T5-base:
`--config.text.encoder=PATH` of its Hugging Face folder.
"""

import ml_collections

from indep_jax.support.errors import UserError

SIZES = dict(
    debug=dict(dim=64, layers=2, heads=4),
    small=dict(dim=1_024, layers=24, heads=16),
    medium=dict(dim=1_536, layers=48, heads=24),
    large=dict(dim=2_048, layers=48, heads=32),
)


def get_config(size: str = "small") -> ml_collections.ConfigDict:
    if size not in SIZES:
        raise UserError(f"size {size}: expected one of {', '.join(SIZES)}")
    shape = SIZES[size]
    return ml_collections.ConfigDict(
        dict(
            task="lm",
            seed=0,
            steps=1_000_000,
            batch_size=192,
            dtype="float32",  # of the matrix products: float32 | bfloat16
            init_from="",  # workdir of a run to start from, whole state and data position
            codec="",  # workdir or folder of the codec that made the tokens, to listen to samples
            data=dict(
                source="",  # tokens:PATH, what indep_jax.encode wrote
                codec="",  # fingerprint of the codec that made them; set from the source
                segment_seconds=30.0,
                workers=2,  # processes that read; 0 uses threads
            ),
            text=dict(
                encoder="",  # minilm | Hugging Face folder of a T5 | "": no text
                max_tokens=64,
                dropout=0.3,  # share of the texts that are taken away, for guidance
            ),
            model=dict(
                codebooks=4,
                codebook_size=2_048,
                text_dim=0,  # of the encoder's states; set from text.encoder
                pattern="delay",  # parallel | delay | stereo_delay | flattened | coarse_first | delays
                **shape,
                ffn_dim=4 * shape["dim"],
                positions="sinusoidal",  # sinusoidal | rotary
                head="linear",  # linear | depth: the codes of a step jointly
                depth=dict(dim=shape["dim"] // 2, layers=4, heads=8, ffn_dim=2 * shape["dim"]),
                remat=size != "debug",
            ),
            optimizer=dict(
                learning_rate=1e-4,
                betas=(0.9, 0.95),
                weight_decay=0.1,
                clip=1.0,  # norm of the gradient; 0 for none
                warmup_steps=4_000,  # then a cosine to 0 at `steps`
                accumulate=1,  # parts of a batch, one after another
                ema_decay=0.99,
            ),
            mesh=dict(fsdp=1, tensor=1),  # devices; `data` takes the rest
            # The first expression that is found in a parameter's path places it.
            placement=(
                ("(query|key|value|ffn_in)/kernel", ("fsdp", "tensor")),
                ("(out|ffn_out)/kernel", ("tensor", "fsdp")),
                ("embedding$", (None, None, "fsdp")),
                ("output$", (None, "fsdp", None)),
            ),
            log_every=100,
            evaluate_every=5_000,
            evaluate_items=32,  # held-out segments for the cross-entropy
            samples=4,  # generated at every evaluation, where there is a codec
            sample_seconds=10.0,
            guidance=3.0,  # of those samples, where there is text
            save_every=1_000,
            keep=3,
        )
    )
