"""What `bench mmd` times: the independence losses, and the paper's formula in plain torch.

The paper's macro-batch (Lemercier et al. 2024) has 32 batches of 8 seconds at 46 usable frames:
n = 11776 rows of 4 codebooks in 128 dimensions. Every function is value and gradient.
"""

import functools
import itertools
import resource
import sys
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from indep_jax import bench, independence
from indep_jax.bench import cost, missing
from indep_jax.independence import bandwidths
from indep_jax.independence.loss import KINDS

ROWS, CODEBOOKS, DIM = 11_776, 4, 128
SCALING_ROWS, SCALING_DEVICES = (1_024, 4_096, ROWS, 47_104), (1, 2, 4, 8)
# Kind and bandwidths.
TIMED = {
    "dhsic, median": ("dhsic", "median"),
    "dhsic, the paper's bandwidths": ("dhsic", "paper"),
    "permutation, the paper's bandwidths": ("permutation", "paper"),
}


def rows(n: int = ROWS, codebooks: int = CODEBOOKS, dim: int = DIM) -> np.ndarray:
    """Dependent Gaussian codebooks, float32 [n, codebooks, dim]."""
    x = np.random.default_rng(0).standard_normal((n, codebooks, dim), np.float32)
    x[:, 1:] += x[:, :1]
    return x


def losses(pairs=None, block: int = 512) -> dict[str, Callable]:
    """Losses of rows [n, codebooks, dim], by name; `pairs` as for `independence.dhsic`.

    Those that the documentation compares, and every other kind that there is.
    """
    common = dict(block=block, published=False)
    known = {kind for kind, _ in TIMED.values()}
    timed = TIMED | {kind: (kind, "median") for kind in KINDS if kind not in known}
    return {
        name: functools.partial(
            KINDS[kind](common | dict(bandwidths=rule), pairs), jax.random.key(0)
        )
        for name, (kind, rule) in timed.items()
    }


def functions(n: int = ROWS, against: str = "") -> dict[str, Callable]:
    """Functions of no argument, by "what/ours" and, with against="torch", "theirs"."""
    x = rows(n)
    found = {
        f"{name}/ours": functools.partial(jax.jit(jax.value_and_grad(loss)), x)
        for name, loss in losses().items()
    }
    return found | ({"theirs": torch_mmd(x)} if against else {})


def against_bound(n: int = ROWS) -> Callable[[str, float], dict]:
    """What tells how many times the least that the machine can do a loss takes, for `bench.compare`.

    The bound: the matmul FLOPs of the loss, at the speed of one large matmul here, and its exps, at
    the speed of one exp over an array that fits the cache.
    """
    flops, exps = cost.speeds()

    def more(what: str, seconds: float) -> dict:
        work = cost.count(
            jax.value_and_grad(losses()[what]), jax.ShapeDtypeStruct(rows(n).shape, "float32")
        )
        bound = work.flops / flops + work.exps / exps
        return {"bound": f"{bound:.3f} s", "times the bound": f"{seconds / bound:.2f}"}

    return more


def torch_mmd(x_NxKxD: np.ndarray, order_NxK: np.ndarray | None = None) -> Callable:
    """The paper's Algorithm 1 as one would write it in torch: (value, gradient) when called.

    Distances by matmul, an exp for each bandwidth, each of the three sums checkpointed; every
    pair of different rows counts (B = n in the published arithmetic, diagonals of xx and yy taken
    off). order_NxK: the rows' permutation for each codebook, default random. Two threads.
    """
    try:
        import torch
        from torch.utils.checkpoint import checkpoint
    except ImportError as error:
        raise missing(error) from None
    torch.set_num_threads(2)
    n, codebooks, _ = x_NxKxD.shape
    if order_NxK is None:
        rng = np.random.default_rng(1)
        order_NxK = np.stack([rng.permutation(n) for _ in range(codebooks)], axis=1)
    order = torch.from_numpy(np.array(order_NxK, np.int64))

    def total(u, v):
        """Of the kernels of all pairs of rows."""
        squares = (u**2).sum(1)[:, None] + (v**2).sum(1)[None, :] - 2 * u @ v.T
        return sum(torch.exp(-0.5 * squares / a).sum() for a in bandwidths.PAPER)

    def loss(x):
        x = (x - x.mean(0)) / torch.sqrt(x.var(0) + 1e-8)
        y = torch.stack([x[order[:, k], k] for k in range(codebooks)], 1)
        x, y = x.flatten(1), y.flatten(1)
        xx, yy, xy = (
            checkpoint(total, u, v, use_reentrant=False) for u, v in ((x, x), (y, y), (x, y))
        )
        diagonal = n * len(bandwidths.PAPER)
        return (xx + yy - 2 * diagonal) / (n * (n - 1)) - 2 * xy / n**2

    def run():
        x = torch.from_numpy(x_NxKxD).requires_grad_()
        value = loss(x)
        value.backward()
        return value.detach().numpy(), x.grad.numpy()

    return run


def memory(n: int = ROWS, against: str = "") -> list[dict]:
    """Rows of what each loss adds to the peak memory of the process: the smallest loss first, since
    a peak hides what is below it. To be asked for before anything else ran."""
    x = rows(n)
    calls = {
        name: functools.partial(jax.jit(jax.value_and_grad(loss)), x)
        for name, loss in losses().items()
    }
    if against:
        calls |= {"the paper's formula, torch": torch_mmd(x)}
    found = []
    for name, call in calls.items():
        before = _peak_bytes()
        jax.block_until_ready(call())
        found.append(
            {
                "what": name,
                "added memory, compilation included": f"{(_peak_bytes() - before) / 1e6:.0f} MB",
            }
        )
    return found


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def scaling(repeats: int) -> list[dict]:
    """Rows of dHSIC for SCALING_ROWS rows on the first of SCALING_DEVICES devices, on a ring of them.

    Of a device: matmul FLOPs, bytes in and out of matmuls, bytes sent; of them all, as XLA plans it,
    temporary memory. jax must have as many devices; virtual ones share the machine's cores.
    """
    found = []
    for n, count in itertools.product(SCALING_ROWS, SCALING_DEVICES):
        mesh = Mesh(np.array(jax.devices()[:count]), ("data",))
        loss = losses(independence.ring(mesh))["dhsic, median"]
        function = jax.value_and_grad(loss)
        x = jax.device_put(rows(n), NamedSharding(mesh, PartitionSpec("data")))
        compiled = jax.jit(function).lower(x).compile()
        what = f"{n} rows, {count}"
        seconds = bench.medians({what: lambda: compiled(x)}, repeats)[what]
        one = cost.count(function, x)
        found.append({
            "rows": n, "devices": count, "seconds": f"{seconds.median:.3f}",
            "GFLOP a device": f"{one.flops / 1e9:.1f}",
            "GB in and out of matmuls": f"{one.matmul_bytes / 1e9:.2f}",
            "MB sent": f"{one.sent_bytes / 1e6:.1f}",
            "temporary MB": f"{compiled.memory_analysis().temp_size_in_bytes / 1e6:.0f}",
        })  # fmt: skip
    return found
