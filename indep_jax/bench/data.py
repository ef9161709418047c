"""What `bench data` times: reading music."""

import itertools
import json
import tempfile
from pathlib import Path

import soundfile

from indep_jax import data
from indep_jax.bench import medians
from indep_jax.data import records

COPIED_SECONDS = 240.0  # of music, for the wav and ArrayRecord rows


def rows(source: str, repeats: int, sample_rate: int) -> list[dict]:
    """Rows: what, and how many seconds of music one core reads a second."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        wavs = folder / "wav"
        wavs.mkdir()
        seconds = 0.0
        for number, file in enumerate(data.open_source(source, "train").files):
            if seconds > COPIED_SECONDS:
                break
            audio = data.read_file(file, sample_rate, 1, max_seconds=COPIED_SECONDS)
            soundfile.write(wavs / f"{number}.wav", audio, sample_rate, "PCM_16")
            seconds += len(audio) / sample_rate
        names = [path.name for path in wavs.iterdir()]
        manifest = dict(files=[dict(path=name, split="train") for name in names])
        (wavs / "manifest.json").write_text(json.dumps(manifest))
        records.pack(f"folder:{wavs}", folder, sample_rate=sample_rate, channels=1)
        places = {
            f"{source} as it is": source,
            "wav at the codec's rate": f"folder:{wavs}",
            "ArrayRecord at the codec's rate": f"array_record:{folder}/*.array_record",
        }
        for what, place in places.items():
            speed = _reading_speed(place, repeats, sample_rate)
            found.append({"what": what, "times real time, one core": round(speed)})
    return found


def _reading_speed(source: str, repeats: int, sample_rate: int, batch: int = 16) -> float:
    segments = data.segments(
        data.open_source(source, "train"),
        seed=0, batch_size=batch, seconds=1.0, sample_rate=sample_rate, channels=1,
    )  # fmt: skip
    index = itertools.count()
    # No prefetch, no threads: what one core does.
    found = medians({source: lambda: segments[next(index)]["audio"]}, 10 * repeats)
    return batch / found[source].median
