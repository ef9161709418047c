"""Makes minilm.npz with transformers' BertModel and tokenizer (extra `parity`), of the real weights.

python -m indep_jax.text.fetch_minilm && python tests/golden/make_minilm.py
"""

from pathlib import Path

import numpy as np
import text_cases
import torch
from transformers import AutoTokenizer, BertModel

from indep_jax.text import fetch_minilm

if __name__ == "__main__":
    folder = fetch_minilm.minilm_folder()
    model = BertModel.from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(
        text_cases.CAPTIONS, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        states = model(**inputs).last_hidden_state.numpy()
    mask = inputs["attention_mask"].numpy().astype(bool)
    means = np.stack([row[own].mean(0) for row, own in zip(states, mask)])
    ids = inputs["input_ids"].numpy().astype(np.int32)
    path = Path(__file__).parent / "minilm.npz"
    np.savez_compressed(path, ids=ids, lengths=mask.sum(1), means=means)
    print(path, ids.shape, means.shape, "standard deviation", means.std())
