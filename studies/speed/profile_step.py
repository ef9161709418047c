"""Where the time of the small codec's training step goes, by part and by operation.

    python studies/speed/profile_step.py [--steps=10] [--output=studies/speed/profile_small.md]

Traces steps of configs/encodec_small.py with dhsic on the package's music, and adds up the
profiler's operations by the scope that XLA keeps of each (which part of the model, forward or
backward) and by kind. The sums are of both cores' time.
"""

import argparse
import collections
import re
import tempfile
from pathlib import Path

import jax

from indep_jax.configs import encodec_small
from indep_jax.tasks.codec import CodecTask

# The first pattern that an operation's scope matches names its part.
PARTS = {
    "discriminator": r"Discriminator",
    "encoder": r"encoder",
    "decoder": r"decoder",
    "independence": r"independence|dhsic|pair_sums",
    "mel loss": r"mel|stft",
    "quantizer": r"quantize|codebook|quantizer",
}


def trace(steps: int, folder: str):
    """Traces `steps` compiled steps; returns the HLO text."""
    config = encodec_small.get_config()
    config.data.source = "sample:"
    config.quantizer.warmup_steps = 0
    config.loss.independence.kind = "dhsic"
    task = CodecTask(config).open()
    batch = task.dataset[0]
    state = jax.jit(task.init)(jax.random.key(0), batch)
    state = task.before_step(0, state, lambda index: task.dataset[index])
    compiled = (
        jax.jit(task.programs["codec_independence"], donate_argnums=0)
        .lower(state, batch, jax.random.key(1))
        .compile()
    )
    state, _ = compiled(state, batch, jax.random.key(1))
    jax.block_until_ready(state)
    with jax.profiler.trace(folder):
        for step in range(steps):
            state, _ = compiled(state, batch, jax.random.key(step))
        jax.block_until_ready(state)
    return compiled.as_text()


def scopes(hlo: str) -> dict[str, str]:
    """The scope that each instruction of the compiled program came from, by its name."""
    found = re.findall(r"^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name=\"([^\"]*)\"", hlo, re.MULTILINE)
    return dict(found)


def operations(folder: str) -> dict[str, float]:
    """Seconds by instruction name, over all threads."""
    (path,) = Path(folder).rglob("*.xplane.pb")
    seconds = collections.Counter()
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for event in line.events:
                # Loops and calls hold other operations, which are counted.
                holds = re.match("while|call|conditional", event.name)
                if "hlo_op" in dict(event.stats) and not holds:
                    seconds[event.name] += event.duration_ns / 1e9
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("studies/speed/profile_small.md"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        hlo = trace(options.steps, folder)
        seconds = operations(folder)
    where = scopes(hlo)
    by_part, by_kind = collections.Counter(), collections.Counter()
    for name, value in seconds.items():
        scope = where.get(name, "")
        part = next((part for part, p in PARTS.items() if re.search(p, scope)), "other")
        way = "backward" if "transpose(" in scope else "forward"
        by_part[f"{part}, {way}" if part != "other" else part] += value
        by_kind[re.sub(r"[.\d]+$", "", name)] += value
    total = sum(seconds.values())
    lines = [
        f"# The small codec's step: {total / options.steps:.2f} s of both cores' time", "",
        "    python studies/speed/profile_step.py", "",
    ]  # fmt: skip
    for title, table in dict(part=by_part, operation=by_kind).items():
        lines += [f"| {title} | ms a step | share |", "|---|---|---|"]
        for name, value in table.most_common(16):
            lines.append(f"| {name} | {1e3 * value / options.steps:.1f} | {value / total:.1%} |")
        lines.append("")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
