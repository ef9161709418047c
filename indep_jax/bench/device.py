"""What `bench device` measures: the parts of this package that matter on one accelerator.

It needs jax, flax, optax, chex, numpy and absl-py alone, and no files: audio, codes, texts and
weights are random. Every part runs in a process of its own, so that its peak memory is not another
part's, and one that fails leaves the others alone. Its JSON is written anew after every row.
"""

import functools
import itertools
import json
import multiprocessing
import pathlib
import platform
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from indep_jax import independence
from indep_jax.bench import cost
from indep_jax.lm import model as lm
from indep_jax.lm import sampling
from indep_jax.support import files
from indep_jax.support.errors import UserError
from indep_jax.tasks import codec_steps, lm_steps
from indep_jax.training.state import State

Row = dict[str, Any]
Config = dict[str, Any]

# Dense bfloat16 products, TFLOP/s, by the start of the device's name; from the makers' data sheets.
PEAK_TFLOPS = {
    "NVIDIA H200": 989,
    "NVIDIA GH200": 989,
    "NVIDIA H100 80GB HBM3": 989,
    "NVIDIA H100 PCIe": 756,
    "NVIDIA A100": 312,
    "TPU v4": 275,
    "TPU v5 lite": 197,
    "TPU v6 lite": 918,
}

# configs/encodec_32khz.py and configs/musicgen.py:small as plain data, as far as the steps read them:
# the files need ml_collections. tests/bench/test_device.py compares.
CODEC = dict(
    steps=600_000,
    batch_size=64,
    dtype="bfloat16",
    data=dict(segment_seconds=1.0),
    model=dict(
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
        init_std=0.0,
    ),
    quantizer=dict(
        codebooks=4,
        codebook_size=2_048,
        decay=0.99,
        expire_below=0.02,
        dropout=False,
        warmup_steps=0,
    ),
    discriminator=dict(filters=32, n_ffts=(1024, 2048, 512, 256, 128)),
    loss=dict(
        adversarial=4.0,
        feature=4.0,
        l1=0.1,
        relative_l1=False,
        mel=2.0,
        commitment=1.0,
        balancer_decay=0.999,
        reference_batch=8,
        independence=dict(kind="none"),
    ),
    optimizer=dict(
        learning_rate=3e-4,
        betas=(0.5, 0.9),
        schedule="constant",
        warmup_steps=0,
        ema_decay=0.99,
    ),
)
LM = dict(
    steps=1_000_000,
    batch_size=16,  # published: 192, on 32 GPUs or more
    dtype="bfloat16",
    data=dict(segment_seconds=30.0),
    text=dict(max_tokens=64, dropout=0.3),
    model=dict(
        codebooks=4,
        codebook_size=2_048,
        text_dim=768,  # of T5-base
        pattern="delay",
        dim=1_024,
        layers=24,
        heads=16,
        ffn_dim=4_096,
        positions="sinusoidal",
        head="linear",
        depth=dict(dim=512, layers=4, heads=8, ffn_dim=2_048),
        remat=True,
    ),
    optimizer=dict(
        learning_rate=1e-4,
        betas=(0.9, 0.95),
        weight_decay=0.1,
        clip=1.0,
        warmup_steps=4_000,
        accumulate=1,
        ema_decay=0.99,
    ),
)
FRAME_RATE = 50  # of the tokens that the language model learns


class Size(NamedTuple):
    """How much the parts compute."""

    codec: Config
    lm: Config
    parity_seconds: float  # of audio that is compared
    parity_frames: int  # of codes
    seconds: int  # of music that is encoded, decoded and generated
    batches: tuple[int, ...]  # in which it is
    dhsic: tuple[tuple[int, int], ...]  # (rows, block) of the loss
    dhsic_dim: int  # of a code vector
    repeats: int  # calls that are timed, at most


def changed(config: Config, **sections: Any) -> Config:
    """Return a config in which some fields, or some fields of a section, are others."""
    return config | {
        name: config[name] | value if isinstance(value, Mapping) else value
        for name, value in sections.items()
    }


