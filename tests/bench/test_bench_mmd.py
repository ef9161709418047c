"""The work of the losses, counted in their programs against what it should be on paper."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType

from indep_jax import independence
from indep_jax.bench import cost
from indep_jax.bench import mmd as bench_mmd

N, K, D, BLOCK = 512, 4, 8, 32


def counted(name, devices):
    pairs = None
    if devices:
        mesh = AbstractMesh((devices,), ("data",), axis_types=(AxisType.Auto,))
        pairs = independence.ring(mesh)
    loss = bench_mmd.losses(pairs, BLOCK)[name]
    shape = jax.ShapeDtypeStruct((N, K, D), jnp.float32)
    return cost.count(jax.value_and_grad(loss), shape)


@pytest.mark.parametrize("devices", [None, 1, 4, 8])
def test_every_pair_is_visited_once_in_each_direction(devices):
    found = counted("dhsic, the paper's bandwidths", devices)
    tiles = N // BLOCK
    share = tiles // (devices or 1)
    # Tiles of a device: its own half, each visitor of one side of the ring, half of the opposite.
    visits = share * (share + 1) // 2
    if devices and devices > 1:
        visits += (devices // 2 - 1) * share**2 + share * (share + 1) // 2
    assert visits * (devices or 1) <= tiles * (tiles + 1) / 2 + tiles / 2  # nearly no pair twice
    each = BLOCK**2 * K
    # Distances forward and again backward, then a product for each of the two rows' gradients.
    assert found.flops == visits * each * 2 * D * 4
    # Three exps make the paper's six kernels, of each codebook.
    assert found.exps == visits * each * 3 * 2


def test_rows_travel_half_the_ring():
    alone, eight = (counted("dhsic, median", devices).sent_bytes for devices in (1, 8))
    assert alone == 0
    rows, sums = N // 8 * K * D * 4, N // 8 * 3 * (1 + K) * 4
    # Forward: vectors and sums; backward: vectors, cotangents and gradients; the last go home.
    vectors = 4 * (rows + sums) + sums + 4 * (2 * rows + sums) + rows
    ids = 2 * 4 * N // 8 * (4 + 1) + 5 * N // 8 * 4  # with `real`, and the counts
    assert eight == vectors + ids


def test_the_permutation_takes_four_times_the_pairs():
    names = "permutation, the paper's bandwidths", "dhsic, median"
    found, closed = (counted(name, None) for name in names)
    tiles = N // BLOCK
    assert found.flops == (tiles * (tiles + 1) + tiles**2) * BLOCK**2 * K * 2 * D * 4
    assert 3.5 * closed.flops < found.flops < 4 * closed.flops
