"""indep_scores: what is planned is playable, and a caption says what is in the plan, no more."""

import importlib.util
import pathlib
import re
import shutil
import sys

import numpy as np
import pytest

from indep_jax import data
from indep_jax.datasets.scores import builder, render
from indep_jax.datasets.scores.render import PartNote

SCALES = dict(major=(0, 2, 4, 5, 7, 9, 11), minor=(0, 2, 3, 5, 7, 8, 10))
PITCH_CLASSES = dict(C=0, D=2, E=4, F=5, G=7, A=9, B=11)
CAPTION = re.compile(
    r"A (?P<pace>slow|mid-tempo|fast) (?P<form>.+?)(?: in (?P<key>[A-G](?: flat| sharp)? \w+))?"
    r" played on (?P<band>.+), (?P<tempo>\d+) beats per minute"
)


def _source(title="Etude", **changes):
    fields = dict(path=title, licence="CC0-1.0", says="CC0", title=title, composer="Anon",
                  form="etude", tempo_bpm=90)  # fmt: skip
    return builder.Source(**fields | changes)


def _score(source, key=builder.Key(0.0, 0, "major"), parts=2, quarters=96, gap=None):
    """A melody of quarter notes over chords of two, in the scale of C major or A minor."""
    rng = np.random.default_rng(len(source.title))
    often = [0.3, 0.05, 0.2, 0.05, 0.25, 0.1, 0.05] if key else None  # most of all the tonic triad
    scale = [60 + key.tonic % 12 + step for step in SCALES[key.mode]] if key else range(60, 72)

    def notes(low, voices):
        for onset in range(quarters):
            if gap is None or not gap[0] <= onset < gap[1]:
                for pitch in rng.choice(scale, voices, replace=False, p=often):
                    yield PartNote(float(onset), 1.0, int(pitch) - low, onset % 4 == 0)

    made = tuple(tuple(notes(12 * (part > 0), 1 + (part > 0))) for part in range(parts))
    bars = tuple(float(onset) for onset in range(0, quarters, 4))
    return builder.Score(source, made, bars, float(quarters), (key,) if key else ())


def _scores():
    minor = builder.Key(0.0, 9, "minor")
    splits = {split: f"of {split}" for split in builder.SPLITS}
    held_out = [_score(_source(title, split=split)) for split, title in splits.items()]
    return [
        *held_out,
        _score(_source("In minor", form="song", beat=1.5), minor),
        _score(_source("Without a key", form="chant"), None, parts=1),
        # Four single voices.
        builder.Score(
            _source("Four voices"),
            tuple(
                tuple(PartNote(float(t), 1.0, 67 - 5 * voice + 2 * (t % 2), t % 4 == 0)
                      for t in range(96))
                for voice in range(4)
            ),
            tuple(np.arange(0.0, 96.0, 4.0).tolist()),
            96.0,
            (),
        ),
    ]  # fmt: skip


PLAN = builder.plan(_scores(), "train", 150)


def _scale(key):
    tonic, *accidental, mode = key.split()
    root = PITCH_CLASSES[tonic] + {"flat": -1, "sharp": 1}.get("".join(accidental), 0)
    return {(root + step) % 12 for step in SCALES[mode]}


def test_clip_is_a_function_of_seed_split_and_number():
    def facts(clips):
        return [(c.name, c.caption, c.start, c.transposed, c.players, c.midi()) for c in clips]

    few = builder.plan(_scores(), "train", 9)
    assert facts(few) == facts(PLAN[:9])
    assert facts(builder.plan(_scores(), "train", 9, seed=1)) != facts(few)
    assert facts(builder.plan(_scores(), "test", 9)) != facts(few)


def test_splits_are_by_composition():
    for split in builder.SPLITS:
        titles = {clip.score.source.title for clip in builder.plan(_scores(), split, 40)}
        assert titles == {score.source.title for score in _scores() if score.source.split == split}
    with pytest.raises(ValueError, match="no score is in split test"):
        builder.plan(_scores()[:1], "test", 1)


def test_plan_varies():
    assert len({clip.tempo_bpm for clip in PLAN}) > 20
    assert len({clip.transposed for clip in PLAN}) == 12
    assert len({clip.key for clip in PLAN}) > 15
    assert sum(bool(clip.key) for clip in PLAN) > 0.8 * sum(bool(c.score.keys) for c in PLAN)
    assert len({clip.caption for clip in PLAN}) > 140
    named = {instrument for clip in PLAN for instrument, _ in clip.players}
    assert len(named) > 0.8 * len(render.INSTRUMENTS)


