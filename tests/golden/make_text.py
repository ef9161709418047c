"""Makes text.npz with transformers' T5EncoderModel and BertModel (extra `parity`).

python tests/golden/make_text.py
"""

import tempfile
from pathlib import Path

import numpy as np
import text_cases
import torch
from transformers import BertModel, T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

CLASSES = dict(t5=T5EncoderModel, bert=BertModel)


def outputs(config: dict) -> np.ndarray:
    """The states of every token that is not padding, [tokens, dim]."""
    with tempfile.TemporaryDirectory() as folder:
        text_cases.write(Path(folder), config, text_cases.tensors(config))
        kind = CLASSES[config["model_type"]]
        model, info = kind.from_pretrained(folder, output_loading_info=True)
    wrong = {kind: keys for kind, keys in info.items() if keys}
    assert not wrong, wrong
    ids, mask = text_cases.inputs(config)
    with torch.no_grad():
        states = model.eval()(
            input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask).long()
        ).last_hidden_state.numpy()
    print(config["model_type"], states.shape, "standard deviation", states[mask].std())
    return states[mask]


def buckets(count: int, largest: int) -> np.ndarray:
    offsets = torch.arange(-text_cases.POSITIONS, text_cases.POSITIONS + 1)
    return T5Attention._relative_position_bucket(offsets, True, count, largest).numpy()


if __name__ == "__main__":
    arrays = {name: outputs(config) for name, config in text_cases.CASES.items()}
    for count, largest in text_cases.BUCKETS:
        arrays[f"buckets_{count}_{largest}"] = buckets(count, largest).astype(np.int32)
    np.savez_compressed(Path(__file__).parent / "text.npz", **arrays)
