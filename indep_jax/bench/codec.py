"""What `bench codec` times: the true 32 kHz size with random weights, ours and transformers'."""

import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from indep_jax import inference
from indep_jax.bench import cost, missing
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
CONFIG = dict(dtype="float32", model=MODEL, quantizer=SIZES)


def functions(against: str = "") -> dict[str, Callable]:
    """Functions of no argument, by "what/ours" and, with against="torch", "what/theirs"."""
    rng = np.random.default_rng(0)
    wave = (0.1 * rng.standard_normal((1, 320_000, 1))).astype(np.float32)
    short = (0.1 * rng.standard_normal((2, 32_000, 1))).astype(np.float32)
    return _ours(wave, short) | (_torch(wave, short) if against else {})


def against_bound() -> Callable[[str, float], dict]:
    """What tells how many times a bound each call takes, for `bench.compare`: its matmuls and
    convolutions at the speed of one large matmul here."""
    flops, _ = cost.speeds()
    counted = programs(_module())

    def more(what: str, seconds: float) -> dict:
        bound = cost.count(*counted[what]).flops / flops
        return {"bound": f"{bound:.3f} s", "times the bound": f"{seconds / bound:.2f}"}

    return more


def _module():
    return inference.LoadedCodec(CONFIG, {}).module


def programs(module) -> dict[str, tuple]:
    """By what is timed: a function, and the shapes of its arguments, variables and signal."""

    def gradient(variables, x):
        def loss(params):
            both = {**variables, "params": params}
            z = module.apply(both, x, method="latents")
            return jnp.mean(jnp.abs(module.apply(both, z, method="synthesize") - x))

        return jax.grad(loss)(variables["params"])

    def shape(*sizes, dtype="float32"):
        return jax.ShapeDtypeStruct(sizes, dtype)

    ten, short = shape(1, 10 * module.sample_rate, 1), shape(2, module.sample_rate, 1)
    codes = shape(1, ten.shape[1] // module.hop, module.codebooks, dtype="int32")
    variables = jax.eval_shape(module.init, jax.random.key(0), ten)
    return {
        "encode 10 s": (lambda v, x: module.apply(v, x, method="encode")[0], variables, ten),
        "decode 10 s": (lambda v, x: module.apply(v, x, method="decode"), variables, codes),
        "forward + backward 2 x 1 s": (gradient, variables, short),
    }


def _ours(wave, short) -> dict[str, Callable]:
    module = _module()
    params = jax.jit(module.init)(jax.random.key(0), wave[:, :640])["params"]
    codebook = quantizer.empty(module.codebooks, module.codebook_size, module.dimension)
    codebook["embed"] = jax.random.normal(jax.random.key(1), codebook["embed"].shape)
    codec = inference.LoadedCodec(CONFIG, dict(params=params, codebook=codebook))
    encoded = codec.encode(wave)
    gradient = jax.jit(programs(module)["forward + backward 2 x 1 s"][0])
    return {
        "encode 10 s/ours": lambda: codec.encode(wave).codes,
        "decode 10 s/ours": lambda: codec.decode(encoded),
        "forward + backward 2 x 1 s/ours": lambda: gradient(codec.variables, short),
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
