"""Makes musicgen.npz with transformers' MusicgenForCausalLM (extra `parity`).

PYTHONPATH=tests python tests/golden/make_musicgen.py
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from golden import musicgen_cases
from transformers import MusicgenForCausalLM

from indep_jax.hub import musicgen
from indep_jax.lm import model as lm


def load(hub) -> tuple[MusicgenForCausalLM, lm.LM]:
    with tempfile.TemporaryDirectory() as folder:
        musicgen_cases.write(Path(folder), hub)
        model, info = MusicgenForCausalLM.from_pretrained(folder, output_loading_info=True)
    wrong = {kind: keys for kind, keys in info.items() if keys}
    assert not wrong, wrong
    return model.eval(), lm.from_config(musicgen.config_from_hub(hub)["model"])


@torch.no_grad()
def greedy(model, text, mask, frames: int, guidance: float) -> np.ndarray:
    """Codes [batch, frames, codebooks], greedy, of texts [batch, length, text_dim] with masks.

    By the forward pass, without a cache, and with the delays written out: `generate` of the decoder
    alone takes the first tokens for padding, and no mask of a text.
    """
    K, special = model.num_codebooks, model.config.vocab_size
    delays = torch.arange(K) // model.config.audio_channels
    text, mask = torch.from_numpy(text), torch.from_numpy(mask).long()
    if guidance != 1:  # and behind the texts no text
        text, mask = (torch.cat([x, torch.zeros_like(x)]) for x in (text, mask))
    tokens = torch.full((len(text) if guidance == 1 else len(text) // 2, K, 1), special)
    for step in range(frames + int(delays.max())):
        inputs = tokens if guidance == 1 else torch.cat([tokens, tokens])
        states = dict(encoder_hidden_states=text, encoder_attention_mask=mask)
        logits = model(inputs.flatten(0, 1), **states).logits[:, -1].unflatten(0, (-1, K))
        if guidance != 1:
            with_text, without = logits.chunk(2)
            logits = without + guidance * (with_text - without)
        at = step - delays
        emitted = torch.where((at >= 0) & (at < frames), logits.argmax(-1), special)
        tokens = torch.cat([tokens, emitted[..., None]], dim=-1)
    found = [tokens[:, k, d + 1 : d + 1 + frames] for k, d in enumerate(delays.tolist())]
    return torch.stack(found, dim=-1).numpy()


def main():
    model, module = load(musicgen_cases.DECODER)
    tokens, text, mask = musicgen_cases.inputs(module)
    # Theirs are given what comes before each step, all codebooks of an example one after another.
    before = np.pad(tokens[:, :-1], ((0, 0), (1, 0), (0, 0)), constant_values=module.special)
    with torch.no_grad():
        logits = model(
            torch.from_numpy(before.swapaxes(1, 2).reshape(-1, before.shape[1])).long(),
            encoder_hidden_states=torch.from_numpy(text),
            encoder_attention_mask=torch.from_numpy(mask).long(),
        ).logits
    logits = logits.numpy().reshape(len(tokens), module.codebooks, *logits.shape[1:])
    found = dict(logits=logits.swapaxes(1, 2))
    for name, hub in musicgen_cases.GREEDY.items():
        model, module = load(hub)
        _, text, mask = musicgen_cases.inputs(module)
        for guidance in (1, 3):
            codes = greedy(model, text, mask, musicgen_cases.GREEDY_FRAMES, guidance)
            assert len(np.unique(codes)) >= 50, len(np.unique(codes))
            found[f"greedy/{name}/{guidance}"] = codes.astype(np.int16)
    np.savez_compressed(Path(__file__).parent / "musicgen.npz", **found)


if __name__ == "__main__":
    main()
