"""Metrics of a language model on held-out tokens: the bits that they cost, and what it generates.

Models here are those of `inference.load_lm`.
"""

from collections.abc import Sequence

import jax
import numpy as np

from indep_jax.evaluation import frechet, musicnn
from indep_jax.lm import model
from indep_jax.support import progress

BATCH = 8  # pieces that are generated at a time


def evaluate(lm, label: str, codes_NxTxK: np.ndarray, captions: Sequence[str]) -> dict:
    """Return the cross-entropy of segments of codes, as in metrics.json (see indep_jax/evaluate.py).

    lm: its text encoder reads the captions, where it has one. label: for the progress on stderr.
    codes_NxTxK: at least 2 segments; -1 is padding.
    """
    nats = jax.jit(lambda variables, *batch: model.nats(lm.model, variables, *batch))
    counts = (codes_NxTxK >= 0).sum(1)

    def cost(texts: Sequence[str] | None) -> np.ndarray:
        """Return the bits [segments, codebooks] of all codes."""
        bits = []
        for number, codes in enumerate(progress.each(codes_NxTxK, f"evaluate {label}")):
            text = lm.encoder([texts[number]]) if texts else ()
            bits.append(np.asarray(nats(lm.variables, codes[None], *text)) / np.log(2))
        return np.stack(bits)

    bits = cost(captions if lm.encoder else None)
    each = (bits / np.maximum(counts, 1)).sum(1)  # bits per frame of each segment
    spread = 1.96 * each.std(ddof=1) / np.sqrt(len(each))
    per_codebook = bits.sum(0) / counts.sum(0)
    metrics = dict(
        pattern=lm.config["model"]["pattern"],
        head=lm.config["model"]["head"],
        parameters=sum(leaf.size for leaf in jax.tree.leaves(lm.variables)),
        segments=len(codes_NxTxK),
        frames=int(counts[:, 0].sum()),
        bits_per_frame=float(per_codebook.sum()),
        bits_per_frame_interval_95=[float(each.mean() - spread), float(each.mean() + spread)],
        cross_entropy_bits=per_codebook.tolist(),
    )
    if lm.encoder:
        for name, texts in dict(other_texts=_others(captions), no_text=None).items():
            total = cost(texts).sum(0) / counts.sum(0)
            metrics[f"bits_per_frame_{name}"] = float(total.sum())
    return metrics


def frechet_distance(
    lm, label: str, codes_NxTxK: np.ndarray, captions: Sequence[str], seconds: float, seed: int = 0
) -> float:
    """Return the Fréchet distance between what a model generates and music through the codec.

    As many pieces of `seconds` as there are codes, of their captions where the model reads texts.
    What the codec loses is in both sets, and not counted.
    """
    pieces, music, generated = len(codes_NxTxK), [], []
    for start in progress.each(range(0, pieces, BATCH), f"{label} generates"):
        numbers = np.minimum(np.arange(start, start + BATCH), pieces - 1)  # one shape, one program
        texts = [captions[n] for n in numbers] if lm.encoder else None
        waves = np.asarray(lm.generate(texts, seconds, seed=seed, examples=numbers))
        generated += list(waves[: pieces - start])
        for codes in codes_NxTxK[start : start + BATCH]:
            music.append(np.asarray(lm.codec.decode(codes[None, codes[:, 0] >= 0]))[0])
    rate = lm.codec.sample_rate
    return frechet.distance(
        musicnn.embed_all(music, rate, "the music"), musicnn.embed_all(generated, rate, label)
    )


def _others(captions: Sequence[str]) -> list[str]:
    """Return for each caption the next one that is different, or itself where none is."""
    return [
        next(
            (text for text in [*captions[n + 1 :], *captions[:n]] if text != captions[n]),
            captions[n],
        )
        for n in range(len(captions))
    ]
