"""Audio files to batches: sources (which files), transforms (reading one), pipeline (batches)."""

from indep_jax.data.pipeline import excerpts, iterate, segments, token_segments
from indep_jax.data.sources import AudioFile, AudioSource, open_source
from indep_jax.data.transforms import read_file, read_segment

__all__ = [
    "AudioFile",
    "AudioSource",
    "excerpts",
    "iterate",
    "open_source",
    "read_file",
    "read_segment",
    "segments",
    "token_segments",
]
