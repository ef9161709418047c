"""Codes from a Markov source of coupled codebooks, whose entropies are computed, not estimated.

Codebook k of the next frame repeats the new code of codebook k - 1 with probability `copy` (not the
first one), else the last code of codebook k + 1 with probability `echo` (not the last one), else
its own last code with probability `stay`, else it is any code, all alike. Predicting side by side,
the parallel pattern cannot know what `copy` says, nor the delay pattern what `echo` says. With both
at 0 the codebooks are independent, and autocorrelated.
"""

import functools

import numpy as np


def entropy(p) -> float:
    """Return the bits of a distribution, an array of any shape."""
    p = p[p > 0]
    return float(-np.sum(p * np.log2(p)))


class Source:
    """K codebooks of `size` codes; a frame is one of size^K states. Everything is stationary."""

    def __init__(self, codebooks=3, size=3, *, copy=0.4, echo=0.4, stay=0.5):
        self.codebooks, self.size = codebooks, size
        first, last = np.arange(codebooks) == 0, np.arange(codebooks) == codebooks - 1
        self.copy, self.echo, self.stay = np.where(first, 0, copy), np.where(last, 0, echo), stay
        states = np.stack(np.unravel_index(np.arange(size**codebooks), (size,) * codebooks), 1)
        old, new = states[:, None, :], states[None, :, :]
        own = self.stay * (new == old) + (1 - self.stay) / size
        other = self.echo * (new == np.roll(old, -1, axis=-1)) + (1 - self.echo) * own
        copied = self.copy * (new == np.roll(new, 1, axis=-1))
        self.transition = np.prod(copied + (1 - self.copy) * other, axis=-1)
        self.stationary = np.linalg.matrix_power(self.transition, 4096)[0]

    def sample(self, rng, files: int, frames: int) -> list[np.ndarray]:
        """Draw integer codes [frames, codebooks] of each file, from the stationary distribution on."""
        start = rng.choice(len(self.stationary), files, p=self.stationary)
        shape = (self.size,) * self.codebooks
        codes = np.empty((frames, files, self.codebooks), np.int64)
        codes[0] = np.stack(np.unravel_index(start, shape), axis=1)
        fresh = rng.integers(0, self.size, codes.shape)
        copies, echoes, stays = (
            rng.random(codes.shape) < share for share in (self.copy, self.echo, self.stay)
        )
        for t in range(1, frames):
            new, old = codes[t], codes[t - 1]
            new[:] = np.where(stays[t], old, fresh[t])
            new[:] = np.where(echoes[t], np.roll(old, -1, axis=-1), new)
            for k in range(1, self.codebooks):
                new[:, k] = np.where(copies[t, :, k], new[:, k - 1], new[:, k])
        return list(codes.swapaxes(0, 1))

    @functools.cached_property
    def _paths(self):
        """Probabilities of codebooks + 1 frames in a row; axis f * codebooks + k is one code."""
        p = self.stationary
        for _ in range(self.codebooks):
            p = p[..., None] * self.transition
        return p.reshape((self.size,) * (self.codebooks * (self.codebooks + 1)))

    def _entropy(self, codes) -> float:
        """Return the joint entropy of codes (frame, codebook) in the first codebooks + 1 frames."""
        axes = {frame * self.codebooks + k for frame, k in codes}
        others = tuple(set(range(self._paths.ndim)) - axes)
        return entropy(self._paths.sum(others))

    @property
    def joint_bits(self) -> float:
        """Entropy rate: that of a frame given all frames before it."""
        return self._entropy(self._frame(0) | self._frame(1)) - self._entropy(self._frame(0))

    def _frame(self, f):
        return {(f, k) for k in range(self.codebooks)}

    def factorised_bits(self, pattern: str) -> float:
        """Return the bits per frame of predicting each code alone, given all that was emitted before."""
        K = self.codebooks
        if pattern == "parallel":
            known, targets = self._frame(0), self._frame(1)
        else:
            # At its step, the delay pattern has emitted frame 0 whole, which hides all before it,
            # and of codebook j the frames up to K - 1 - j; next come those on the diagonal.
            known = {(f, j) for j in range(K) for f in range(K - j)}
            targets = {(K - j, j) for j in range(K)}
            joint = self._entropy(known | targets) - self._entropy(known)
            assert abs(joint - self.joint_bits) < 1e-9
        return sum(self._entropy(known | {code}) - self._entropy(known) for code in targets)

    def conditional_bits(self, pattern: str) -> float:
        """Return the total correlation of a step's codes given all that was emitted before."""
        return self.factorised_bits(pattern) - self.joint_bits

    def total_bits(self, pattern: str) -> float:
        """Return the total correlation of a step's codes, the past unknown."""
        K = self.codebooks
        codes = self._frame(0) if pattern == "parallel" else {(K - k, k) for k in range(K)}
        return sum(self._entropy({code}) for code in codes) - self._entropy(codes)

    def mutual_information_bits(self, i: int, j: int, lag: int) -> float:
        """Return that between codebook i at frame t and codebook j at frame t - lag."""
        first, second = (j, i) if lag >= 0 else (i, j)
        pair = self.stationary[:, None] * np.linalg.matrix_power(self.transition, abs(lag))
        if lag == 0:
            pair = np.diag(self.stationary)
        pair = pair.reshape((self.size,) * (2 * self.codebooks))
        others = set(range(pair.ndim)) - {first, self.codebooks + second}
        joint = pair.sum(tuple(others))
        return entropy(joint.sum(0)) + entropy(joint.sum(1)) - entropy(joint)
