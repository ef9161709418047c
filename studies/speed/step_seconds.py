"""What a training step of the small codec takes with each independence loss, side by side.

    python studies/speed/step_seconds.py [--points=none,dhsic-0.3] [--repeats=10]

Steps of configs/finetune_encodec_small.py at points of configs/sweeps/independence.py, on the
package's music, in turns; medians, and their ratio to the first point's.
"""

import argparse

import jax

from indep_jax import bench
from indep_jax.configs import finetune_encodec_small
from indep_jax.configs.sweeps import independence
from indep_jax.tasks.build import build

# Shares cost the same.
POINTS = "none,covariance-0.3,permutation-delay-0.3,dhsic-0.3,dhsic-delay-0.3,dhsic-given-past-0.3"


def stepper(fields: dict):
    """A function that makes one training step, compiled."""
    config = finetune_encodec_small.get_config()
    config.data.source = "sample:"
    config.update_from_flattened_dict(fields)
    task = build(config)
    batch = task.dataset[0]
    state = jax.jit(task.init)(jax.random.key(0), batch)
    state = task.before_step(0, state, lambda index: task.dataset[index])
    program = jax.jit(task.programs[task.plan(0)[0]], donate_argnums=0)
    # Two places of a state that is given away must not hold one array.
    state = jax.tree.map(lambda x: x.copy(), state)

    def step():
        nonlocal state
        state, metrics = program(state, batch, jax.random.key(1))
        return metrics

    return step


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", default=POINTS)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    points, names = independence.get_points(), options.points.split(",")
    if unknown := set(names) - set(points):
        parser.error(f"--points: {sorted(unknown)[0]} is none of {', '.join(points)}")
    found = bench.medians({name: stepper(points[name]) for name in names}, options.repeats)
    first = found[names[0]].median
    bench.show(
        [
            {
                "point": name,
                "seconds": f"{seconds.median:.3f}",
                "ratio": f"{seconds.median / first:.3f}",
            }
            for name, seconds in found.items()
        ]
    )


if __name__ == "__main__":
    main()
