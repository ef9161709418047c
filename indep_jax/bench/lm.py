"""What `bench lm` times: sampling at MusicGen-small's size, random weights, ours and transformers'."""

import functools
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from indep_jax import bench
from indep_jax.bench import missing
from indep_jax.lm import model as lm
from indep_jax.lm import sampling

FRAMES, FRAME_RATE, TEXT_DIM, TEXT_TOKENS = 48, 50.0, 768, 16
MODEL = dict(
    codebooks=4,
    codebook_size=2_048,
    pattern="delay",
    dim=1_024,
    layers=24,
    heads=16,
    ffn_dim=4_096,
    text_dim=TEXT_DIM,
    positions="sinusoidal",
    head="linear",
    depth={},
    remat=False,
)
DEPTH = dict(dim=512, layers=4, heads=8, ffn_dim=2_048)
# How codes can be decoded: what modelling them jointly costs. And with weights half as large.
WAYS = {
    "delay": ({}, "float32"),
    "delay in bfloat16": ({}, "bfloat16"),
    "parallel": (dict(pattern="parallel"), "float32"),
    "depth head": (dict(pattern="parallel", head="depth", depth=DEPTH), "float32"),
    "flattened": (dict(pattern="flattened"), "float32"),
}


def functions(against: str = "") -> dict[str, Callable]:
    """Functions of no argument, by "what/ours" and, with against="torch", "what/theirs".

    Each samples FRAMES frames of one example: compare those of "delay" with torch's.
    """
    text = np.random.default_rng(0).standard_normal((1, TEXT_TOKENS, TEXT_DIM)).astype(np.float32)
    found = {}
    for name in WAYS:
        model, variables = _model(name), _variables(name)
        for guidance in (1.0, 3.0):
            found[f"{_what(name, guidance)}/ours"] = _ours(model, variables, text, guidance)
    if against:
        for guidance, run in _torch(text).items():
            found[f"{_what('delay', guidance)}/theirs"] = run
    return found


def against_bandwidth() -> Callable[[str, float], dict]:
    """What tells the speed of a way to decode, for `bench.compare`: steps a second, seconds for a
    second of music, and how much of the memory's bandwidth reading the weights takes up.
    """
    bandwidth = _bandwidth()

    def more(what: str, seconds: float) -> dict:
        name = what.split(",")[0]
        steps = len(_model(name).schedule(FRAMES))
        return {
            "steps/s": f"{steps / seconds:.2f}",
            "s a second of music": f"{seconds / FRAMES * FRAME_RATE:.2f}",
            "of the bandwidth": f"{steps / seconds * step_bytes(name) / bandwidth:.0%}",
            "logits off by": "" if WAYS[name][1] == "float32" else f"{logits_error(name):.1%}",
        }

    return more


@functools.cache
def logits_error(name: str) -> float:
    """RMS of what the logits of a way to decode differ from float32's, over their RMS."""
    model, exact = _model(name), lm.from_config(MODEL | WAYS[name][0], "float32")
    shape = (1, len(model.schedule(FRAMES)), model.codebooks)
    tokens = np.random.default_rng(0).integers(0, model.codebook_size, shape)
    variables = jax.jit(lm.init, static_argnums=0)(exact, jax.random.key(0))
    expected = jax.jit(exact.apply)(variables, tokens)
    variables = jax.tree.map(lambda x: x.astype(WAYS[name][1]), variables)
    found = jax.jit(model.apply)(variables, tokens)
    return float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))


def step_bytes(name: str) -> int:
    """Of the weights that a step reads: not those of the text, and of embeddings only some rows."""
    model, total = _model(name), 0
    shapes = jax.eval_shape(lambda: _variables(name))
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes["params"]):
        parts = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        of_text = "text_projection" in parts or parts[-3:-1] in (
            ["cross_attention", "key"], ["cross_attention", "value"]
        )  # fmt: skip
        if not (of_text or parts[-1].endswith("embedding")):
            often = model.codebooks if parts[0] in ("depth_transformer", "depth_input") else 1
            total += often * leaf.size * leaf.dtype.itemsize
    return total


def _bandwidth() -> float:
    """Bytes a second that a product of a large matrix with a vector reads, by NumPy's BLAS."""
    matrix, vector = np.ones((1 << 13, 1 << 15), np.float32), np.ones(1 << 15, np.float32)
    seconds = bench.medians({"bandwidth": lambda: matrix @ vector}, 5)["bandwidth"]
    return matrix.nbytes / seconds.median


def _model(name: str) -> lm.LM:
    changes, dtype = WAYS[name]
    return lm.from_config(MODEL | changes, dtype)


def _variables(name: str) -> dict:
    variables = jax.jit(lm.init, static_argnums=0)(_model(name), jax.random.key(0))
    return jax.tree.map(lambda x: x.astype(WAYS[name][1]), variables)


def _what(name: str, guidance: float) -> str:
    return f"{name}, {FRAMES} frames" + (f", guidance {guidance:g}" if guidance != 1 else "")


def _ours(model, variables, text, guidance: float) -> Callable:
    settings = dict(seed=0, examples=[0], text=text, text_mask=np.ones(text.shape[:2], bool))
    return lambda: sampling.generate(model, variables, FRAMES, guidance=guidance, **settings)


def _torch(text) -> dict[float, Callable]:
    """By guidance: MusicgenForConditionalGeneration's sampling, without its T5 and its codec."""
    try:
        import torch
        import transformers
        from transformers.modeling_outputs import BaseModelOutput
    except ImportError as error:
        raise missing(error) from None
    torch.set_num_threads(os.cpu_count())
    decoder = transformers.MusicgenDecoderConfig()
    encoder = transformers.T5Config(
        d_model=TEXT_DIM, num_layers=1, num_heads=2, d_kv=4, d_ff=8, vocab_size=9
    )
    audio = transformers.EncodecConfig(num_filters=2, hidden_size=4, codebook_size=2_048)
    model = transformers.MusicgenForConditionalGeneration(
        transformers.MusicgenConfig(text_encoder=encoder, audio_encoder=audio, decoder=decoder)
    ).eval()
    # What is compared is sampling: their codec, tiny here, is not called.
    model.audio_encoder.decode = lambda codes, **scales: _Decoded(codes)

    def run(guidance):
        states, mask = torch.from_numpy(text), torch.ones(text.shape[:2], dtype=torch.long)
        if guidance != 1:
            states, mask = (torch.cat([x, torch.zeros_like(x)]) for x in (states, mask))
        return model.generate(
            torch.zeros((1, TEXT_TOKENS), dtype=torch.long),
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            guidance_scale=guidance,
            do_sample=True,
            top_k=250,
            max_length=FRAMES + decoder.num_codebooks,
        ).numpy()

    return {guidance: (lambda guidance=guidance: run(guidance)) for guidance in (1.0, 3.0)}


class _Decoded:
    def __init__(self, codes):
        self.audio_values = codes[0]
