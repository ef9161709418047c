"""Total correlation of a frame's codes, alone and given the past: the cost of predicting them at once.

A language model that predicts the K codes of a step side by side, from all that it has emitted,
needs at least sum_k H(c_k | emitted) bits a frame; the frame holds h = H(c_1 .. c_K | emitted). The
difference is the conditional total correlation. "parallel" emits whole frames; "delay" codebook k
at frame s - k in step s, so that "emitted" holds more of the frame itself. h is the same for both:
the joint entropy rate of the frames.

These entropies are too large to count; a model gives upper bounds. One small network reads the past,
and two sets of heads predict from its output: each codebook alone, and each codebook given those before it in
the same step (the chain rule). Their cross-entropies on held-out files bound the two entropies from
above, and their difference estimates the conditional total correlation. Two more sets of heads,
that see no past, give the total correlation as such.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from indep_jax.dependence import intervals
from indep_jax.dependence.codes import check_codes, files_or_blocks
from indep_jax.independence import streams
from indep_jax.support import progress
from indep_jax.support.errors import UserError

HELD_OUT = 0.2  # share of the files
FRAMES = 64  # of a window whose codes are predicted
RATES = (2e-3, 5e-4, 1e-4)  # learning rates, each until the held-out files stop improving
PATIENCE = 3  # evaluations without an improvement that end a rate
MARGIN_BITS = 2e-3  # an improvement, per frame


@dataclass(frozen=True)
class TotalCorrelation:
    """Total correlation of the codes of a step, in bits per frame, with 95% intervals over files.

    pattern: "parallel", "delay" or delays. training_frames, held_out_frames, held_out_files.
    conditional_bits, conditional_interval_bits [2]: given the past, factorised less joint.
    without_bits [held_out_files]: conditional_bits without each held-out file in turn.
    factorised_bits, joint_bits: cross-entropies given the past, of each codebook alone and of all
        together; joint_bits estimates the joint entropy rate, from above.
    total_bits, total_interval_bits [2]: without the past.
    """

    pattern: str | tuple[int, ...]
    training_frames: int
    held_out_frames: int
    held_out_files: int
    conditional_bits: float
    conditional_interval_bits: np.ndarray
    without_bits: np.ndarray
    factorised_bits: float
    joint_bits: float
    total_bits: float
    total_interval_bits: np.ndarray


def estimate(
    codes: Sequence[np.ndarray],
    *,
    sizes: Sequence[int] | None = None,
    pattern: str | Sequence[int] = "parallel",
    shares: Sequence[float] = (0.25, 0.5, 1.0),
    width: int = 128,
    context: int = 128,
    batch: int = 8,
    seed: int = 0,
    show_progress: bool = False,
) -> tuple[TotalCorrelation, ...]:
    """Estimate it from models trained on `shares` of the training files; the last is the best.

    codes: one integer array [frames, codebooks] per source file. sizes: of the codebooks; by
    default the largest code plus one. pattern: the language model's (see `streams.delays`).
    context: frames of the past that the model sees, a power of two. width: of its layers.

    A fifth of the files is held out. Training at each of three learning rates continues until their
    cross-entropy stops falling, and the best value of each set of heads counts. Bias: both
    cross-entropies are too large by what the model has not learned. That of the chain rule has more
    to learn, so the difference is mostly too low, and grows with training size: compare codecs at
    the same size, and look at the curve. Where one file has most of the frames, blocks stand in for
    files, and held-out blocks lie between those for training. Stopping by the same files that are
    reported makes both a little too small. Variance: the intervals include that of the held-out
    files, not that of the training.

    Raises UserError for codes or sizes of another form, and for fewer than 3 usable files.
    """
    files, sizes = check_codes(codes, sizes)
    files, _ = files_or_blocks(files)
    delays = streams.delays(pattern, len(sizes))
    longest = max(delays)
    # As streams.align, of files of their own lengths.
    files = [
        np.stack([file[longest - d : len(file) - d, k] for k, d in enumerate(delays)], axis=1)
        for file in files
        if len(file) > longest
    ]
    if len(sizes) < 2 or len(files) < 3:
        raise UserError(
            f"codes: {len(sizes)} codebooks, {len(files)} files of more than {longest} frames: "
            "expected at least 2 and 3"
        )
    order = np.random.default_rng(seed).permutation(len(files))
    held = max(2, round(HELD_OUT * len(files)))
    held_out, training = order[:held], order[held:]
    estimates = []
    # Of few files, shares may be the same files.
    for count in dict.fromkeys(max(1, round(share * len(training))) for share in shares):
        chosen = training[:count]
        frames = sum(len(files[f]) for f in chosen)
        name = pattern if isinstance(pattern, str) else tuple(pattern)
        with progress.bar(
            None, f"{name}, {frames} frames", unit="steps", show=show_progress
        ) as bar:
            bits_FxH = _fit(
                [files[f] for f in chosen],
                [files[f] for f in held_out],
                Predictor(len(sizes), max(sizes), width, context),
                batch,
                seed,
                bar,
            )
        lengths_F = np.array([len(files[f]) for f in held_out])
        alone, joined, factorised, joint = _per_frame(bits_FxH, lengths_F).T
        total, conditional = alone - joined, factorised - joint
        estimates.append(
            TotalCorrelation(
                pattern=name,
                training_frames=frames,
                held_out_frames=int(lengths_F.sum()),
                held_out_files=held,
                conditional_bits=float(conditional[0]),
                conditional_interval_bits=intervals.jackknife(conditional[0], conditional[1:]),
                without_bits=conditional[1:],
                factorised_bits=float(factorised[0]),
                joint_bits=float(joint[0]),
                total_bits=float(total[0]),
                total_interval_bits=intervals.jackknife(total[0], total[1:]),
            )
        )
    return tuple(estimates)


def change(before: TotalCorrelation, after: TotalCorrelation) -> tuple[float, np.ndarray]:
    """Return the change of the conditional total correlation, bits per frame, and its interval [2].

    Compares two codecs measured with one seed on the same files; see `intervals.change`. The
    interval does not include the variance of the training. Raises UserError for other patterns or
    files.
    """
    if (before.pattern, before.held_out_files) != (after.pattern, after.held_out_files):
        raise UserError("change: expected two measurements of the same files, of one pattern")
    return intervals.change(
        before.conditional_bits, before.without_bits, after.conditional_bits, after.without_bits
    )


def _per_frame(bits_FxH, lengths_F):
    """Return bits per frame [1 + files, heads]: of all files, and without each in turn."""
    kept = np.concatenate([np.ones((1, len(lengths_F))), 1 - np.eye(len(lengths_F))])
    return kept @ bits_FxH / (kept @ lengths_F)[:, None]


class Predictor(nn.Module):
    """Four sets of heads that predict the codes of windows.

    codebooks, size: of the codes; the code `size` stands for "before the file". width: of all
    layers. context: frames of the past, a power of two: dilated convolutions of two taps see it.
    """

    codebooks: int
    size: int
    width: int
    context: int

    @nn.compact
    def __call__(self, codes_BxTxK):
        """Return nats [4, batch, time - context, codebooks] of the frames after the first `context`.

        The heads, in order: without the past, each codebook alone, and given those before it; then
        the same given the past.
        """
        x = sum(
            nn.Embed(self.size + 1, self.width, name=f"past_{k}")(codes_BxTxK[:, :-1, k])
            for k in range(self.codebooks)
        )
        dilation = 1
        while dilation < self.context:
            h = nn.LayerNorm()(x)
            h = jnp.concatenate([h[:, :-dilation], h[:, dilation:]], axis=-1)
            x = x[:, dilation:] + nn.Dense(self.width)(nn.gelu(nn.Dense(self.width)(h)))
            dilation *= 2
        past_BxTx1xW = x[:, :, None]
        target = jnp.minimum(codes_BxTxK[:, self.context :], self.size - 1)  # after the file: any
        nothing = jnp.zeros((1, 1, self.codebooks, self.width))
        return jnp.stack(
            [
                self._heads("alone", nothing, target),
                self._heads("joined", self._before("joined", target), target),
                self._heads("factorised", past_BxTx1xW + nothing, target),
                self._heads("joint", past_BxTx1xW + self._before("joint", target), target),
            ]
        )

    def _before(self, name, target_BxTxK):
        """Return for each codebook the sum of vectors of the codes before it in the step."""
        told = [jnp.zeros((*target_BxTxK.shape[:2], self.width))]
        for k in range(self.codebooks - 1):
            embed = nn.Embed(self.size, self.width, name=f"{name}_before_{k}")
            told.append(told[-1] + embed(target_BxTxK[..., k]))
        return jnp.stack(told, axis=2)

    def _heads(self, name, x_BxTxKxW, target_BxTxK):
        """Return nats of each codebook's code from its own vector, which all frames may share."""
        shape = (self.codebooks, self.width, self.width)
        initial = nn.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=0)
        inner = self.param(f"{name}_inner", initial, shape)
        outer = self.param(f"{name}_outer", initial, (*shape[:2], self.size))
        zeros = nn.initializers.zeros
        inner_bias = self.param(f"{name}_inner_bias", zeros, shape[:2])
        bias = self.param(f"{name}_bias", zeros, (self.codebooks, self.size))
        x_BxTxKxW = nn.LayerNorm(name=f"{name}_norm")(x_BxTxKxW)
        nats = []
        for k in range(self.codebooks):  # one by one: a product of all at once is slower on CPU
            h = nn.gelu(x_BxTxKxW[:, :, k] @ inner[k] + inner_bias[k])
            log_p = jax.nn.log_softmax(h @ outer[k] + bias[k])
            if log_p.shape[:2] == (1, 1):
                nats.append(-log_p[0, 0][target_BxTxK[..., k]])
            else:
                nats.append(-jnp.take_along_axis(log_p, target_BxTxK[..., k, None], -1)[..., 0])
        return jnp.stack(nats, axis=-1)


