"""The stored part of a run: workdir/config.json and workdir/checkpoints/ (Orbax).

A checkpoint holds the state and the data position. Batches are a function of (seed, index), so the
position is one integer, stored as JSON; random keys follow from the step, so none are stored.
Orbax writes a checkpoint under a temporary name and renames it when complete, so an interrupted
save leaves nothing that looks like a checkpoint. Before the renaming we add a manifest of hashes,
with which later damage to the files is noticed; then the checkpoint before is used.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import pathlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from indep_jax.support.errors import UserError
from indep_jax.support.files import replace_file

# Fields that a resumed run may change, as they do not change its numbers.
FREE_FIELDS = (
    "log_every",
    "evaluate_every",
    "save_every",
    "keep",
    "data.workers",
    "data.max_unreadable",
)
MANIFEST = "sha256sums"  # in every checkpoint; `sha256sum -c` reads it
# Orbax writes these after `_seal`: the time of the commit into the first, the second whole.
_STAMPED = "_CHECKPOINT_METADATA"
_UNSEALED = (MANIFEST, _STAMPED, "commit_success.txt")
_ABSENT = "(absent)"


class Lock:
    """Reserve a workdir for one run; with several processes, the first holds the lock.

    The operating system releases the lock when the process ends, in whatever way. Raises UserError
    where another run holds it, and OSError where the workdir cannot be written.
    """

    def __init__(self, workdir: str | os.PathLike):
        self._file = None
        if jax.process_index():
            return
        os.makedirs(workdir, exist_ok=True)
        self._file = open(os.path.join(workdir, "lock"), "a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip()
            self._file.close()
            raise UserError(f"{workdir} is in use by another run, {holder}") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):  # file systems without locks
                raise
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        self._file.flush()

    def release(self) -> None:
        """Let another run have the workdir."""
        if self._file is not None:
            self._file.close()


def _no_thread_traceback(record: logging.LogRecord) -> bool:
    """Drop Orbax's per-thread tracebacks of a failed save; the failure is raised anyway."""
    return not (record.exc_info and "orbax" in record.pathname)


class Checkpoints:
    """Save the checkpoints of one run, in workdir/checkpoints/STEP.

    Args:
      workdir: the run's folder.
      keep: the number of newest checkpoints to keep.
    """

    def __init__(self, workdir: str | os.PathLike, *, keep: int):
        self._directory = _directory(workdir)
        self._saving = 0  # the step of the save started last
        logging.getLogger("absl").addFilter(_no_thread_traceback)
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            ),
        )

    def save(self, step: int, state: Any, position: Mapping[str, Any]) -> None:
        """Start an asynchronous save; the state may be donated as soon as this returns.

        Raises OSError, which names the folder, where this save or the one before failed.
        """
        with self._naming_failures():
            # The save before must have ended, as `_seal` reads its step.
            self._manager.wait_until_finished()
            self._saving = step
            # Checked here, as Orbax reports a full disk in hundreds of lines.
            needed = sum(x.nbytes for x in jax.tree.leaves(state))
            free = shutil.disk_usage(self._directory).free
            if needed > free:
                raise OSError(f"it takes {needed / 1e6:.1f} MB and {free / 1e6:.1f} MB are free")
            saved = self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), position=ocp.args.JsonSave(dict(position))
                ),
            )
            if not saved:
                raise OSError("there is a newer one")

    def wait(self) -> None:
        """Wait until every started save is complete; raise as `save` does."""
        with self._naming_failures():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for running saves and release the threads; raise as `save` does."""
        with self._naming_failures():
            self._manager.close()

    def drop_after(self, step: int) -> None:
        """Delete checkpoints after `step`, which did not verify; the run writes them again."""
        for newer in self._manager.all_steps():
            if newer > step:
                self._manager.delete(newer)

    def _seal(self) -> None:
        """Add the manifest to a checkpoint that is complete and not yet renamed."""
        if jax.process_index() == 0:
            (folder,) = self._directory.glob(f"{self._saving}.orbax-checkpoint-tmp*")
            write_manifest(folder)

    @contextlib.contextmanager
    def _naming_failures(self):
        try:
            yield
        except Exception as error:
            # Orbax and TensorStore raise many types, of many lines, for a full or missing disk.
            reason = " ".join(str(error).split())
            if len(reason) > 300:
                reason = f"{reason[:300]}..."
            reason = (
                f"the checkpoint of step {self._saving} could not be written, earlier ones are "
                f"intact: {reason or type(error).__name__}"
            )
            raise OSError(errno.EIO, reason, str(self._directory)) from error


def write_manifest(folder: pathlib.Path) -> None:
    """Write folder/sha256sums for all files in it, in the format of sha256sum."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(_digests(folder).items())]
    with open(folder / MANIFEST, "w") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def damage(path: pathlib.Path) -> str:
    """Return how a checkpoint's files differ from its manifest, in words; empty if they agree."""
    try:
        stated = dict(
            reversed(line.split("  ", 1)) for line in (path / MANIFEST).read_text().splitlines()
        )
        found = _digests(path)
        json.loads((path / _STAMPED).read_text())
    except OSError as error:
        where = os.path.basename(error.filename or path)  # unlike open, read does not name the file
        return f"{where}: {(error.strerror or str(error)).lower()}"
    except ValueError:
        return f"{MANIFEST} or {_STAMPED} is malformed"
    for name in sorted(stated.keys() | found.keys()):
        if stated.get(name) != found.get(name):
            return f"{name} " + ("is missing" if name not in found else "is not what was written")
    return ""


