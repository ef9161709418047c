"""What the name maps share: an Entry, and the folder of config.json and model.safetensors."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
import safetensors


class Entry(NamedTuple):
    """One parameter of ours and the Hugging Face tensor that holds it.

    ours: path of the variable, such as "params/encoder/conv_in/bias".
    theirs: name of the tensor.
    axes: for each of our axes the axis of theirs.
    ones: how many trailing axes of length 1 theirs has besides.
    index: which slice of the variable's first axis this is; None for all of it.
    """

    ours: str
    theirs: str
    axes: tuple[int, ...]
    ones: int = 0
    index: int | None = None

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of their tensor, from that of our variable."""
        shape = shape if self.index is None else shape[1:]
        return tuple(shape[i] for i in np.argsort(self.axes)) + (1,) * self.ones

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        """Their tensor in our layout."""
        return tensor.reshape(tensor.shape[: len(self.axes)]).transpose(self.axes)


def read_config(folder: Path) -> dict:
    """The fields of a folder's config.json. Raises ValueError, one line."""
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None


def read_tensors(
    folder: Path, has_counterpart: Callable[[str], bool] = lambda name: True
) -> dict[str, np.ndarray]:
    """The tensors of model.safetensors, or of the files that model.safetensors.index.json lists.

    Only those whose name `has_counterpart` accepts are read. Raises ValueError, one line, for files
    that are missing or damaged, and for weights in a pickle, which is never opened.
    """
    path, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if path.is_file():
        paths = [path]
    elif index.is_file():
        try:
            listed = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{index}: has no weight_map of file names") from None
        paths = [folder / name for name in sorted(listed)]
    elif any(folder.glob("*.bin")):
        raise ValueError(
            f"{folder}: its weights are a pickle (.bin), which is never opened; if you trust it, "
            "convert it: python -c \"from transformers import AutoModel; "
            f"AutoModel.from_pretrained('{folder}').save_pretrained('{folder}')\""
        )
    else:
        raise ValueError(f"{path}: no such file")
    tensors = {}
    for path in paths:
        try:
            with safetensors.safe_open(path, framework="np") as file:
                names = filter(has_counterpart, file.keys())
                tensors |= {name: file.get_tensor(name) for name in names}
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file") from None
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path}: not a whole safetensors file ({error})") from None
    return tensors


def to_variables(
    table: Sequence[Entry], module: nn.Module, inputs: Sequence, tensors: Mapping, folder: Path
) -> dict:
    """Our variables, float32 numpy arrays, from their tensors.

    Args:
      table: of every variable that `module.init` makes for `inputs` (ShapeDtypeStructs).
      tensors: theirs, by name, without those that have no counterpart.
      folder: where they come from, for messages.

    Raises:
      ValueError: one line, for tensors that are missing, left over or of another shape.
    """
    variables = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    shapes = {name: value.shape for name, value in flat.items()}
    unmapped = set(shapes) ^ {entry.ours for entry in table}
    if unmapped:
        raise RuntimeError(f"the name map and the module disagree on {_listed(unmapped)}")

    wanted, found = {entry.theirs for entry in table}, set(tensors)
    problems = []
    if wanted - found:
        problems.append(f"missing {_listed(wanted - found)}")
    if found - wanted:
        problems.append(f"left over {_listed(found - wanted)}")
    for entry in table:
        expected = entry.their_shape(shapes[entry.ours])
        if entry.theirs in found and tensors[entry.theirs].shape != expected:
            problems.append(
                f"{entry.theirs} has shape {tensors[entry.theirs].shape}, not {expected}"
            )
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ValueError(
            f"{folder / 'model.safetensors'}: does not fit config.json: "
            + "; ".join(problems[:4])
            + more
        )
    flat = {}
    for entry in table:
        value = entry.to_ours(np.asarray(tensors[entry.theirs], np.float32))
        if entry.index is None:
            flat[entry.ours] = value
        else:
            flat.setdefault(entry.ours, np.empty(shapes[entry.ours], np.float32))
            flat[entry.ours][entry.index] = value
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def _listed(names) -> str:
    names = sorted(names)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
