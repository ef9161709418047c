"""Peak memory and time of loading a MusicGen's language model, over the size of its weights.

    python studies/speed/load_memory.py [--size=medium]

Writes random weights of that size of configs/musicgen.py to a temporary folder, in files of 2 GB as
Hugging Face does, and loads them in a process of its own, which says how much memory it came to
hold beyond what it held before. Linux only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np
import safetensors.numpy

from indep_jax.configs import musicgen as configs
from indep_jax.hub import musicgen
from indep_jax.lm import model as lm

SHARD = 2e9  # bytes


def write(folder: Path, size: str) -> int:
    """Writes the folder; returns the bytes of the weights."""
    shape = configs.SIZES[size]
    decoder = dict(
        model_type="musicgen_decoder",
        hidden_size=shape["dim"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        ffn_dim=4 * shape["dim"],
    )
    (folder / "config.json").write_text(json.dumps(decoder))
    model = musicgen.config_from_hub(decoder)["model"]
    module = lm.from_config(model)
    variables = jax.eval_shape(module.init, jax.random.key(0), *lm.example(module))
    shapes = flax.traverse_util.flatten_dict(variables, sep="/")
    rng = np.random.default_rng(0)
    files, tensors, total = {}, {}, 0

    def flush():
        name = f"model-{len(set(files.values())):05}.safetensors"
        safetensors.numpy.save_file(tensors, folder / name)
        files.update(dict.fromkeys(tensors, name))
        tensors.clear()

    for entry in musicgen.name_map(model, ""):
        theirs = entry.their_shape(shapes[entry.ours].shape)
        tensors[entry.theirs] = rng.random(theirs, np.float32)
        total += tensors[entry.theirs].nbytes
        if sum(tensor.nbytes for tensor in tensors.values()) > SHARD:
            flush()
    flush()
    index = dict(weight_map=files)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def load(folder: str) -> None:
    """In a process of its own: prints bytes beyond those at the start, and seconds."""
    jax.block_until_ready(jax.jit(lambda x: x + 1)(1.0))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _kilobytes("VmRSS:")
    begin = time.perf_counter()
    jax.block_until_ready(musicgen.read(folder)[1])
    seconds = time.perf_counter() - begin
    print(json.dumps(dict(bytes=1024 * (_kilobytes("VmHWM:") - before), seconds=seconds)))


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="medium", choices=sorted(configs.SIZES))
    parser.add_argument("--load", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        load(options.load)
        return
    with tempfile.TemporaryDirectory() as folder:
        total = write(Path(folder), options.size)
        print(f"{options.size}: {total / 1e9:.2f} GB of weights")
        command = [sys.executable, __file__, f"--load={folder}"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"loading them took {found['seconds']:.1f} s and {found['bytes'] / 1e9:.2f} GB, "
        f"{found['bytes'] / total:.3f} times their size"
    )


if __name__ == "__main__":
    main()