SIZES = {
    "full": Size(
        codec=CODEC,
        lm=LM,
        parity_seconds=2.0,
        parity_frames=128,
        seconds=10,
        batches=(1, 8),
        dhsic=((11_776, 1_024), (11_776, 4_096), (47_104, 1_024), (47_104, 4_096)),
        dhsic_dim=128,
        repeats=20,
    ),
    # All of the structure, so that nothing breaks unseen, of which there is little.
    "toy": Size(
        codec=changed(
            CODEC,
            batch_size=2,
            data=dict(segment_seconds=0.25),
            model=dict(sample_rate=4_000, n_filters=2, ratios=(16,), dimension=4, lstm_layers=1),
            quantizer=dict(codebook_size=16),
            discriminator=dict(filters=2, n_ffts=(64,)),
        ),
        lm=changed(
            LM,
            batch_size=2,
            data=dict(segment_seconds=0.25),
            text=dict(max_tokens=3),
            model=dict(codebook_size=16, text_dim=6, dim=8, layers=1, heads=2, ffn_dim=16),
        ),
        parity_seconds=1.0,
        parity_frames=12,
        seconds=1,
        batches=(2,),
        dhsic=((96, 32),),
        dhsic_dim=4,
        repeats=2,
    ),
}


# What runs the parts.


def run(output: pathlib.Path, size: str, parts: Sequence[str], minutes: float) -> list[str]:
    """Run parts one after another, with a JSON of each and report.md in a folder.

    A part that is running when the time is up is stopped, and keeps the rows it has. What earlier
    runs left of other parts stays, and is in the report too.

    Args:
      output: the folder; made if it is missing.
      size: one of SIZES.
      parts: of PARTS, in whose order they run.
      minutes: for all of them together.

    Returns the parts that failed. Raises UserError for an unknown part, and where the folder holds
    results of another size, device or version of jax.
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise UserError(f"--parts: expected some of {', '.join(PARTS)}, not {unknown[0]!r}")
    end = time.monotonic() + 60 * minutes
    # The facts always: they say whether what is in the folder can be joined with what is to come.
    todo = [part for part in PARTS if part == "facts" or part in parts]
    failed = []
    while todo and (left := end - time.monotonic()) > 0:
        part = todo.pop(0)
        then = f"; then {', '.join(todo)}" if todo else ""
        print(f"{part}: {left / 60:.1f} minutes left{then}", flush=True)
        if not _run_part(output, size, part, end):
            failed.append(part)
        if part == "facts" and not (output / "facts.json").exists():
            return failed
    if todo:
        print(f"The time is up. Not run: {', '.join(todo)}", flush=True)
    text = report(output)
    files.replace_file(output / "report.md", text.encode())
    print(f"\n{text}", end="", flush=True)
    return failed


def _run_part(output: pathlib.Path, size: str, part: str, end: float) -> bool:
    """Run a part in a process, at most until the time `end`, and write its rows as they come.

    Returns whether it went well.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    arguments = PARTS[part], SIZES[size], sender
    process = context.Process(target=_child, args=arguments, daemon=True)
    process.start()
    sender.close()  # so that the child's end is the only one, and its exit the end of the pipe
    result: Row = dict(part=part, size=size, complete=False, peak_bytes=None, rows=[])
    try:
        while receiver.poll(max(0.0, end - time.monotonic())):
            message = receiver.recv()
            if "row" in message:
                result["rows"].append(message["row"])
                shown = [f"{name} {_cell(value)}" for name, value in message["row"].items()]
                print(f"  {', '.join(shown)}", flush=True)
            else:
                result |= message
            _store(output, result)
    except EOFError:
        process.join()
        if not result["complete"]:
            print(f"{part}: failed, exit code {process.exitcode}", flush=True)
        return result["complete"]
    finally:
        process.terminate()
        process.join(10)
        process.kill()
    print(f"{part}: stopped, the time is up", flush=True)
    return True


