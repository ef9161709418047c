"""Times the package's parts on this machine, side by side with others' where they are installed.

    python -m indep_jax.bench codec [--against=torch]
    python -m indep_jax.bench data --source=folder:PATH

codec: the true 32 kHz size, random weights: encoding and decoding 10 s, and the autoencoder's forward
and backward pass of 2 x 1 s; against transformers' EncodecModel (extra `parity`) in the same process.
data: seconds of music read a second by one core, from the source as it is, and from its first
minutes as wav files and as ArrayRecord at the codec's rate.

Medians over --repeats runs, taken in turn after one that is not counted. Nothing else should run.
"""

import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import soundfile
import tqdm
from absl import flags

from indep_jax import command, data, loading
from indep_jax.codec import quantizer
from indep_jax.data import records

# The published 32 kHz codec (configs/encodec_32khz.py).
MODEL = dict(
    sample_rate=32_000,
    channels=1,
    causal=False,
    n_filters=64,
    ratios=(8, 5, 4, 4),
    dimension=128,
    residual_layers=1,
    kernel=7,
    residual_kernel=3,
    last_kernel=7,
    dilation_base=2,
    compress=2,
    lstm_layers=2,
    pad_mode="constant",
    conv_shortcut=False,
    norm="weight_norm",
)
SIZES = dict(codebooks=4, codebook_size=2048)
COPIED_SECONDS = 240.0  # of music, for the wav and ArrayRecord rows


