"""The paper's formula in plain torch, against the published arithmetic of `permutation_mmd`."""

import jax
import numpy as np
import pytest

from indep_jax import independence
from indep_jax.bench import mmd as bench_mmd
from indep_jax.independence import permutation

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity


def test_torch_is_the_published_arithmetic_with_rows_for_clips():
    n, key = 60, jax.random.key(2)
    x = bench_mmd.rows(n, 3, 4)
    x[:, 1:] = x[:, :1] + 0.1 * x[:, 1:]  # so dependent that the published clamp leaves it alone
    with jax.enable_x64(True):  # integers of another width may permute otherwise
        order = np.asarray(permutation.permutations(key, n, 3))
        loss = lambda x: independence.permutation_mmd(key, x, published=True, batch=n)
        graded = jax.value_and_grad(loss)(x.astype(np.float64))
        expected, expected_gradient = map(np.asarray, graded)
    value, gradient = bench_mmd.torch_mmd(x.astype(np.float64), order)()
    assert expected > 0.01
    np.testing.assert_allclose(value, expected, rtol=1e-9)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6, atol=1e-12)
