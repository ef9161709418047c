"""What `bench lm` times: sampling at MusicGen-small's size, random weights, ours and transformers'."""

import os
from collections.abc import Callable

import jax
import numpy as np

from indep_jax.bench import missing
from indep_jax.lm import model as lm
from indep_jax.lm import sampling

FRAMES, TEXT_DIM, TEXT_TOKENS = 48, 768, 16
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
# How codes can be decoded: what modelling them jointly costs.
HEADS = {
    "delay": {},
    "parallel": dict(pattern="parallel"),
    "depth head": dict(pattern="parallel", head="depth", depth=DEPTH),
    "flattened": dict(pattern="flattened"),
}


def functions(against: str = "") -> dict[str, Callable]:
    """Functions of no argument, by "what/ours" and, with against="torch", "what/theirs".

    Each samples FRAMES frames of one example: compare those of "delay" with torch's.
    """
    text = np.random.default_rng(0).standard_normal((1, TEXT_TOKENS, TEXT_DIM)).astype(np.float32)
    found = {}
    for name, changes in HEADS.items():
        model = lm.from_config(MODEL | changes)
        variables = jax.jit(lm.init, static_argnums=0)(model, jax.random.key(0))
        for guidance in (1.0, 3.0):
            found[f"{_what(name, guidance)}/ours"] = _ours(model, variables, text, guidance)
    if against:
        for guidance, run in _torch(text).items():
            found[f"{_what('delay', guidance)}/theirs"] = run
    return found


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
    model.audio_encoder.decode = lambda codes, scales: _Decoded(codes)

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
