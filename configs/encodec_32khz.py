"""EnCodec 32 kHz as published with MusicGen: the whole recipe, no independence loss.

    python -m indep_jax.train --config=configs/encodec_32khz.py \
        --config.data.source=folder:PATH --workdir=DIR

Published hardware: 8 V100, global batch 64 (8 items a device), 600k steps in the ICML 2024
paper (400k in the released configuration).
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(
        dict(
            task="codec",
            seed=0,
            steps=600_000,
            batch_size=64,  # global, over all devices and processes
            init_from="",  # workdir of another run: start from its whole state and data position
            dtype="float32",  # compute dtype of the convolutions: float32 or bfloat16
            data=dict(
                source="",  # folder:PATH | array_record:GLOB | sample:
                segment_seconds=1.0,
                max_unreadable=0.1,  # share of the files that may be: above it the run stops
                workers=2,  # processes that read and resample; 0 reads in the training process
            ),
            model=dict(
                sample_rate=32_000,
                channels=1,
                causal=False,
                n_filters=64,
                ratios=(8, 5, 4, 4),  # decoder order; the encoder downsamples in reverse
                dimension=128,
                residual_layers=1,
                kernel=7,
                residual_kernel=3,
                last_kernel=7,
                dilation_base=2,
                compress=2,
                lstm_layers=2,
                pad_mode="constant",  # constant | reflect
                conv_shortcut=False,
                norm="weight_norm",  # weight_norm | none
                # Above 0: every convolution's output gets this standard deviation on the first
                # batch (the last one's a tenth). As published (0), layers shrink quiet music until
                # they act linearly, and long training has to undo it.
                init_std=0.0,
            ),
            quantizer=dict(
                codebooks=4,
                codebook_size=2048,
                decay=0.99,
                kmeans_iterations=50,
                kmeans_batches=1,  # training batches whose latents initialise the codebooks
                # Codes used less than this share of even use are replaced. The published recipe
                # says "EMA count under 2", but its replacement had no effect (it was overwritten
                # in the same call), and with a batch of 64 even use is a count of 1.6 a step:
                # replacing under 2 in earnest would redraw most codes at every step.
                expire_below=0.02,
                dropout=False,  # train with a random number of leading codebooks per step
                warmup_steps=0,  # steps trained as a plain autoencoder before k-means
            ),
            discriminator=dict(
                filters=32,
                n_ffts=(1024, 2048, 512, 256, 128),  # hop is n_fft / 4
            ),
            loss=dict(
                adversarial=4.0,
                feature=4.0,
                l1=0.1,
                relative_l1=False,  # divide the waveform loss by the batch's mean magnitude
                mel=2.0,
                commitment=1.0,
                balancer_decay=0.999,
                reference_batch=8,  # items whose balanced gradients add up, PAPER's per-device batch
                independence=dict(
                    kind="none",  # or one of KINDS in indep_jax/independence/loss.py
                    weight=1000.0,
                    # Above 0, in place of the weight: the norm of the term's gradient at the
                    # encoder's weights over that of all other terms.
                    share=0.0,
                    streams="codes",  # codes (straight-through) | inputs (of each quantizer)
                    delay=True,  # align the streams as the LM's delay pattern does
                    condition=0,  # past frames whose linear prediction is taken off the streams
                    bandwidths="paper",  # paper | median
                    exclude_files=False,  # leave pairs of rows of one file out
                    published=False,  # permutation: the arithmetic of the published code
                    block=1024,  # rows per block of pairs
                    warmup_steps=0,  # linear ramp of the weight after quantization begins
                    macro_batch=1,  # training batches whose streams one evaluation joins
                    every=1,  # steps between evaluations
                ),
            ),
            optimizer=dict(
                learning_rate=3e-4,
                betas=(0.5, 0.9),
                schedule="constant",  # constant | cosine (over `steps`)
                warmup_steps=0,
                ema_decay=0.99,  # of the generator's weights
            ),
            log_every=50,
            evaluate_every=5_000,
            evaluate_items=16,  # held-out segments per evaluation
            evaluate_seconds=10.0,
            save_every=1_000,
            keep=3,  # checkpoints kept
        )
    )