def medians(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each function, the median of runs that take turns; the first of each is left out.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    rounds = tqdm.tqdm(list(itertools.product(range(repeats + 1), functions)), leave=False)
    for turn, name in rounds:
        rounds.set_description(name)
        begin = time.perf_counter()
        jax.block_until_ready(functions[name]())
        if turn:
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def bench_codec(repeats: int, against: str) -> list[dict]:
    """Rows: what, seconds of ours, and with `against` of theirs and the ratio."""
    rng = np.random.default_rng(0)
    wave = (0.1 * rng.standard_normal((1, 320_000, 1))).astype(np.float32)
    short = (0.1 * rng.standard_normal((2, 32_000, 1))).astype(np.float32)
    functions = {}
    for name, function in _our_codec(wave, short).items():
        functions[f"{name}/ours"] = function
    if against:
        for name, function in _torch_codec(wave, short).items():
            functions[f"{name}/theirs"] = function
    found = medians(functions, repeats)
    rows = []
    for name in [name.removesuffix("/ours") for name in found if name.endswith("/ours")]:
        row = dict(what=name, seconds=round(found[f"{name}/ours"], 3))
        if against:
            theirs = found[f"{name}/theirs"]
            row |= {against: round(theirs, 3), "ratio": round(found[f"{name}/ours"] / theirs, 3)}
        rows.append(row)
    return rows


def _our_codec(wave, short) -> dict[str, Callable]:
    config = dict(dtype="float32", model=MODEL, quantizer=SIZES)
    module = loading.LoadedCodec(config, {}).module
    params = jax.jit(module.init)(jax.random.key(0), wave[:, :640])["params"]
    codebook = quantizer.empty(module.codebooks, module.codebook_size, module.dimension)
    codebook["embed"] = jax.random.normal(jax.random.key(1), codebook["embed"].shape)
    codec = loading.LoadedCodec(config, dict(params=params, codebook=codebook))
    encoded = codec.encode(wave)

    @jax.jit
    def gradient(params, x):
        def loss(params):
            variables = dict(params=params, codebook=codebook)
            z = module.apply(variables, x, method="latents")
            return jnp.mean(jnp.abs(module.apply(variables, z, method="synthesize") - x))

        return jax.grad(loss)(params)

    return {
        "encode 10 s": lambda: codec.encode(wave).codes,
        "decode 10 s": lambda: codec.decode(encoded),
        "forward + backward 2 x 1 s": lambda: gradient(codec.variables["params"], short),
    }


def _torch_codec(wave, short) -> dict[str, Callable]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ValueError(
            f"--against=torch: {error.name} is not installed; pip install 'indep_jax[parity]'"
        ) from None
    torch.set_num_threads(os.cpu_count())
    config = transformers.EncodecConfig(
        sampling_rate=MODEL["sample_rate"], num_filters=MODEL["n_filters"],
        upsampling_ratios=list(MODEL["ratios"]), hidden_size=MODEL["dimension"],
        codebook_size=SIZES["codebook_size"], target_bandwidths=[2.2], pad_mode="constant",
        use_causal_conv=False, use_conv_shortcut=False,
    )  # fmt: skip
    model = transformers.EncodecModel(config)
    wave, short = (torch.from_numpy(x).swapaxes(1, 2) for x in (wave, short))

    def encode():
        with torch.no_grad():
            return model.encode(wave, bandwidth=2.2).audio_codes.numpy()

    codes = torch.from_numpy(encode())

    def decode():
        with torch.no_grad():
            return model.decode(codes, [None]).audio_values.numpy()

    def gradient():
        model.zero_grad()
        (model.decoder(model.encoder(short)) - short).abs().mean().backward()

    return {
        "encode 10 s": encode,
        "decode 10 s": decode,
        "forward + backward 2 x 1 s": gradient,
    }


def bench_data(source: str, repeats: int, sample_rate: int) -> list[dict]:
    """Rows: what, and how many seconds of music one core reads a second."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        wavs = folder / "wav"
        wavs.mkdir()
        seconds = 0.0
        for number, file in enumerate(data.open_source(source, "train").files):
            if seconds > COPIED_SECONDS:
                break
            audio = data.read_file(file, sample_rate, 1, max_seconds=COPIED_SECONDS)
            soundfile.write(wavs / f"{number}.wav", audio, sample_rate, "PCM_16")
            seconds += len(audio) / sample_rate
        names = [path.name for path in wavs.iterdir()]
        manifest = dict(files=[dict(path=name, split="train") for name in names])
        (wavs / "manifest.json").write_text(json.dumps(manifest))
        records.pack(f"folder:{wavs}", folder, sample_rate=sample_rate, channels=1)
        places = {
            f"{source} as it is": source,
            "wav at the codec's rate": f"folder:{wavs}",
            "ArrayRecord at the codec's rate": f"array_record:{folder}/*.array_record",
        }
        for what, place in places.items():
            speed = _reading_speed(place, repeats, sample_rate)
            rows.append({"what": what, "times real time, one core": round(speed)})
    return rows


def _reading_speed(source: str, repeats: int, sample_rate: int, batch: int = 16) -> float:
    segments = data.segments(
        data.open_source(source, "train"),
        seed=0, batch_size=batch, seconds=1.0, sample_rate=sample_rate, channels=1,
    )  # fmt: skip
    index = itertools.count()
    # No prefetch, no threads: what one core does.
    found = medians({source: lambda: segments[next(index)]["audio"]}, 10 * repeats)
    return batch / found[source]


def show(rows: list[dict]) -> None:
    """Rows as a table of aligned columns."""
    columns = list(rows[0])
    cells = [columns] + [[str(row[column]) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def main(what: str) -> None:
    options = flags.FLAGS
    if options.repeats < 1:
        raise ValueError(f"--repeats: expected 1 or more, not {options.repeats}")
    if what == "codec":
        show(bench_codec(options.repeats, options.against))
    else:
        show(bench_data(options.source, options.repeats, options.sample_rate))


if __name__ == "__main__":
    flags.DEFINE_enum("against", "", ["", "torch"], "codec: what to run beside it.")
    flags.DEFINE_string("source", "sample:", "data: music.")
    flags.DEFINE_integer("sample_rate", 16_000, "data: Hz.")
    flags.DEFINE_integer("repeats", 7, "Runs that count.")
    command.run(main, choices=("codec", "data"))
