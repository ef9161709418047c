"""Times the package's parts on this machine, side by side with others' where they are installed.

    python -m indep_jax.bench codec|lm|mmd [--against=torch]
    python -m indep_jax.bench mmd --memory|--scaling
    python -m indep_jax.bench data --source=folder:PATH
    python -m indep_jax.bench device --output=DIR [--parts=PART,...] [--minutes=8]

codec: the true 32 kHz size, random weights: encoding and decoding 10 s, and the autoencoder's forward
and backward pass of 2 x 1 s, and beside them the time that their products alone would take; against
transformers' EncodecModel.
lm: sampling at MusicGen-small's size for each way to decode, as steps a second, seconds for a second
of music, the share of the machine's memory bandwidth at which the weights are read, and how far
narrow weights move the logits; against transformers' MusicGen.
mmd: the independence losses and their gradients on the paper's macro-batch, and beside them the time
that their matmuls and exps alone would take; against the paper's formula in plain torch. --memory:
what each adds to the peak memory of the process. --scaling: of 1k to 47k rows, on 1 to 8 devices
(virtual ones where there is a CPU alone).
data: seconds of music read a second by one core, from the source as it is, and from its first
minutes as wav files and as ArrayRecord at the codec's rate.
device: one accelerator at true size: what differs from the CPU, both training steps, sampling, dHSIC,
encoding and decoding, and peak memory. It needs jax, flax, optax, chex, numpy and absl-py alone. Parts
run in the order of --help, the JSON of each is in --output as soon as it has rows, and report.md
there is printed last. When the --minutes are up, what runs is stopped; --parts runs what is missing.

Theirs run in the same process (extra `parity`). Medians over --repeats runs, taken in turn after one
that is not counted. Nothing else should run.
"""

import pathlib
import sys

from absl import flags

from indep_jax.support import command
from indep_jax.support.errors import UserError


def main(what: str) -> None:
    options = flags.FLAGS
    if what == "device":
        return on_device(options)
    if what == "data" and options.against:
        raise UserError("data: there is nothing to run --against")
    if options.repeats < 1:
        raise UserError(f"--repeats: expected 1 or more, not {options.repeats}")
    import jax

    from indep_jax import bench
    from indep_jax.bench import codec, data, lm, mmd

    count = options.rows or mmd.ROWS
    if what == "data":
        rows = data.rows(options.source, options.repeats, options.sample_rate)
    elif what == "mmd" and options.memory:
        rows = mmd.memory(count, options.against)
    elif what == "mmd" and options.scaling:
        jax.config.update("jax_num_cpu_devices", max(mmd.SCALING_DEVICES))
        rows = mmd.scaling(options.repeats)
    else:
        if what == "mmd":
            functions = mmd.functions(count, options.against)
            more = mmd.against_bound(count)
        elif what == "lm":
            functions, more = lm.functions(options.against), lm.against_bandwidth()
        else:
            functions, more = codec.functions(options.against), codec.against_bound()
        rows = bench.compare(functions, options.repeats, options.against, more)
    bench.show(rows)


def on_device(options: flags.FlagValues) -> None:
    if not options.output:
        raise UserError("device: --output=DIR is required; --help says how")
    from indep_jax.bench import device

    parts = options.parts or list(device.PARTS)
    failed = device.run(pathlib.Path(options.output), options.size, parts, options.minutes)
    if failed:
        print(f"indep_jax.bench: failed: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_enum("against", "", ["", "torch"], "What to run beside it.")
    flags.DEFINE_string("source", "sample:", "data: music.")
    flags.DEFINE_integer("sample_rate", 16_000, "data: Hz.")
    flags.DEFINE_integer("rows", None, "mmd: rows; default the paper's.", lower_bound=2)
    flags.DEFINE_bool("memory", False, "mmd: peak memory in place of seconds.")
    flags.DEFINE_bool("scaling", False, "mmd: a table over rows and devices.")
    flags.DEFINE_integer("repeats", 7, "Runs that count.")
    flags.DEFINE_string("output", None, "device: folder of the results; made when it is missing.")
    flags.DEFINE_list(
        "parts",
        None,
        "device: some of parity, codec_step, lm_step, generation, dhsic, coding; all by default.",
    )
    flags.DEFINE_float("minutes", 8.0, "device: when to stop.", lower_bound=0)
    flags.DEFINE_enum(
        "size", "full", ["full", "toy"], "device: toy is for a look at the machinery."
    )
    command.run(main, choices=("codec", "data", "device", "lm", "mmd"))
