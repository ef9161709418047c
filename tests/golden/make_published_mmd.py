"""Write published_mmd.npz: the published independence loss in plain float64 numpy.

    python tests/golden/make_published_mmd.py

Rows are clips times frames; standardised with the unbiased variance plus 1e-8 inside the root; y
is each codebook's rows permuted; S sums over all pairs, diagonal included; B is the number of
clips. Per bandwidth (S_xx - B) / (B (B - 1)) + (S_yy - B) / (B (B - 1)) - 2 S_xy / B^2, summed,
clamped at 0. The gradient is by central differences.
"""

from pathlib import Path

import numpy as np

BANDWIDTHS = (0.1, 1, 5, 10, 20, 50)


def published_mmd(streams, order):
    clips, frames, codebooks, dim = streams.shape
    rows = streams.reshape(clips * frames, codebooks, dim)
    rows = (rows - rows.mean(0)) / np.sqrt(rows.var(0, ddof=1) + 1e-8)
    shuffled = np.stack([rows[order[:, k], k] for k in range(codebooks)], axis=1)
    x, y = rows.reshape(len(rows), -1), shuffled.reshape(len(rows), -1)

    def total(u, v, bandwidth):
        return sum(
            np.exp(-0.5 * np.sum((u[i] - v[j]) ** 2) / bandwidth)
            for i in range(len(u))
            for j in range(len(v))
        )

    value = 0.0
    for a in BANDWIDTHS:
        value += (total(x, x, a) - clips) / (clips * (clips - 1))
        value += (total(y, y, a) - clips) / (clips * (clips - 1))
        value -= 2 * total(x, y, a) / clips**2
    return max(value, 0.0)


def main():
    rng = np.random.default_rng(20240602)
    streams = rng.normal(size=(4, 5, 3, 2))
    streams[:, :, 1] += streams[:, :, 0]
    order = np.stack([rng.permutation(20) for _ in range(3)], axis=1)
    gradient = np.zeros_like(streams)
    for index in np.ndindex(*streams.shape):
        step = np.zeros_like(streams)
        step[index] = 1e-5
        up, down = published_mmd(streams + step, order), published_mmd(streams - step, order)
        gradient[index] = (up - down) / 2e-5
    np.savez(
        Path(__file__).with_name("published_mmd.npz"),
        streams=streams,
        order=order,
        value=published_mmd(streams, order),
        gradient=gradient,
    )


if __name__ == "__main__":
    main()
