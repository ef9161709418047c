"""The music that the package carries is what its manifest says, and is music."""

import json
import pathlib

import numpy as np
import pytest
import soundfile

import indep_jax
from indep_jax import data

FOLDER = pathlib.Path(indep_jax.__file__).parent / "data" / "sample"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
FILES = MANIFEST["files"]
SAMPLE_RATE = 32_000
PITCH_CLASSES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10, 11)}  # either seventh

each_clip = pytest.mark.parametrize("entry", FILES, ids=lambda entry: entry["path"])


def _read(entry):
    audio, sample_rate = soundfile.read(FOLDER / entry["path"], always_2d=True)
    return audio, sample_rate


def test_manifest_lists_exactly_the_audio_of_the_folder():
    listed = [entry["path"] for entry in FILES]
    assert len(set(listed)) == len(listed)
    assert set(listed) == {path.name for path in FOLDER.iterdir()} - {"manifest.json", "README.md"}


def test_about_three_minutes_in_four_megabytes():
    assert 150 <= sum(entry["seconds"] for entry in FILES) <= 210
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 4e6


@each_clip
def test_clip_is_sounding_music(entry):
    audio, sample_rate = _read(entry)
    assert (sample_rate, audio.shape[1]) == (SAMPLE_RATE, 1)
    assert audio.shape[0] == round(entry["seconds"] * SAMPLE_RATE)
    assert np.abs(audio).max() == pytest.approx(10 ** (-3 / 20), rel=0.03)  # Vorbis moves the peak
    assert -25 < 20 * np.log10(audio.std()) < -10
    # No silence at the start, none inside: every tenth of a second is above -45 dBFS.
    tenths = audio.reshape(-1, SAMPLE_RATE // 10)
    assert 20 * np.log10(np.sqrt((tenths**2).mean(axis=1)).min()) > -45
    # The ends are faded: no click where clips are cut or joined.
    assert np.abs(audio[[0, -1]]).max() < 1e-2


@each_clip
def test_energy_is_at_the_notes_of_the_key(entry):
    """At least 4/5 of the energy of 60 to 1000 Hz is at the pitches of the key's scale."""
    audio, _ = _read(entry)
    power = np.abs(np.fft.rfft(audio[:, 0] * np.hanning(audio.shape[0]))) ** 2
    frequency = np.fft.rfftfreq(audio.shape[0], 1 / SAMPLE_RATE)
    heard = (frequency > 60) & (frequency < 1000)
    pitch_class = np.round(69 + 12 * np.log2(frequency[heard] / 440)).astype(int) % 12
    chroma = np.bincount(pitch_class, power[heard], minlength=12)
    tonic, *accidental, mode = entry["key"].split()
    root = PITCH_CLASSES[tonic] + {"flat": -1, "sharp": 1}.get("".join(accidental), 0)
    scale = [(root + step) % 12 for step in SCALES[mode]]
    assert chroma[scale].sum() > 0.8 * chroma.sum()


@each_clip
def test_caption_says_what_the_fields_say(entry):
    assert entry["instruments"]
    for instrument in entry["instruments"]:
        assert instrument in entry["caption"]
    assert f" in {entry['key']} " in entry["caption"]
    assert f" {entry['tempo_bpm']} beats per minute" in entry["caption"]
    paces = ("slow", "mid-tempo", "fast")
    pace = paces[np.digitize(entry["tempo_bpm"], (76, 112))]
    assert entry["caption"].startswith(f"A {pace} ")


def test_captions_are_distinct():
    assert len({entry["caption"] for entry in FILES}) == len(FILES)


def test_no_composition_is_in_two_splits():
    splits = {}
    for entry in FILES:
        splits.setdefault(entry["composition"], set()).add(entry["split"])
    assert all(len(of_composition) == 1 for of_composition in splits.values())
    names = [entry["split"] for entry in FILES]
    assert set(names) == {"train", "valid", "test"}
    assert names.count("train") >= 12
    assert min(names.count("valid"), names.count("test")) >= 2


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_each_split_opens(split, capsys):
    source = data.open_source("sample:", split)
    listed = {entry["path"]: entry["caption"] for entry in FILES if entry["split"] == split}
    assert {file.name: file.caption for file in source.files} == listed
    assert source.seconds == sum(e["seconds"] for e in FILES if e["split"] == split)
    assert not source.unreadable and not capsys.readouterr().err


@each_clip
def test_licence_and_source_are_stated(entry):
    assert entry["title"] and entry["composer"] and entry["source"]
    assert "composition: public domain" in entry["licence"]
    encoding = entry["licence"].partition("score: ")[2]
    assert any(free in encoding for free in ("Public Domain", "CC0", "Apache-2.0"))


def test_licence_of_the_sound_font_is_stated():
    assert "MIT" in MANIFEST["licence"]
    assert "Frank Wen" in (FOLDER / "README.md").read_text(encoding="utf-8")
