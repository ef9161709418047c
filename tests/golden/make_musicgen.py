"""Makes musicgen.npz with transformers' MusicgenForCausalLM (extra `parity`).

    python tests/golden/make_musicgen.py
"""

import tempfile
from pathlib import Path

import musicgen_cases
import numpy as np
import torch
from transformers import MusicgenForCausalLM

from indep_jax.hub import musicgen
from indep_jax.lm import model as lm

if __name__ == "__main__":
    hub = musicgen_cases.DECODER
    with tempfile.TemporaryDirectory() as folder:
        musicgen_cases.write(Path(folder), hub)
        model, info = MusicgenForCausalLM.from_pretrained(folder, output_loading_info=True)
    wrong = {kind: keys for kind, keys in info.items() if keys}
    assert not wrong, wrong
    module = lm.from_config(musicgen.config_from_hub(hub)["model"])
    tokens, text, mask = musicgen_cases.inputs(module)
    # Theirs are given what comes before each step, all codebooks of an example one after another.
    before = np.pad(tokens[:, :-1], ((0, 0), (1, 0), (0, 0)), constant_values=module.special)
    with torch.no_grad():
        logits = model.eval()(
            torch.from_numpy(before.swapaxes(1, 2).reshape(-1, before.shape[1])).long(),
            encoder_hidden_states=torch.from_numpy(text),
            encoder_attention_mask=torch.from_numpy(mask).long(),
        ).logits
    logits = logits.numpy().reshape(len(tokens), module.codebooks, *logits.shape[1:])
    np.savez_compressed(Path(__file__).parent / "musicgen.npz", logits=logits.swapaxes(1, 2))
