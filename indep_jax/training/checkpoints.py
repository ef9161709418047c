"""What a workdir keeps of a run: config.json and checkpoints/ (Orbax, state and data position).

A batch is a function of (seed, index), so the data position is one integer and is stored as JSON
beside the arrays; there is no iterator state. Random keys are derived from the step: none stored.
Orbax writes a step beside its final name and renames it when complete, so a save that was cut
leaves nothing that looks like a checkpoint.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

# Fields that do not change the numbers of a run, so a resumed run may change them.
FREE_FIELDS = ("log_every", "evaluate_every", "save_every", "keep", "data.workers")
_ABSENT = "(absent)"


class Checkpoints:
    """Saves the checkpoints of one run, in workdir/checkpoints/STEP.

    Args:
      workdir: the run's folder.
      keep: how many of the newest are kept.
    """

    def __init__(self, workdir: str | os.PathLike, *, keep: int):
        self._manager = ocp.CheckpointManager(
            _directory(workdir),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True))

    def save(self, step: int, state: Any, position: Mapping[str, Any]) -> None:
        """Starts an asynchronous save; the state may be donated as soon as this returns."""
        self._manager.save(step, args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), position=ocp.args.JsonSave(dict(position))))

    def wait(self) -> None:
        """Returns when every save that was started is complete."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for running saves and releases the threads."""
        self._manager.close()


def latest(workdir: str | os.PathLike) -> pathlib.Path | None:
    """The folder of the newest complete checkpoint, named by its step, or None."""
    directory = _directory(workdir)
    if not directory.is_dir():
        return None
    complete = [path for path in directory.iterdir() if path.name.isdecimal()]
    return max(complete, key=lambda path: int(path.name), default=None)


def restore(path: pathlib.Path, template: Any = None) -> tuple[int, Any, dict[str, Any]]:
    """Reads the checkpoint in the folder `path`: (step, state, position).

    Args:
      path: from `latest`.
      template: tree of jax.ShapeDtypeStruct with shardings, to restore into exactly this
        structure. None gives nested dicts and lists of arrays on the first device.
    Raises:
      ValueError: its tree differs from the template's; names the first difference.
    """
    handler = ocp.CompositeCheckpointHandler(
        state=ocp.StandardCheckpointHandler(), position=ocp.JsonCheckpointHandler())
    with ocp.Checkpointer(handler) as checkpointer:
        stored = checkpointer.metadata(path).item_metadata["state"].tree
        if template is None:
            device = SingleDeviceSharding(jax.local_devices()[0])
            template = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), stored)
        elif difference := _structure_difference(stored, template):
            raise ValueError(f"{path} does not fit this config: {difference}")
        items = checkpointer.restore(path, ocp.args.Composite(
            state=ocp.args.StandardRestore(template), position=ocp.args.JsonRestore()))
    return int(path.name), items["state"], items["position"]


def restore_latest(workdir: str | os.PathLike, template: Any = None) -> tuple[int, Any]:
    """(step, state) of the newest checkpoint of a run; see `restore`.

    Without a template it needs nothing but the workdir. Raises ValueError when there is no
    checkpoint.
    """
    path = latest(workdir)
    if path is None:
        raise ValueError(f"{workdir}: no checkpoints here, expected a training workdir")
    step, state, _ = restore(path, template)
    return step, state


def _directory(workdir: str | os.PathLike) -> pathlib.Path:
    return pathlib.Path(workdir).absolute() / "checkpoints"


def _leaves(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _structure_difference(stored: Any, wanted: Any) -> str:
    """The first leaf in which two trees of shapes differ, as text; empty when they agree."""
    stored, wanted = _leaves(stored), _leaves(wanted)
    for name in sorted(stored.keys() | wanted.keys()):
        if name not in stored:
            return f"{name} is not in the checkpoint"
        if name not in wanted:
            return f"{name} is only in the checkpoint"
        old, new = ((tuple(x.shape), str(x.dtype)) for x in (stored[name], wanted[name]))
        if old != new:
            return f"{name} is {old[1]}{list(old[0])} there and {new[1]}{list(new[0])} here"
    return ""


def read_config(workdir: str | os.PathLike) -> dict[str, Any] | None:
    """The config stored in a workdir as plain data, or None."""
    path = pathlib.Path(workdir) / "config.json"
    return json.loads(path.read_text()) if path.exists() else None


def check_config(workdir: str | os.PathLike, config: Any) -> None:
    """Raises ValueError naming every field in which `config` differs from the workdir's.

    Compared after JSON normalisation (a tuple is a list). FREE_FIELDS may differ, and `steps`
    too where no schedule is drawn over it (optimizer.schedule is "constant"): such a run goes on.
    """
    stored = read_config(workdir)
    if stored is None:
        return
    old, new = _flatten(stored), _flatten(_plain(config))
    free = set(FREE_FIELDS)
    if old.get("optimizer.schedule") == "constant":
        free.add("steps")
    changes = [f"{field}: {_show(old, field)} -> {_show(new, field)}"
               for field in sorted((old.keys() | new.keys()) - free)
               if old.get(field, _ABSENT) != new.get(field, _ABSENT)]
    if changes:
        raise ValueError(f"{workdir} holds a run with another config: {'; '.join(changes)}")


def store_config(workdir: str | os.PathLike, config: Any) -> None:
    """Writes workdir/config.json, beside and then renamed; the first process of several does."""
    if jax.process_index():
        return
    path = pathlib.Path(workdir) / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".json.tmp")
    beside.write_text(json.dumps(_plain(config), indent=2) + "\n")
    beside.replace(path)


def _plain(config: Any) -> dict[str, Any]:
    return json.loads(json.dumps(config.to_dict() if hasattr(config, "to_dict") else config))


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _show(flat: Mapping[str, Any], field: str) -> str:
    return json.dumps(flat[field]) if field in flat else _ABSENT
