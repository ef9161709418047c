"""What the name maps share: an Entry, and tensors as config.json and model.safetensors hold them.

Tensors are read one by one where they are used, so that a model is in memory once.
"""

import collections
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
import safetensors

from indep_jax.support.errors import UserError

_OF_PARTS = ("musicgen", "musicgen_melody")  # models that hold a text encoder and a codec


class Entry(NamedTuple):
    """One parameter of ours and the Hugging Face tensor that holds it.

    ours: path of the variable, such as "params/encoder/conv_in/bias".
    theirs: name of the tensor.
    axes: for each of our axes the axis of theirs.
    ones: how many trailing axes of length 1 theirs has besides.
    index: which slice of the variable's first axis this is, in order; None for all of it.
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

    def to_theirs(self, variable: np.ndarray) -> np.ndarray:
        """Our variable, or its slice, in their layout."""
        value = variable if self.index is None else variable[self.index]
        theirs = value.transpose(np.argsort(self.axes)).reshape(self.their_shape(variable.shape))
        return np.ascontiguousarray(theirs)  # safetensors writes memory as it lies


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in a safetensors file; `np.asarray` reads it."""

    path: Path
    name: str
    shape: tuple[int, ...]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        # The file is opened anew: what has been read of a mapping stays in memory with it.
        with safetensors.safe_open(self.path, framework="np") as file:
            return np.asarray(file.get_tensor(self.name), dtype)


def read_config(folder: Path, name: str = "config.json") -> dict:
    """The fields of a folder's config.json, or of another file. Raises UserError, one line."""
    path = folder / name
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected fields with names, not {type(found).__name__}")
    return found


def part_of(folder: Path, part: str) -> tuple[dict, str, str]:
    """(fields of config.json, what messages call it, prefix of the tensors) of a folder's model.

    That is the model itself or, in a folder of MusicGen, its `part`: text_encoder, audio_encoder.
    """
    hub, name = read_config(folder), str(folder / "config.json")
    if hub.get("model_type") not in _OF_PARTS:
        return hub, name, ""
    return hub.get(part) or {}, f"{name}: {part}", f"{part}."


def read_tensors(
    folder: Path, has_counterpart: Callable[[str], bool] = lambda name: True, prefix: str = ""
) -> dict[str, Stored]:
    """The tensors of model.safetensors, or of the files that model.safetensors.index.json lists.

    Only those whose name, after the prefix, `has_counterpart` accepts; by that name. Raises
    UserError, one line, for files that are missing or damaged, and for weights in a pickle, which
    is never opened.
    """
    path, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if path.is_file():
        paths = [path]
    elif index.is_file():
        try:
            listed = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{index}: has no weight_map of file names") from None
        paths = [folder / name for name in sorted(listed)]
    elif any(folder.glob("*.bin")):
        model = (read_config(folder).get("architectures") or ["AutoModel"])[0]
        raise UserError(
            f"{folder}: its weights are a pickle (.bin), which is never opened; if you trust it, "
            f'convert it: python -c "from transformers import {model}; '
            f"{model}.from_pretrained('{folder}').save_pretrained('{folder}')\""
        )
    else:
        raise UserError(f"{path}: no such file")
    tensors = {}
    for path in paths:
        try:
            with safetensors.safe_open(path, framework="np") as file:
                for whole in file.keys():
                    name = whole.removeprefix(prefix)
                    if not whole.startswith(prefix) or not has_counterpart(name):
                        continue
                    if name in tensors:
                        raise UserError(f"{path}: {whole} is in {tensors[name].path.name} too")
                    shape = tuple(file.get_slice(whole).get_shape())
                    tensors[name] = Stored(path, whole, shape)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file, which {index.name} lists") from None
        except safetensors.SafetensorError as error:
            raise UserError(f"{path}: not a whole safetensors file ({error})") from None
    return tensors


def to_variables(
    table: Sequence[Entry], module: nn.Module, inputs: Sequence, tensors: Mapping, folder: Path,
    shardings: Mapping | None = None,
) -> dict:  # fmt: skip
    """Our variables, float32 arrays, from their tensors, one by one.

    Args:
      table: of every variable that `module.init` makes for `inputs` (ShapeDtypeStructs).
      tensors: theirs, by name, without those that have no counterpart.
      folder: where they come from, for messages.
      shardings: where each variable goes, a tree like that of the variables; default the first
        device.

    Raises:
      UserError: one line, for tensors that are missing, left over or of another shape.
    """
    variables = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    shapes = {name: value.shape for name, value in flat.items()}
    _check_ours(table, shapes)
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
        raise UserError(
            f"{folder / 'model.safetensors'}: does not fit config.json: "
            + "; ".join(problems[:4])
            + more
        )
    flat, places = {}, flax.traverse_util.flatten_dict(shardings or {}, sep="/")
    entries = collections.defaultdict(list)
    for entry in table:
        entries[entry.ours].append(entry)
    # Those of many slices first: while they are joined they are in memory twice.
    for ours in sorted(entries, key=lambda ours: -len(entries[ours])):
        flat[ours] = jax.device_put(_variable(entries[ours], tensors), places.get(ours))
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def _variable(entries: Sequence[Entry], tensors: Mapping) -> np.ndarray:
    parts = [entry.to_ours(np.asarray(tensors[entry.theirs], np.float32)) for entry in entries]
    return parts[0] if entries[0].index is None else np.stack(parts)


def to_tensors(table: Sequence[Entry], variables: Mapping) -> dict[str, np.ndarray]:
    """Their tensors, by name, from our variables: float32, the inverse of `to_variables`."""
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    _check_ours(table, flat)
    return {
        entry.theirs: entry.to_theirs(np.asarray(flat[entry.ours], np.float32)) for entry in table
    }


def _check_ours(table: Sequence[Entry], names) -> None:
    unmapped = set(names) ^ {entry.ours for entry in table}
    if unmapped:
        raise RuntimeError(f"the name map and the module disagree on {_listed(unmapped)}")


def _listed(names) -> str:
    names = sorted(names)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