def _child(part: Callable[[Size], Iterator[Row]], size: Size, sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's, which ends this process
    platforms = jax.config.jax_platforms
    if platforms and "cpu" not in platforms:  # where JAX_PLATFORMS names the accelerator alone
        jax.config.update("jax_platforms", f"{platforms},cpu")
    jax.monitoring.register_event_listener(_note_event)
    for row in part(size):
        json.dumps(row, allow_nan=False)  # raises here, where it is this part's failure alone
        sender.send(dict(row=row))
    sender.send(dict(complete=True, peak_bytes=_peak_bytes()))


def _store(output: pathlib.Path, result: Row) -> None:
    """Write the JSON of a part. Raises UserError where there are facts of another machine or size."""
    path = output / f"{result['part']}.json"
    if result["part"] == "facts":
        (row,) = result["rows"]
        result = dict(size=result["size"]) | row
        files.begin_output(path, {key: result[key] for key in ("size", "device", "jax", "python")})
    text = json.dumps(result, indent=1)
    files.replace_file(path, f"{text}\n".encode())


def _peak_bytes() -> int | None:
    """Return the peak of the device's memory in this process; None where nobody counts (CPU)."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


_cached = 0  # programs that came from the compilation cache


def _note_event(event: str, **_: object) -> None:
    global _cached
    _cached += event == "/jax/compilation_cache/cache_hits"


# How a row is measured.


def _timed(call: Callable[[], object], repeats: int) -> Row:
    """Return a call's seconds and compile_seconds, by how much the first call takes longer.

    The seconds are the median of `repeats` calls, or of as many as begin within 5 s. The latter are
    None where the compilation cache had the program.
    """

    def seconds() -> float:
        begin = time.perf_counter()
        jax.block_until_ready(call())
        return time.perf_counter() - begin

    cached, first = _cached, seconds()
    compiled_here = cached == _cached
    times, end = [], time.perf_counter() + 5
    while not times or (len(times) < repeats and time.perf_counter() < end):
        times.append(seconds())
    median = statistics.median(times)
    return dict(seconds=median, compile_seconds=first - median if compiled_here else None)


def _rate(flops: int, seconds: float, *, bfloat16: bool = False) -> Row:
    """Return the TFLOP/s, and with `bfloat16` their share of the device's peak, None if unknown."""
    tflops = flops / seconds / 1e12
    if not bfloat16:
        return dict(tflops=tflops)
    peak = peak_tflops(jax.devices()[0].device_kind)
    return dict(tflops=tflops, share_of_peak=tflops / peak if peak else None)


def peak_tflops(device_kind: str) -> float | None:
    """Return the dense bfloat16 TFLOP/s of a device by its name; None where PEAK_TFLOPS lacks it."""
    if "MIG" in device_kind:  # a slice of a device
        return None
    return next((x for name, x in PEAK_TFLOPS.items() if device_kind.startswith(name)), None)


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the RMS of the difference over the RMS of what is expected."""
    found, expected = (np.asarray(x, np.float64) for x in (found, expected))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _music(batch: int, seconds: float, rate: int) -> np.ndarray:
    """Return chords of partials that fade, and noise: float32 [batch, samples, 1], RMS 0.1."""
    rng = np.random.default_rng(0)
    time_T = np.arange(round(seconds * rate)) / rate
    notes_BxN = 110 * 2 ** (rng.integers(0, 24, (batch, 4)) / 12)
    age_BxNxT = (time_T - rng.uniform(0, 1, (batch, 4, 1))) % 1
    partials = sum(np.sin(2 * np.pi * n * notes_BxN[..., None] * time_T) / n for n in (1, 2, 3))
    wave_BxT = np.sum(np.exp(-3 * age_BxNxT) * partials, axis=1)
    wave_BxT += 0.05 * rng.standard_normal(wave_BxT.shape)
    return (0.1 * wave_BxT / np.std(wave_BxT))[..., None].astype(np.float32)


def _codes(model: Config, batch: int, frames: int) -> np.ndarray:
    """Return random codes, int32 [batch, frames, codebooks]."""
    shape = batch, frames, model["codebooks"]
    return np.random.default_rng(0).integers(0, model["codebook_size"], shape, np.int32)


def _text(config: Config, batch: int) -> dict[str, np.ndarray]:
    """Return a random text for each item: its states and mask."""
    shape = batch, config["text"]["max_tokens"], config["model"]["text_dim"]
    states = np.random.default_rng(0).standard_normal(shape, np.float32)
    return dict(text=states, text_mask=np.ones(shape[:2], bool))


def _codebook(codebook: dict, z_BxTxD: jax.Array, key: jax.Array) -> dict:
    """Return codebooks of Gaussian vectors as far apart as the latents, each less than the last."""
    embed_KxSxD = jax.random.normal(key, codebook["embed"].shape)
    scale_K = 0.7 ** jnp.arange(len(embed_KxSxD))
    embed_KxSxD *= scale_K[:, None, None] * jnp.std(z_BxTxD, axis=(0, 1))
    count_KxS = jnp.ones_like(codebook["count"])
    return dict(embed=embed_KxSxD, average=embed_KxSxD, count=count_KxS)


def _codec_variables(config: Config) -> dict:
    """Return random variables of a codec, of which neighbouring frames have different codes."""
    # Else the latents of random weights hardly change in time.
    config = changed(config, model=dict(init_std=1.0))
    module = codec_steps.codec(config)

    @jax.jit
    def make(key, audio):
        variables = module.init(key, audio)
        latents = module.apply(variables, audio, method="latents")
        return {**variables, "codebook": _codebook(variables["codebook"], latents, key)}

    return make(jax.random.key(0), _music(4, 1, module.sample_rate))


def _lm(config: Config, dtype: str) -> lm.LM:
    return lm.from_config(config["model"] | dict(remat=False), dtype)


def _lm_variables(module: lm.LM) -> dict:
    @jax.jit
    def make(key):
        return jax.tree.map(lambda x: x.astype(module.dtype), lm.init(module, key))

    return make(jax.random.key(0))


# The parts: each gives rows as it has them.


def _facts(size: Size) -> Iterator[Row]:
    del size
    device = jax.devices()[0]
    yield dict(
        device=device.device_kind,
        platform=device.platform,
        memory_bytes=(device.memory_stats() or {}).get("bytes_limit"),
        jax=jax.__version__,
        python=platform.python_version(),
    )


def _parity(size: Size) -> Iterator[Row]:
    """Compare this device with the CPU: a codec's latents, codes and waveform, and a language
    model's logits and likeliest codes."""
    sizes, rate = size.codec["quantizer"], size.codec["model"]["sample_rate"]
    audio = _music(2, size.parity_seconds, rate)

    def coded(config):
        module = codec_steps.codec(config)

        def run(variables, audio, codes):
            latents = module.apply(variables, audio, method="latents")
            return dict(
                latents=latents,
                codes=module.apply(variables, latents, method="quantize").codes,
                waveform=module.apply(variables, codes, method="decode"),
            )

        return run

    codes = _codes(sizes, 2, -(-audio.shape[1] // codec_steps.codec(size.codec).hop))
    arguments = _codec_variables(size.codec | dict(dtype="float32")), audio, codes
    yield from _compared(
        "codec", lambda dtype: coded(size.codec | dict(dtype=dtype)), jax.device_get(arguments)
    )

    def predicted(module):
        def run(variables, codes, text, text_mask):
            logits = module.apply(variables, codes, text, text_mask)
            return dict(logits=logits, codes=jnp.argmax(logits, axis=-1))

        return run

    codes = _codes(size.lm["model"], 1, size.parity_frames)
    variables = _lm_variables(_lm(size.lm, "float32"))
    arguments = variables, codes, *_text(size.lm, 1).values()
    yield from _compared(
        "language model", lambda dtype: predicted(_lm(size.lm, dtype)), jax.device_get(arguments)
    )


def _compared(what: str, function_of: Callable[[str], Callable], arguments: Any) -> Iterator[Row]:
    """Give rows of what the function of each precision returns on this device and on the CPU."""

    exact: dict[str, np.ndarray] = {}
    for dtype in ("float32", "bfloat16"):
        function = jax.jit(function_of(dtype))
        with jax.default_matmul_precision("highest"):
            found, cpu = (
                jax.device_get(function(*jax.device_put(arguments, device)))
                for device in (jax.devices()[0], jax.devices("cpu")[0])
            )
        exact = exact or cpu
        for name in found:
            row: Row = dict(what=f"{what}, {name}, {dtype}")
            for kind, expected in dict(cpu=cpu[name], cpu_float32=exact[name]).items():
                if name == "codes":
                    row[f"equal_to_{kind}"] = float(np.mean(found[name] == expected))
                else:
                    row[f"error_to_{kind}"] = _error(found[name], expected)
            yield row


def _codec_step(size: Size) -> Iterator[Row]:
    config = size.codec
    batch = dict(
        audio=_music(
            config["batch_size"], config["data"]["segment_seconds"], config["model"]["sample_rate"]
        ),
        file=np.arange(config["batch_size"], dtype=np.int32),
    )

    @jax.jit
    def make(key, batch):
        state = codec_steps.init(config, key, batch)
        latents = codec_steps.encode(config, state.params["generator"], batch["audio"])
        codebook = _codebook(state.collections["codebook"], latents, key)
        return codec_steps.begin_quantization(state, codebook)

    state = make(jax.random.key(0), batch)
    step = functools.partial(codec_steps.codec_step, config)
    yield _trained("codec", config, step, step, state, batch, size.repeats)


def _lm_step(size: Size) -> Iterator[Row]:
    config = size.lm
    frames = round(config["data"]["segment_seconds"] * FRAME_RATE)
    batch = dict(codes=_codes(config["model"], config["batch_size"], frames))
    batch |= _text(config, config["batch_size"])
    state = jax.jit(functools.partial(lm_steps.init, config))(jax.random.key(0))
    step = functools.partial(lm_steps.step, config)
    # What is computed once more in the backward pass to save memory is no work of the model.
    counted = functools.partial(lm_steps.step, changed(config, model=dict(remat=False)))
    yield _trained("language model", config, step, counted, state, batch, size.repeats)


def _trained(
    what: str,
    config: Config,
    step: Callable,
    counted: Callable,
    state: State,
    batch: dict[str, np.ndarray],
    repeats: int,
) -> Row:
    """Time a training step on its own results; FLOPs are those of `counted`, products alone."""

    def with_key(state, batch, number):
        return step(state, batch, jax.random.fold_in(jax.random.key(0), number))

    shapes = jax.eval_shape(lambda *x: x, state, batch, jax.random.key(0))
    flops = cost.count(counted, *shapes).flops
    batch, losses = jax.device_put(batch), []
    begin, cached = time.perf_counter(), _cached
    jitted = jax.jit(with_key, donate_argnums=0)
    program = jitted.lower(state, batch, np.int32(0)).compile()
    compile_seconds = time.perf_counter() - begin if cached == _cached else None

    def call():
        nonlocal state
        state, metrics = program(state, batch, np.int32(len(losses)))
        losses.append(metrics["loss"])
        return losses[-1]

    seconds = _timed(call, repeats)["seconds"]
    plan = program.memory_analysis()
    items, length = config["batch_size"], config["data"]["segment_seconds"]
    return (
        dict(
            what=f"{what}, training step of {items} x {length:g} s, {config['dtype']}",
            seconds=seconds,
            compile_seconds=compile_seconds,
            real_time=items * length / seconds,
        )
        | _rate(flops, seconds, bfloat16=config["dtype"] == "bfloat16")
        | dict(
            flops=flops,
            xla_flops=(program.cost_analysis() or {}).get("flops"),
            planned_bytes=plan
            and plan.argument_size_in_bytes
            + plan.output_size_in_bytes
            - plan.alias_size_in_bytes
            + plan.temp_size_in_bytes,
            first_loss=float(losses[0]),
            last_loss=float(losses[-1]),
        )
    )


def _dhsic(size: Size) -> Iterator[Row]:
    """Time dHSIC, value and gradient, of Gaussian codebooks that depend on each other."""
    for rows, block in size.dhsic:
        x = np.random.default_rng(0).standard_normal((rows, 4, size.dhsic_dim), np.float32)
        x[:, 1:] += x[:, :1]
        loss = jax.value_and_grad(functools.partial(independence.dhsic, block=block))
        timed = _timed(functools.partial(jax.jit(loss), jax.device_put(x)), size.repeats)
        flops = cost.count(loss, jax.ShapeDtypeStruct(x.shape, x.dtype)).flops
        what = f"dHSIC and its gradient, {rows:,} rows in blocks of {block:,}, float32"
        yield dict(what=what) | timed | _rate(flops, timed["seconds"])


def _coding(size: Size) -> Iterator[Row]:
    """Time encoding and decoding."""
    variables = _codec_variables(size.codec | dict(dtype="float32"))
    for dtype, batch in itertools.product(("bfloat16", "float32"), size.batches):
        module = codec_steps.codec(size.codec | dict(dtype=dtype))
        audio = _music(batch, size.seconds, module.sample_rate)
        codes = _codes(size.codec["quantizer"], batch, audio.shape[1] // module.hop)
        for name, x in dict(encode=audio, decode=codes).items():
            run = jax.jit(functools.partial(module.apply, method=name))
            timed = _timed(functools.partial(run, variables, jax.device_put(x)), size.repeats)
            yield (
                dict(what=f"{name} {batch} x {size.seconds} s, {dtype}")
                | timed
                | dict(real_time=batch * size.seconds / timed["seconds"])
            )


def _generation(size: Size) -> Iterator[Row]:
    """Time sampling, with weights in bfloat16."""
    module = _lm(size.lm, "bfloat16")
    variables = _lm_variables(module)
    for guidance, batch in itertools.product((1.0, 3.0), size.batches):
        call = functools.partial(
            sampling.generate, module, variables, size.seconds * FRAME_RATE, seed=0,
            examples=np.arange(batch), guidance=guidance, **jax.device_put(_text(size.lm, batch)),
        )  # fmt: skip
        timed = _timed(call, size.repeats)
        guided = ", guidance 3" if guidance == 3 else ""
        yield (
            dict(what=f"generate {batch} x {size.seconds} s, bfloat16{guided}")
            | timed
            | dict(real_time=batch * size.seconds / timed["seconds"])
        )


# In order of value: what is left when the time is up is worth least.
PARTS: dict[str, Callable[[Size], Iterator[Row]]] = dict(
    facts=_facts,
    parity=_parity,
    codec_step=_codec_step,
    lm_step=_lm_step,
    generation=_generation,
    dhsic=_dhsic,
    coding=_coding,
)


# The report.


def report(output: pathlib.Path) -> str:
    """Return the results in a folder as Markdown: parity, speeds, peak memory, what is missing."""
    found = {
        part: json.loads(path.read_text(encoding="utf-8"))
        for part in PARTS
        if (path := output / f"{part}.json").exists()
    }
    facts = found.pop("facts")
    memory = f", {facts['memory_bytes'] / 1e9:.0f} GB for arrays" if facts["memory_bytes"] else ""
    lines = [
        f"`python -m indep_jax.bench device --size={facts['size']}` on {facts['device']}{memory}, "
        f"jax {facts['jax']}, Python {facts['python']}; weights and audio are random."
    ]
    rows = [row for part in found.values() for row in part["rows"]]
    for columns in (PARITY, SPEED):
        chosen = [row for row in rows if any(name in row for name in list(columns)[1:])]
        if chosen:
            cells = [[_cell(row.get(name)) for name in columns] for row in chosen]
            lines += ["", *_table(list(columns.values()), cells)]
    peaks = [[part, _cell(x["peak_bytes"] / 1e9)] for part, x in found.items() if x["peak_bytes"]]
    if peaks:
        lines += ["", *_table(["part", "peak memory, GB"], peaks)]
    missing = [
        part for part in PARTS if part != "facts" and not found.get(part, {}).get("complete")
    ]
    if missing:
        lines += ["", f"Not complete: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


PARITY = dict(
    what="this device against its CPU",
    error_to_cpu="RMS error / RMS",
    error_to_cpu_float32="and against float32 there",
    equal_to_cpu="equal codes",
    equal_to_cpu_float32="and to those of float32 there",
)
SPEED = dict(
    what="what",
    seconds="seconds",
    real_time="times real time",
    tflops="TFLOP/s",
    share_of_peak="of the peak",
    compile_seconds="compilation, s",
)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.3g}"
