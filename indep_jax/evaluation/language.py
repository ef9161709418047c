"""A language model on held-out tokens: the bits that they cost it, and the music that it writes."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from indep_jax.data import pipeline, tokens
from indep_jax.evaluation import frechet, musicnn
from indep_jax.lm import model as lm_model
from indep_jax.report import page as report
from indep_jax.support import progress
from indep_jax.support.errors import UserError

LISTEN = 6  # pieces of music on the page
BATCH = 8  # pieces that are written at a time


@dataclass(frozen=True)
class Evaluated:
    """What `evaluate` found of one language model.

    metrics: as in metrics.json, see indep_jax/evaluate.py. texts: that it wrote to, "" for none.
    generated: waveforms [time, channels] at sample_rate; originals: those whose texts they are,
    through the codec.
    """

    label: str
    metrics: dict
    texts: list[str]
    generated: list[np.ndarray]
    originals: list[np.ndarray]
    sample_rate: int


def evaluate(
    lm,
    label: str,
    store: tokens.Store,
    split: str,
    items: int,
    seconds: float,
    pieces: int = 0,
    seed: int = 0,
) -> Evaluated:
    """A language model (inference.LoadedLM) on `items` segments of a split of a token store.

    The segments are as long as those that it was trained on, and the same for every model of that
    length. `seconds` is of the music that it writes: to the captions of the split where it reads
    texts; `pieces` of it, where there are any, are compared with as much of the split. Raises
    UserError, one line, for tokens of another codec.
    """
    if store.info["codec"] != lm.codec.fingerprint:
        raise UserError(
            f"the tokens in {store.folder} are of codec {store.info['codec']}, and that "
            f"of {label} is {lm.codec.fingerprint}"
        )
    frames = round(lm.config["data"]["segment_seconds"] * lm.codec.frame_rate)
    segments = pipeline.token_segments(store, split, seed=0, batch_size=items, frames=frames)[0]
    captions = [store.entries[record]["caption"] for record in segments["record"]]
    nats = jax.jit(lambda variables, *batch: lm_model.nats(lm.model, variables, *batch))
    counts = (segments["codes"] >= 0).sum(1)

    def cost(texts: Sequence[str] | None) -> np.ndarray:
        """Bits [segments, codebooks] of all codes."""
        bits = []
        for number, codes in enumerate(progress.each(segments["codes"], f"evaluate {label}")):
            text = lm.encoder([texts[number]]) if texts else ()
            bits.append(np.asarray(nats(lm.variables, codes[None], *text)) / np.log(2))
        return np.stack(bits)

    bits = cost(captions if lm.encoder else None)
    each = (bits / np.maximum(counts, 1)).sum(1)  # bits per frame of each segment
    spread = 1.96 * each.std(ddof=1) / np.sqrt(items)
    per_codebook = bits.sum(0) / counts.sum(0)
    metrics = dict(
        pattern=lm.config["model"]["pattern"],
        head=lm.config["model"]["head"],
        parameters=sum(leaf.size for leaf in jax.tree.leaves(lm.variables)),
        segments=items,
        frames=int(counts[:, 0].sum()),
        bits_per_frame=float(per_codebook.sum()),
        bits_per_frame_interval_95=[float(each.mean() - spread), float(each.mean() + spread)],
        cross_entropy_bits=per_codebook.tolist(),
    )
    if lm.encoder:
        for name, texts in dict(other_texts=_others(captions), no_text=None).items():
            found = cost(texts).sum(0) / counts.sum(0)
            metrics[f"bits_per_frame_{name}"] = float(found.sum())
    if pieces:
        metrics["frechet_distance"] = _frechet_distance(
            lm, label, store, split, pieces, seconds, seed
        )
    records = store.select(split)[:LISTEN]
    texts = [store.entries[record]["caption"] for record in records] if lm.encoder else None
    waves = []
    for number, text in enumerate(texts or [""] * min(2, len(records))):
        heard = dict(texts=[text]) if lm.encoder else dict(texts=None)
        waves.append(np.asarray(lm.generate(seconds=seconds, seed=seed + number, **heard))[0])
    length = round(seconds * lm.codec.frame_rate)
    originals = [
        np.asarray(lm.codec.decode(store[record].codes[None, :length].astype(np.int32)))[0]
        for record in records[: len(waves)]
    ]
    return Evaluated(
        label, metrics, texts or [""] * len(waves), waves, originals, lm.codec.sample_rate
    )


def _frechet_distance(lm, label, store, split, pieces, seconds, seed) -> float:
    """Of what a model writes, and music of the split through the codec, whose texts it reads.

    What the codec takes from the music is in both, and not counted.
    """
    segments = pipeline.token_segments(
        store, split, seed=1, batch_size=pieces, frames=round(seconds * lm.codec.frame_rate)
    )[0]
    texts = [store.entries[record]["caption"] for record in segments["record"]]
    music, written = [], []
    for start in progress.each(range(0, pieces, BATCH), f"{label} writes"):
        numbers = np.minimum(np.arange(start, start + BATCH), pieces - 1)  # one shape, one program
        heard = [texts[n] for n in numbers] if lm.encoder else None
        waves = np.asarray(lm.generate(heard, seconds, seed=seed, examples=numbers))
        written += list(waves[: pieces - start])
        for codes in segments["codes"][start : start + BATCH]:
            music.append(np.asarray(lm.codec.decode(codes[None, codes[:, 0] >= 0]))[0])
    rate = lm.codec.sample_rate
    return frechet.distance(
        musicnn.embed_all(music, rate, "the music"), musicnn.embed_all(written, rate, label)
    )


def _others(captions: Sequence[str]) -> list[str]:
    """For each caption the next one that says something else, where there is one."""
    return [
        next(
            (text for text in [*captions[n + 1 :], *captions[:n]] if text != captions[n]),
            captions[n],
        )
        for n in range(len(captions))
    ]


def show(page: report.Report, results: Sequence[Evaluated]) -> None:
    """Adds tables and music of evaluated language models to a page."""
    page.section(
        "What the music costs",
        "Cross-entropy of held-out tokens, teacher-forced. In brackets a 95% interval of the mean "
        "over segments.",
    )
    codebooks = max(len(result.metrics["cross_entropy_bits"]) for result in results)
    rows = []
    for result in results:
        found = result.metrics
        pattern = found["pattern"] if found["head"] == "linear" else f"{found['head']} head"
        total = report.with_interval(
            found["bits_per_frame"], found["bits_per_frame_interval_95"], 2
        )
        each = [f"{value:.2f}" for value in found["cross_entropy_bits"]]
        rows.append([result.label, pattern, total, *each])
    page.table(
        "Bits of a frame, and of each codebook's code",
        ["model", "pattern", "bits per frame", *(f"{k + 1}" for k in range(codebooks))],
        rows,
    )
    reading = [result for result in results if "bits_per_frame_no_text" in result.metrics]
    if reading:
        names = ("bits_per_frame", "bits_per_frame_other_texts", "bits_per_frame_no_text")
        page.table(
            "What the text is worth: bits of a frame",
            ["model", "with its own text", "with the text of other music", "without a text"],
            [[r.label, *(f"{r.metrics[name]:.3f}" for name in names)] for r in reading],
        )
    distant = [result for result in results if "frechet_distance" in result.metrics]
    if distant:
        page.table(
            "How far what they write is from held-out music, both through the codec: Fréchet distance of "
            "musicnn's embeddings",
            ["model", "Fréchet distance"],
            [[r.label, f"{r.metrics['frechet_distance']:.2f}"] for r in distant],
        )
    page.section("Listen", "What the models write, beside music whose text they read.")
    for number, text in enumerate(results[0].texts):
        rate = results[0].sample_rate
        versions = [("Held-out music, through the codec", results[0].originals[number], rate)]
        for result in results:
            if number < len(result.generated):
                versions.append((result.label, result.generated[number], result.sample_rate))
        page.listen(text or f"Without a text, {number + 1}", versions)
