"""Language models learn what their head and pattern can say of a source of known entropy, no more.

    python studies/lm_limits/lm_limits.py [--output=studies/lm_limits/lm_limits]

Codes come from a coupled Markov source (indep_jax/dependence/markov.py) whose entropy rate is computed. Joint
models, `flattened` and the depth head, should reach it; `parallel` and `delay` should stop short by
their conditional total correlation, which is computed too. Writes a JSON and a figure; exit code 1 where a
model ends further than 0.02 bits per frame from its limit.
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from indep_jax.configs import lm_small  # noqa: E402
from indep_jax.dependence import markov  # noqa: E402
from indep_jax.lm import model as lm  # noqa: E402
from indep_jax.lm import patterns  # noqa: E402
from indep_jax.support import progress  # noqa: E402

MODELS = dict(
    parallel=("parallel", "linear"),
    delay=("delay", "linear"),
    flattened=("flattened", "linear"),
    depth=("parallel", "depth"),
)
TOLERANCE = 0.02  # bits per frame
FRAMES, EDGE = 64, 16  # of a segment; its first frames know too little of the past to count


def train(source, pattern: str, head: str, steps: int, seed: int = 0) -> list[tuple[int, float]]:
    """(step, bits per frame on held-out codes) along a training; every batch is fresh codes."""
    config = lm_small.get_config()
    config.model.update(
        codebooks=source.codebooks, codebook_size=source.size, pattern=pattern, head=head,
        dim=64, layers=2, heads=4, ffn_dim=256,
    )  # fmt: skip
    config.model.depth.update(dim=32, layers=1, heads=2, ffn_dim=128)
    model = lm.from_config(config.model)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    variables = lm.init(model, jax.random.key(seed))
    state = optimizer.init(variables)

    @jax.jit
    def step(variables, state, codes):
        def loss(variables):
            return jnp.mean(lm.nats(model, variables, codes)) / codes[..., 0].size

        updates, state = optimizer.update(jax.grad(loss)(variables), state)
        return optax.apply_updates(variables, updates), state

    schedule = model.schedule(FRAMES)
    inside = (schedule >= EDGE) & (schedule < FRAMES - source.codebooks)

    @jax.jit
    def held_out_bits(variables, codes):
        tokens, _ = patterns.build(codes, schedule, model.special)
        nats = lm.cross_entropy(model.apply(variables, tokens), tokens, inside)
        return lm.bits_per_frame(nats)

    rng = np.random.default_rng(seed)
    held_out = [np.stack(source.sample(rng, 256, FRAMES)) for _ in range(8)]
    curve = []
    for number in progress.each(range(steps), f"{pattern}, {head}"):
        codes = np.stack(source.sample(rng, 32, FRAMES)).astype(np.int32)
        variables, state = step(variables, state, codes)
        if (number + 1) % (steps // 20) == 0:
            bits = np.mean([float(held_out_bits(variables, codes)) for codes in held_out])
            curve.append((number + 1, float(bits)))
    return curve


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "studies/lm_limits/lm_limits")
    parser.add_argument("--steps", type=int, default=2_000)
    options = parser.parse_args()
    source = markov.Source()
    limits = {name: source.joint_bits for name in MODELS}
    limits |= {name: source.factorised_bits(name) for name in ("parallel", "delay")}
    figure = matplotlib.figure.Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    found = {}
    for number, (name, (pattern, head)) in enumerate(MODELS.items()):
        curve = train(source, pattern, head, options.steps)
        found[name] = dict(limit_bits=limits[name], bits=curve[-1][1], curve=curve)
        axis.plot(*zip(*curve), color=f"C{number}", label=f"{name}, {head} head")
        axis.axhline(limits[name], color=f"C{number}", linestyle=":", linewidth=1)
        print(f"{name}: {curve[-1][1]:.3f} bits a frame, limit {limits[name]:.3f}")
    top = max(limits.values())
    axis.set(xlabel="step", ylabel="held-out bits a frame", ylim=(None, top + 0.3))
    axis.legend()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    figure.savefig(options.output.with_suffix(".png"), dpi=110)
    far = {
        name for name in found if abs(found[name]["bits"] - found[name]["limit_bits"]) > TOLERANCE
    }
    if far:
        sys.exit(f"further than {TOLERANCE} bits from the limit: {', '.join(sorted(far))}")


if __name__ == "__main__":
    main()