@pytest.mark.parametrize("clip", PLAN[:60], ids=lambda clip: clip.name)
def test_caption_says_what_is_played(clip):
    said = CAPTION.fullmatch(clip.caption)
    assert int(said["tempo"]) == clip.tempo_bpm
    assert said["form"] == clip.score.source.form
    paces = ("slow", "mid-tempo", "fast")
    assert said["pace"] == paces[np.digitize(clip.tempo_bpm, (76, 112))]
    numbers = dict(two=2, three=3, four=4, five=5)
    band = []
    for name in re.split(", | and ", said["band"]):
        count, _, plural = name.partition(" ")
        if count in numbers:
            band += [plural.removesuffix("s")] * numbers[count]
        else:
            band.append(name)
    assert sorted(band) == sorted(instrument for instrument, _ in clip.players)
    assert (said["key"] or "") == clip.key and (clip.score.keys or not clip.key)
    if clip.key:
        heard = {note.pitch % 12 for part in clip.parts().values() for note in part}
        assert len(heard) >= 5 and heard <= _scale(clip.key)


@pytest.mark.parametrize("clip", PLAN[:60], ids=lambda clip: clip.name)
def test_midi_is_what_the_caption_says(clip):
    tempo, programs, notes = _read_midi(clip.midi())
    beats = CAPTION.fullmatch(clip.caption)["tempo"]
    assert 60e6 / tempo == pytest.approx(int(beats) * clip.score.source.beat, rel=1e-5)
    instruments = [instrument for instrument, _ in clip.players]
    assert list(programs.values()) == [render.INSTRUMENTS[i].program for i in instruments]
    assert {channel for _, channel, _ in notes} == set(programs) and 9 not in programs
    parts = clip.parts()
    seconds = {}
    for (_, played), (channel, program) in zip(clip.players, programs.items(), strict=True):
        mine = [(onset, pitch) for onset, its_channel, pitch in notes if its_channel == channel]
        expected = [(note.onset, note.pitch) for part in played for note in parts[part]]
        assert sorted(mine) == sorted(expected)
        (instrument,) = {i for i in instruments if render.INSTRUMENTS[i].program == program}
        _, lowest, highest = render.INSTRUMENTS[instrument]
        assert all(lowest <= pitch <= highest for _, pitch in mine)
        seconds[channel] = [60 * onset / clip.quarters_per_minute for onset, _ in mine]
    # Everybody is heard, somebody at once, and to the end.
    assert max(min(times) for times in seconds.values()) < 0.8 * builder.SECONDS
    assert min(min(times) for times in seconds.values()) == 0
    assert max(max(times) for times in seconds.values()) > builder.SECONDS - 2


def _read_midi(content):
    """(microseconds a quarter note, programs by channel, [(onset in quarters, channel, pitch)])."""
    assert content[:4] == b"MThd" and content[14:18] == b"MTrk"
    ticks, at, now = int.from_bytes(content[12:14], "big"), 22, 0
    tempo, programs, notes = None, {}, []
    while at < len(content):
        delta = 0
        while True:
            delta = delta << 7 | content[at] & 0x7F
            at += 1
            if not content[at - 1] & 0x80:
                break
        now += delta
        kind, channel = content[at] & 0xF0, content[at] & 0x0F
        if content[at] == 0xFF:
            if content[at + 1] == 0x51:
                tempo = int.from_bytes(content[at + 3 : at + 6], "big")
            at += 3 + content[at + 2]
        elif kind == 0xC0:
            programs[channel] = content[at + 1]
            at += 2
        else:
            if kind == 0x90:
                notes.append((now / ticks, channel, content[at + 1]))
            at += 3
    return tempo, programs, notes


def test_clips_avoid_silence_and_changes_of_key():
    quiet = _score(_source(), gap=(40, 48))
    for clip in builder.plan([quiet], "train", 30):
        end = clip.start + builder.SECONDS * clip.quarters_per_minute / 60
        assert not clip.start < 40 < end and not 40 <= clip.start < 48
    two = _score(_source())
    two = builder.Score(two.source, two.parts, two.starts, two.end,
                       (builder.Key(0.0, 0, "major"), builder.Key(48.0, 6, "major")))  # fmt: skip
    halves = set()
    for clip in builder.plan([two], "train", 30):
        end = clip.start + builder.SECONDS * clip.quarters_per_minute / 60
        assert end <= 48 or clip.start >= 48
        halves.add((end <= 48, bool(clip.key)))
    # What the second signature says, F sharp major, is not what sounds: then none is named.
    assert (True, True) in halves and (False, False) in halves and (False, True) not in halves
    with pytest.raises(ValueError, match="train-00000: found nothing to play"):
        builder.plan([_score(_source(), quarters=8)], "train", 1)


