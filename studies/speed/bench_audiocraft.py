"""Times one whole training step, discriminator included, beside audiocraft's modules on torch.

    python studies/speed/bench_audiocraft.py

Both do what the published recipe does on a batch of 2 x 1 s at the true 32 kHz size, without an
independence loss: discriminator, balancer, commitment, codebook update, Adam, average of the
weights. In one process, in turns, after one step that is not counted; nothing else should run.
Needs audiocraft beside torch: tests/golden/make_audiocraft.py says how to install it.
"""

import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "golden")]

import make_audiocraft  # noqa: E402  makes single modules of audiocraft importable
from audiocraft.modules.seanet import SEANetDecoder, SEANetEncoder  # noqa: E402
from audiocraft.quantization.vq import ResidualVectorQuantizer  # noqa: E402

from indep_jax import bench  # noqa: E402
from indep_jax.configs import encodec_32khz  # noqa: E402
from indep_jax.tasks.codec import CodecTask  # noqa: E402

REPEATS = 5


def our_step(config, audio):
    """A function that trains one step."""
    task = CodecTask(config)
    batch = dict(audio=audio, file=np.arange(len(audio), dtype=np.int32))
    state = jax.jit(task.init)(jax.random.key(0), batch)
    codebook = state.collections["codebook"]
    codebook["embed"] = jax.random.normal(jax.random.key(1), codebook["embed"].shape)
    codebook["count"] = jnp.ones_like(codebook["count"])
    codebook["average"] = jnp.copy(codebook["embed"])
    program = jax.jit(task.programs["codec"], donate_argnums=0)
    holder = [state]

    def step():
        holder[0], metrics = program(holder[0], batch, jax.random.key(2))
        return metrics["loss"]

    return step


def their_step(config, audio):
    """The same with audiocraft's modules, as its solver for compression orders them."""
    model, loss = config.model, config.loss
    shared = dict(
        channels=1, dimension=model.dimension, n_filters=model.n_filters,
        n_residual_layers=model.residual_layers, ratios=list(model.ratios), norm="weight_norm",
        kernel_size=model.kernel, last_kernel_size=model.last_kernel,
        residual_kernel_size=model.residual_kernel, dilation_base=model.dilation_base,
        causal=False, pad_mode=model.pad_mode, true_skip=True, compress=model.compress,
        lstm=model.lstm_layers,
    )  # fmt: skip
    codec = torch.nn.ModuleDict(
        dict(
            encoder=SEANetEncoder(**shared),
            decoder=SEANetDecoder(**shared),
            quantizer=ResidualVectorQuantizer(
                model.dimension, config.quantizer.codebooks, bins=config.quantizer.codebook_size,
                kmeans_init=False,
            ),
        )
    )  # fmt: skip
    average = [parameter.detach().clone() for parameter in codec.parameters()]
    settings = dict(lr=config.optimizer.learning_rate, betas=tuple(config.optimizer.betas))
    n_ffts = list(config.discriminator.n_ffts)
    judge = make_audiocraft.MultiScaleSTFTDiscriminator(
        filters=config.discriminator.filters, n_ffts=n_ffts, hop_lengths=[n // 4 for n in n_ffts],
        win_lengths=n_ffts, activation_params=dict(negative_slope=0.3),
    )  # fmt: skip
    losses = make_audiocraft.losses
    adversary = losses.AdversarialLoss(
        judge,
        torch.optim.Adam(judge.parameters(), **settings),
        losses.get_adv_criterion("hinge"),
        losses.get_real_criterion("hinge"),
        losses.get_fake_criterion("hinge"),
        losses.FeatureMatchingLoss(),
    )
    mel = make_audiocraft.MultiScaleMelSpectrogramLoss(
        sample_rate=model.sample_rate, range_start=6, range_end=11, n_mels=64, f_min=64,
        normalized=True, alphas=False, floor_level=1e-5,
    )  # fmt: skip
    weights = {name: loss[name] for name in ("adversarial", "feature", "l1", "mel")}
    balance = make_audiocraft.Balancer(weights, ema_decay=loss.balancer_decay)
    optimizer = torch.optim.Adam(codec.parameters(), **settings)
    x = torch.from_numpy(audio).swapaxes(1, 2)

    def step():
        quantized = codec["quantizer"](codec["encoder"](x), model.sample_rate // 640)
        y = codec["decoder"](quantized.x)
        adversary.train_adv(y, x)
        adversarial, feature = adversary(y, x)
        quantized.penalty.backward(retain_graph=True)
        total = balance.backward(
            dict(
                adversarial=adversarial,
                feature=feature,
                l1=torch.nn.functional.l1_loss(y, x),
                mel=mel(y, x),
            ),
            y,
        )
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            decay = config.optimizer.ema_decay
            for mean, new in zip(average, codec.parameters()):
                mean.lerp_(new, 1 - decay)
        return total.item()

    codec.train()
    return step


def main():
    torch.set_num_threads(os.cpu_count())
    config = encodec_32khz.get_config()
    config.batch_size = 2
    config.quantizer.kmeans_batches = 32  # as many latents as codes; k-means is not timed
    rate = config.model.sample_rate
    audio = 0.1 * np.random.default_rng(0).standard_normal((2, rate, 1)).astype(np.float32)
    steps = dict(ours=our_step(config, audio), audiocraft=their_step(config, audio))
    found = bench.medians(steps, REPEATS)
    ours, theirs = found["ours"].median, found["audiocraft"].median
    print(
        f"a training step, 2 x 1 s, s: ours {ours:.2f}, audiocraft {theirs:.2f}, "
        f"ratio {ours / theirs:.2f}"
    )


if __name__ == "__main__":
    main()
