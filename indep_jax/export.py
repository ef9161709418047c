"""A codec as a Hugging Face folder, for transformers and whatever else reads that.

    python -m indep_jax.export --codec=DIR --output=DIR

--codec is a workdir of indep_jax.train (its averaged weights), or a Hugging Face folder. The folder
that is made gives the same codes and the same sound in transformers' EncodecModel.from_pretrained.
Its README.md says where the weights come from, and carries on the licence of those that they
started from.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from indep_jax import command, loading
from indep_jax.hub import encodec, folders

_EXAMPLE = """```python
from transformers import EncodecModel

model = EncodecModel.from_pretrained("PATH")
encoded = model.encode(wave, bandwidth={bandwidth:g})  # [batch, {channels}, time] at {rate} Hz
```"""


class Content(NamedTuple):
    """What a Hugging Face folder holds: JSON files and tensors by name, and its README.md."""

    configs: dict[str, dict]
    tensors: dict[str, np.ndarray]
    card: str


def codec_content(path: str) -> Content:
    """A codec's folder. Raises ValueError, one line, for what transformers has no form of."""
    codec = loading.load_codec(path)
    title = f"EnCodec, {codec.sample_rate / 1000:g} kHz"
    sound = {1: "mono", 2: "stereo"}.get(codec.channels)
    bandwidth = codec.bandwidths[-1]
    about = (
        f"{codec.sample_rate} Hz {sound}, {codec.frame_rate:g} frames a second of {codec.codebooks} "
        f"codes out of {codec.codebook_size}: {bandwidth:g} kbit/s."
    )
    history = ""
    if codec.step:
        loss = codec.config["loss"]["independence"]
        term = "no independence loss"
        if loss["kind"] != "none":
            term = f"the independence loss {loss['kind']}"
        history = f"They were trained for {codec.step} steps with {term}."
    example = _EXAMPLE.format(
        bandwidth=bandwidth, channels=codec.channels, rate=codec.sample_rate
    )
    card = folders.card(title, [about, example], codec.config.get("origin"), history)
    return Content(*encodec.to_hub(codec.config, codec.variables), card)


def main() -> None:
    options = flags.FLAGS
    output = Path(options.output)
    folders.check_absent(output)
    content = codec_content(options.codec)
    folders.write(output, *content)
    size = sum(tensor.nbytes for tensor in content.tensors.values())
    print(f"{output}: {len(content.tensors)} tensors, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    flags.DEFINE_string("codec", None, "Workdir of indep_jax.train, Hugging Face folder or hf:NAME.",
                        required=True)
    flags.DEFINE_string("output", None, "Folder to make.", required=True)
    command.run(main)