def _fit(training, held_out, model: Predictor, batch: int, seed: int, bar) -> np.ndarray:
    """Return the bits [files, heads] of each held-out file, each set of heads at its best."""
    rng = np.random.default_rng(seed)
    length = min(FRAMES, max(map(len, training)))
    train, held = (_Windows(files, model, length) for files in (training, held_out))
    codes, _ = train.read(np.zeros(1, np.int64))
    params = jax.jit(model.init)(jax.random.key(seed), codes)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(b2=0.99))

    def nats(params, codes, weights):
        """Return the sums over windows [4, batch]."""
        return jnp.einsum("hbtk,bt->hb", model.apply(params, codes), weights)

    @jax.jit
    def step(params, state, rate, codes, weights):
        def loss(params):
            return jnp.sum(nats(params, codes, weights)) / jnp.maximum(jnp.sum(weights), 1)

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return jax.tree.map(lambda p, u: p - rate * u, params, updates), state

    measure = jax.jit(nats)

    def evaluate(params):
        bits_FxH = np.zeros((len(held_out), 4))
        for first in range(0, len(held.tiles), batch):
            tiles = held.tiles[first : first + batch]
            codes, weights = held.read(np.resize(tiles, batch))  # one shape, one compilation
            nats_HxB = np.asarray(measure(params, codes, weights), np.float64)[:, : len(tiles)]
            np.add.at(bits_FxH, held.file_of_tile[first : first + batch], nats_HxB.T / np.log(2))
        return bits_FxH

    frames = sum(map(len, held_out))
    every = int(np.clip(-(-sum(map(len, training)) // (batch * length)), 25, 200))
    bits_FxH, best_H = np.zeros((len(held_out), 4)), np.full(4, np.inf)
    kept, lowest = params, np.inf
    for rate in RATES:
        params, state, stale = kept, optimizer.init(kept), 0
        while stale < PATIENCE:
            for _ in range(every):
                windows = train.read(rng.integers(0, train.starts, batch))
                params, state = step(params, state, rate, *windows)
            values_FxH = evaluate(params)
            now_H = values_FxH.sum(0) / frames
            stale = 0 if np.any(now_H < best_H - MARGIN_BITS) else stale + 1
            better = now_H < best_H
            bits_FxH[:, better], best_H[better] = values_FxH[:, better], now_H[better]
            if now_H.sum() < lowest:
                kept, lowest = params, now_H.sum()
            bar.update(every)
            bar.set_postfix_str(f"{best_H[2]:.3f} - {best_H[3]:.3f} bits")
    return bits_FxH


class _Windows:
    """Windows of files: `context` frames of the past, and `length` frames to predict.

    starts: how many windows there are, one for each frame that may come first; every frame is in
    as many. tiles: windows that have every frame once; file_of_tile: their files.
    """

    def __init__(self, files, model: Predictor, length: int):
        self._length, self._context = length, model.context
        before, after = model.context + length - 1, length - 1
        pad = lambda n, value: np.full((n, files[0].shape[1]), value)
        self._codes = np.concatenate(
            [np.concatenate([pad(before, model.size), f, pad(after, model.size)]) for f in files]
        ).astype(np.int32)
        self._real = np.concatenate(
            [np.concatenate([np.zeros(before), np.ones(len(f)), np.zeros(after)]) for f in files]
        ).astype(np.float32)
        # Of each file: the first frame of its padding, and the windows that hold a frame of it.
        starts = np.cumsum([0] + [before + len(f) + after for f in files[:-1]])
        counts = [len(f) + length - 1 for f in files]
        self._first = np.concatenate([s + np.arange(n) for s, n in zip(starts, counts)])
        self.starts = len(self._first)
        bases = np.cumsum([0] + counts[:-1])
        tiles = [base + length - 1 + np.arange(0, len(f), length) for base, f in zip(bases, files)]
        self.tiles = np.concatenate(tiles)
        self.file_of_tile = np.repeat(np.arange(len(files)), [len(t) for t in tiles])

    def read(self, windows):
        """Return codes [windows, context + length, codebooks]; weights [windows, length], 0 outside."""
        frames = self._first[windows][:, None] + np.arange(self._context + self._length)
        return self._codes[frames], self._real[frames[:, self._context :]]