@pytest.mark.parametrize("tonic", range(12))
def test_key_is_told_from_what_sounds(tonic):
    def sounding(*degrees):
        return [PartNote(0.0, d, 60 + (tonic + step) % 12, False) for step, d in degrees]

    major = sounding((0, 4), (2, 1), (4, 2), (5, 1), (7, 3), (9, 1), (11, 1))
    minor = sounding((9, 4), (11, 1), (0, 2), (2, 1), (4, 3), (5, 1), (8, 1))
    relative = (tonic + 9) % 12
    pair = [(tonic, "major"), (relative, "minor")]
    for among in (pair, builder._ALL_KEYS):
        assert builder.likeliest_key(major, among) == (tonic, "major")
        assert builder.likeliest_key(minor, among) == (relative, "minor")


def test_whitelist_holds_free_licences_and_splits_compositions():
    free = {"public domain", "CC0-1.0", "CC-BY", "CC-BY-SA", "CC-BY-SA-3.0", "CC-BY-SA-4.0",
            "GPL-2.0-or-later", "Apache-2.0"}  # fmt: skip
    splits = {}
    for source in builder.WHITELIST:
        assert source.licence in free and source.says
        splits.setdefault((source.composer, source.title), set()).add(source.split)
    assert all(len(its) == 1 for its in splits.values())
    counts = [sum(split in its for its in splits.values()) for split in builder.SPLITS]
    assert counts[0] >= 20 and min(counts) >= 5, counts
    own = [source for source in builder.WHITELIST if source.path.startswith("X:")]
    text = builder.OWN_SCORES.read_text(encoding="utf-8")
    assert [source.path for source in own] == re.findall(r"^X:\d+", text, re.MULTILINE)
    assert all(source.says in text for source in own)


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"music21 is missing: pip install indep_jax\[scores\]"):
        builder.read_scores()
    monkeypatch.setattr(render, "SOUND_FONT", str(tmp_path / "none.sf2"))
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/fluidsynth")
    with pytest.raises(ValueError, match="none.sf2 is missing: apt-get install fluid-soundfont-gm"):
        render.check_tools(str(tmp_path / "none.sf2"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="fluidsynth is missing: apt-get install fluidsynth"):
        builder.prepare(data_dir=str(tmp_path))


can_render = pytest.mark.skipif(
    not (shutil.which("fluidsynth") and pathlib.Path(render.SOUND_FONT).is_file()),
    reason="needs fluidsynth and fluid-soundfont-gm",
)


@can_render
def test_rendered_dataset(tmp_path, monkeypatch, capfd):
    """Three clips, a split each: captions, level, and energy at the pitches of the key's scale."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    mine = [score for score in _scores() if score.keys]
    config = builder.ScoresConfig(name="tiny", hours=30 / 3600, scores=mine)
    folder = builder.prepare(config, str(tmp_path))
    assert "\r" not in capfd.readouterr().err  # where a log could get TFDS's bars
    assert folder == tmp_path / "indep_scores" / "tiny" / "1.0.0"
    for split in data.sources.SPLITS:
        its_split = "validation" if split == "valid" else split
        source = data.open_source("tfds:indep_scores", split)
        planned = builder.plan(mine, its_split, 3 if split == "train" else 1)
        assert {file.caption for file in source.files} == {clip.caption for clip in planned}
        for file in source.files:
            audio = data.read_file(file, builder.SAMPLE_RATE, 1)
            assert audio.shape == (320_000, 1)
            assert np.abs(audio).max() == pytest.approx(10 ** (-3 / 20), rel=1e-3)
            power = np.abs(np.fft.rfft(audio[:, 0] * np.hanning(320_000))) ** 2
            frequency = np.fft.rfftfreq(320_000, 1 / builder.SAMPLE_RATE)
            heard = (frequency > 60) & (frequency < 1000)
            pitch = np.round(69 + 12 * np.log2(frequency[heard] / 440)).astype(int) % 12
            chroma = np.bincount(pitch, power[heard], minlength=12)
            inside = chroma[sorted(_scale(CAPTION.fullmatch(file.caption)["key"]))].sum()
            assert inside > 0.8 * chroma.sum()
    assert "tensorflow" not in sys.modules


@pytest.mark.skipif(importlib.util.find_spec("music21") is None, reason="needs music21")
def test_scores_of_music21():
    chosen = [s for s in builder.WHITELIST if s.path in ("X:4", "X:11", "corelli/opus3no1/1grave")]
    corelli, elise, mountain_king = builder.read_scores(chosen)
    assert corelli.keys == (builder.Key(0.0, 5, "major"),)
    assert elise.keys == (builder.Key(0.0, 9, "minor"),)
    assert mountain_king.keys == (builder.Key(0.0, 11, "minor"),)
    assert len(corelli.parts) == 3 and corelli.end == 76.0
    # The first bar of the Mountain King's bass, B minor: B C sharp D E F sharp.
    first = [note.pitch % 12 for note in mountain_king.parts[0][:5]]
    assert first == [11, 1, 2, 4, 6]
    with pytest.raises(ValueError, match="1grave.xml: expected the words 'CC0', CC-BY"):
        builder.read_scores([chosen[0]._replace(says="CC0")])