def _digests(folder: pathlib.Path) -> dict[str, str]:
    digests = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in _UNSEALED:
            with open(path, "rb") as file:
                digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(
                    file, "sha256"
                ).hexdigest()
    return digests


def latest(workdir: str | os.PathLike) -> pathlib.Path | None:
    """Return the folder of the newest checkpoint that verifies, named by its step, or None.

    Prints on stderr which checkpoints were passed over and why. Raises UserError where there are
    checkpoints and none verifies: whether to start over is for the user to decide.
    """
    directory = _directory(workdir)
    if not directory.is_dir():
        return None
    complete = [path for path in directory.iterdir() if path.name.isdecimal()]
    for path in sorted(complete, key=lambda path: int(path.name), reverse=True):
        problem = damage(path)
        if not problem:
            return path
        print(f"{path} is damaged and passed over: {problem}", file=sys.stderr, flush=True)
    if complete:
        raise UserError(
            f"{directory}: none of the {len(complete)} checkpoints verifies, see above; "
            "to begin anew, move them away"
        )
    return None


def restore(
    path: pathlib.Path, template: Any = None, only: Sequence[str] | None = None
) -> tuple[int, Any, dict[str, Any]]:
    """Read the checkpoint in the folder `path` and return (step, state, position).

    Args:
      path: from `latest`.
      template: tree of jax.ShapeDtypeStruct with shardings, the structure to restore. None returns
        nested dicts and lists of arrays on the first device.
      only: without a template, the entries of the state to read; the others take no memory.
    Raises:
      UserError: the stored tree differs from the template; the message names the first difference.
    """
    handler = ocp.CompositeCheckpointHandler(
        state=ocp.PyTreeCheckpointHandler(), position=ocp.JsonCheckpointHandler()
    )
    with ocp.Checkpointer(handler) as checkpointer:
        stored = checkpointer.metadata(path).item_metadata["state"].tree
        if only is not None:
            stored = {name: stored[name] for name in only}
        if template is None:
            device = SingleDeviceSharding(jax.local_devices()[0])
            template = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), stored
            )
        elif difference := _structure_difference(stored, template):
            raise UserError(f"{path} does not fit this config: {difference}")
        items = checkpointer.restore(
            path,
            ocp.args.Composite(
                state=ocp.args.PyTreeRestore(
                    template,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(template),
                    partial_restore=True,
                ),
                position=ocp.args.JsonRestore(),
            ),
        )
    return int(path.name), items["state"], items["position"]


def restore_latest(
    workdir: str | os.PathLike, template: Any = None, only: Sequence[str] | None = None
) -> tuple[int, Any]:
    """Return (step, state) of the newest checkpoint of a run; see `restore`.

    Without a template, the workdir is all that is needed. Raises UserError where there is no
    checkpoint.
    """
    path = latest(workdir)
    if path is None:
        raise UserError(f"{workdir}: no checkpoints here, expected a training workdir")
    step, state, _ = restore(path, template, only)
    return step, state


def _directory(workdir: str | os.PathLike) -> pathlib.Path:
    return pathlib.Path(workdir).absolute() / "checkpoints"


def _leaves(tree: Any) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _structure_difference(stored: Any, wanted: Any) -> str:
    """Return the first difference between two trees of shapes, in words; empty if they agree."""
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
    """Return the config stored in a workdir as plain data, or None."""
    path = pathlib.Path(workdir) / "config.json"
    return json.loads(path.read_text()) if path.exists() else None


def check_config(workdir: str | os.PathLike, config: Any) -> None:
    """Raise UserError naming every field in which `config` differs from the workdir's.

    Both are compared as JSON, where a tuple is a list. FREE_FIELDS may differ, and so may `steps`
    where the learning rate does not depend on it (optimizer.schedule is "constant").
    """
    stored = read_config(workdir)
    if stored is None:
        return
    old, new = _flatten(stored), _flatten(_plain(config))
    free = set(FREE_FIELDS)
    if old.get("optimizer.schedule") == "constant":
        free.add("steps")
    changes = [
        f"{field}: {_show(old, field)} -> {_show(new, field)}"
        for field in sorted((old.keys() | new.keys()) - free)
        if old.get(field, _ABSENT) != new.get(field, _ABSENT)
    ]
    if changes:
        raise UserError(f"{workdir} holds a run with another config: {'; '.join(changes)}")


def store_config(workdir: str | os.PathLike, config: Any) -> None:
    """Write workdir/config.json; the first process of several does."""
    if jax.process_index():
        return
    content = f"{json.dumps(_plain(config), indent=2)}\n"
    replace_file(pathlib.Path(workdir) / "config.json", content)


def forget_config(workdir: str | os.PathLike) -> None:
    """Delete workdir/config.json, so that a run with another config may begin there."""
    if not jax.process_index():
        (pathlib.Path(workdir) / "config.json").unlink(missing_ok=True)


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
