"""What `bench codec` times: the true 32 kHz size with random weights, ours and transformers'."""

import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from indep_jax import loading
from indep_jax.bench import missing
from indep_jax.codec import quantizer

# The published 32 kHz codec (configs/encodec_32khz.py).
MODEL = dict(
    sample_rate=32_000,
    channels=1,
    causal=False,
    n_filters=64,
    ratios=(8, 5, 4, 4),
    dimension=128,
    residual_layers=1,
    kernel=7,
    residual_kernel=3,
    last_kernel=7,
    dilation_base=2,
    compress=2,
    lstm_layers=2,
    pad_mode="constant",
    conv_shortcut=False,
    norm="weight_norm",
)
SIZES = dict(codebooks=4, codebook_size=2048)


def functions(against: str = "") -> dict[str, Callable]:
    """Functions of no argument, by "what/ours" and, with against="torch", "what/theirs"."""
    rng = np.random.default_rng(0)
    wave = (0.1 * rng.standard_normal((1, 320_000, 1))).astype(np.float32)
    short = (0.1 * rng.standard_normal((2, 32_000, 1))).astype(np.float32)
    return _ours(wave, short) | (_torch(wave, short) if against else {})


def _ours(wave, short) -> dict[str, Callable]:
    config = dict(dtype="float32", model=MODEL, quantizer=SIZES)
    module = loading.LoadedCodec(config, {}).module
    params = jax.jit(module.init)(jax.random.key(0), wave[:, :640])["params"]
    codebook = quantizer.empty(module.codebooks, module.codebook_size, module.dimension)
    codebook["embed"] = jax.random.normal(jax.random.key(1), codebook["embed"].shape)
    codec = loading.LoadedCodec(config, dict(params=params, codebook=codebook))
    encoded = codec.encode(wave)

    @jax.jit
    def gradient(params, x):
        def loss(params):
            variables = dict(params=params, codebook=codebook)
            z = module.apply(variables, x, method="latents")
            return jnp.mean(jnp.abs(module.apply(variables, z, method="synthesize") - x))

        return jax.grad(loss)(params)

    return {
        "encode 10 s/ours": lambda: codec.encode(wave).codes,
        "decode 10 s/ours": lambda: codec.decode(encoded),
        "forward + backward 2 x 1 s/ours": lambda: gradient(codec.variables["params"], short),
    }


def _torch(wave, short) -> dict[str, Callable]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise missing(error) from None
    torch.set_num_threads(os.cpu_count())
    config = transformers.EncodecConfig(
        sampling_rate=MODEL["sample_rate"], num_filters=MODEL["n_filters"],
        upsampling_ratios=list(MODEL["ratios"]), hidden_size=MODEL["dimension"],
        codebook_size=SIZES["codebook_size"], target_bandwidths=[2.2], pad_mode="constant",
        use_causal_conv=False, use_conv_shortcut=False,
    )  # fmt: skip
    model = transformers.EncodecModel(config)
    wave, short = (torch.from_numpy(x).swapaxes(1, 2) for x in (wave, short))

    def encode():
        with torch.no_grad():
            return model.encode(wave, bandwidth=2.2).audio_codes.numpy()

    codes = torch.from_numpy(encode())

    def decode():
        with torch.no_grad():
            return model.decode(codes, [None]).audio_values.numpy()

    def gradient():
        model.zero_grad()
        (model.decoder(model.encoder(short)) - short).abs().mean().backward()

    return {
        "encode 10 s/theirs": encode,
        "decode 10 s/theirs": decode,
        "forward + backward 2 x 1 s/theirs": gradient,
    }
