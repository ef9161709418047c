"""What the independence loss costs in a published-size training on many accelerators, on paper.

    python studies/independence_loss/loss_on_paper.py

Of configs/encodec_32khz_mmd.py with 8 items of 1 s a device, as published: the FLOPs of a device in
a cycle of 32 steps, of which the last joins the streams of all 32 batches of all devices. Counted
in the programs before XLA (indep_jax/bench/cost.py), the loss on a ring of that many devices; where
compute is the limit, shares of FLOPs are shares of time. The time that sending takes if nothing hides
it: at 20 TFLOP/s and 100 GB/s a device (an A100 in float32, half of its links).
"""

import jax
from jax.sharding import AbstractMesh, AxisType

from indep_jax import independence
from indep_jax.bench import cost, mmd
from indep_jax.configs import encodec_32khz_mmd
from indep_jax.tasks.codec import CodecTask

ITEMS = 8  # of a device, 1 s each
DEVICES = (1, 8, 64, 512)
FLOPS, LINK = 20e12, 100e9  # a second, of a device


def step_flops(program: str, kind: str) -> int:
    """Of one device's step, with its own part of the batch alone."""
    config = encodec_32khz_mmd.get_config()
    config.batch_size = ITEMS
    config.quantizer.kmeans_batches = 32  # as many latents as codes; k-means is not counted
    config.loss.independence.kind = kind
    task = CodecTask(config)
    audio = jax.ShapeDtypeStruct((ITEMS, config.model.sample_rate, 1), "float32")
    batch = dict(audio=audio, file=jax.ShapeDtypeStruct((ITEMS,), "int32"))
    key = jax.random.key(0)
    state = jax.eval_shape(task.init, key, batch)
    if program == "codec_independence":
        joined = config.loss.independence.macro_batch
        history = jax.tree.map(lambda x: jax.ShapeDtypeStruct((joined, *x.shape), x.dtype), batch)
        batch = dict(current=batch, history=history)
    return cost.count(task.programs[program], state, batch, key).flops


def loss_cost(name: str, devices: int) -> cost.Cost:
    mesh = AbstractMesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    loss = mmd.losses(independence.ring(mesh))[name]
    rows = jax.ShapeDtypeStruct((devices * mmd.ROWS, mmd.CODEBOOKS, mmd.DIM), "float32")
    return cost.count(jax.value_and_grad(loss), rows)


def main():
    config = encodec_32khz_mmd.get_config().loss.independence
    plain = step_flops("codec", "none")
    # The joined step encodes all 32 batches anew; its loss, of one device, is counted apart.
    own = cost.count(
        jax.value_and_grad(mmd.losses()["permutation, the paper's bandwidths"]),
        jax.ShapeDtypeStruct((config.macro_batch * ITEMS * 47, mmd.CODEBOOKS, mmd.DIM), "float32"),
    )
    joined = step_flops("codec_independence", "permutation") - own.flops
    print(
        f"a step {plain / 1e12:.3f} TFLOP, one that encodes {config.macro_batch} batches anew "
        f"{joined / 1e12:.3f}\n"
    )
    print(
        "| loss | devices | rows | TFLOP a device | MB in and out of matmuls | MB sent | "
        "share of FLOPs | sending, share of time |\n" + "|---" * 8 + "|"
    )
    for name in mmd.losses():
        for devices in DEVICES:
            found = loss_cost(name, devices)
            cycle = (config.every - 1) * plain + joined + found.flops
            print(
                f"| {name} | {devices} | {devices * mmd.ROWS:,} | {found.flops / 1e12:.3f} | "
                f"{found.matmul_bytes / 1e6:,.0f} | {found.sent_bytes / 1e6:.0f} | "
                f"{found.flops / cycle:.1%} | {found.sent_bytes / LINK / (cycle / FLOPS):.2%} |"
            )


if __name__ == "__main__":
    main()
