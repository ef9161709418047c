"""Renders the music of `sample:`: python studies/sample_music/render_sample.py --output=indep_jax/data/sample

Needs music21 (pip), fluidsynth and FluidR3_GM.sf2 (Debian: fluidsynth, fluid-soundfont-gm); neither
the package nor its tests need them. Captions are written from what is rendered. Run again, it gives
the same samples (the Ogg container stamps each file with a random serial number).
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
import tempfile
import warnings
from typing import Any

import soundfile
from absl import app, flags

import indep_jax
from indep_jax.datasets.scores import render
from indep_jax.support.errors import UserError

_OUTPUT = flags.DEFINE_string("output", None, "Folder for the audio and manifest.json.")
_SOUND_FONT = flags.DEFINE_string(
    "sound_font", render.SOUND_FONT, "General MIDI sound font, MIT licence."
)

SAMPLE_RATE = 32_000
SECONDS = 10.0
VORBIS_LEVEL = 0.3  # libsndfile's compression_level: 0 is the best quality, 1 the smallest file
OWN_SCORES = pathlib.Path(indep_jax.__file__).parent / "data" / "scores.abc"
LICENCE = "Apache-2.0"
OWN_ENCODING = "Apache-2.0, written for indep_jax"
# Scores in OWN_SCORES whose notes follow a public domain edition of the Mutopia Project: reference.
MUTOPIA = {7: "Mutopia-2008/12/21-263", 13: "Mutopia-2008/09/28-1555", 14: "Mutopia-2007/07/03-998"}


@dataclasses.dataclass(frozen=True)
class Clip:
    """What to render. Compositions, never clips, are assigned to a split."""

    name: str
    composition: str
    form: str  # for the caption
    score: int | str  # number in scores.abc, or a path in music21's corpus
    players: render.Players
    tempo_bpm: int
    split: str
    beat: float = 1.0  # in quarter notes
    measure: int = 0  # where the clip starts; 0 is the pickup or, without one, the beginning


def _one_each(*instruments: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((instrument, (part,)) for part, instrument in enumerate(instruments))


# Of music21's corpus only scores whose own file says that they are free: most of it (the Bach
# chorales and the quartets among them) names no licence, or reserves commercial use.
WEBER = "weber/concertino_clarinet"
JOHNSON = "johnson_j_r/lift_every_voice"
LILIUOKALANI = "liliuokalani/aloha_oe"
FREE = ("public domain", "cc0")
TITLES = {
    WEBER: ("Concertino for clarinet, Op. 26", "Carl Maria von Weber"),
    JOHNSON: ("Lift Every Voice and Sing", "J. Rosamond Johnson"),
    LILIUOKALANI: ("Aloha Oe", "Liliuokalani"),
}

CLIPS = (
    # Barred in 2/2, but the score's own metronome mark counts quarters.
    Clip("weber_theme", "weber-concertino", "concertino theme", WEBER,
         (("clarinet", (0,)), ("piano", (1, 2))), 92, "train", measure=38),
    Clip("weber_finale", "weber-concertino", "concertino finale", WEBER,
         (("flute", (0,)), ("harp", (1, 2))), 76, "train", beat=1.5, measure=147),
    Clip("johnson_verse", "lift-every-voice", "hymn", JOHNSON,
         (("choir", (0, 1, 2, 3)),), 72, "train", beat=1.5),
    Clip("johnson_middle", "lift-every-voice", "hymn", JOHNSON,
         _one_each("trumpet", "French horn", "trombone", "tuba"), 84, "train", beat=1.5,
         measure=16),
    Clip("aloha_verse", "aloha-oe", "Hawaiian song", LILIUOKALANI,
         (("flute", (4,)), ("nylon guitar", (5, 6))), 88, "train", measure=4),
    Clip("aloha_chorus", "aloha-oe", "Hawaiian song", LILIUOKALANI,
         (("string ensemble", (0, 1, 2, 3)),), 72, "train", measure=13),
    Clip("bach_invention", "bwv-772", "two-part invention", 1,
         (("harpsichord", (0, 1)),), 78, "train"),
    Clip("bach_prelude", "bwv-846", "prelude", 2, (("nylon guitar", (0, 1)),), 88, "train"),
    Clip("beethoven_elise", "woo-59", "bagatelle", 4, (("piano", (0, 1)),), 50, "train", beat=1.5),
    Clip("haydn_emperor", "hob-iii-77", "hymn", 6,
         _one_each("violin", "violin", "viola", "cello"), 66, "train"),
    Clip("joplin_entertainer", "the-entertainer", "ragtime", 7, (("piano", (0, 1)),), 80, "train"),
    Clip("grieg_mountain_king", "peer-gynt-hall", "march", 11,
         _one_each("bassoon", "pizzicato strings"), 138, "train"),
    Clip("bourgeois_old_hundredth", "old-hundredth", "chorale", 12,
         (("church organ", (0, 1, 2, 3)),), 66, "train"),
    Clip("schubert_heidenroeslein", "d-257", "song", 13,
         (("oboe", (0,)), ("piano", (1, 2))), 69, "train"),
    Clip("pachelbel_canon", "canon-in-d", "canon", 9,
         _one_each("violin", "violin", "violin", "cello"), 72, "valid", measure=3),
    Clip("satie_gymnopedie", "gymnopedie-1", "dance", 10, (("piano", (0, 1, 2)),), 70, "valid"),
    Clip("greensleeves", "greensleeves", "folk song", 8,
         _one_each("recorder", "harp"), 56, "valid", beat=1.5),
    Clip("petzold_minuet", "bwv-anh-114", "minuet", 3, (("harpsichord", (0, 1)),), 120, "test"),
    Clip("beethoven_ode", "op-125", "hymn", 5,
         _one_each("trumpet", "trumpet", "trombone", "tuba"), 104, "test"),
    Clip("mozart_sonata", "k-545", "sonata movement", 14, (("piano", (0, 1)),), 126, "test"),
)  # fmt: skip


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}: expected --output=FOLDER")
    if not _OUTPUT.value:
        raise UserError("--output: expected a folder, such as indep_jax/data/sample")
    render.check_music21()
    render.check_tools(_SOUND_FONT.value)
    import music21

    # The concertino's first bar is a grace note too long, which music21 says at length.
    warnings.simplefilter("ignore", music21.musicxml.xmlObjects.MusicXMLWarning)

    output = pathlib.Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    own = music21.converter.parse(OWN_SCORES)
    files = []
    with tempfile.TemporaryDirectory(dir=output, prefix=".render-") as scratch:
        folder = pathlib.Path(scratch)
        for clip in CLIPS:
            if isinstance(clip.score, int):
                score = own.getScoreByNumber(clip.score)
            else:
                score = music21.corpus.parse(clip.score)
            files.append(_entry(clip, score, music21.__version__))
            midi = render.midi_file(clip.players, _notes(clip, score), clip.tempo_bpm * clip.beat)
            audio = render.render(midi, clip.name, SECONDS, SAMPLE_RATE, _SOUND_FONT.value)
            soundfile.write(
                folder / f"{clip.name}.ogg", audio, SAMPLE_RATE,
                format="OGG", subtype="VORBIS", compression_level=VORBIS_LEVEL,
            )  # fmt: skip
            print(files[-1]["caption"], flush=True)
        manifest = {
            "licence": f"{LICENCE}; sound font: FluidR3 GM, MIT (README.md)",
            "files": files,
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        (folder / "manifest.json").write_text(text, encoding="utf-8")
        for entry in files:
            (folder / entry["path"]).replace(output / entry["path"])
        (folder / "manifest.json").replace(output / "manifest.json")


def _entry(clip: Clip, score: Any, music21_version: str) -> dict[str, Any]:
    if isinstance(clip.score, int):
        title, composer = score.metadata.title, score.metadata.composer
        encoding = OWN_ENCODING
        source = f"indep_jax/data/{OWN_SCORES.name}, X:{clip.score}"
        if clip.score in MUTOPIA:
            encoding += f" after the public domain edition {MUTOPIA[clip.score]}"
    else:
        title, composer = TITLES[clip.score]
        encoding = score.metadata.copyright
        if not any(word in str(encoding).lower() for word in FREE):
            raise UserError(f"{clip.score}: expected a free score, its rights say {encoding!r}")
        source = f"music21 {music21_version} corpus, {clip.score}"
    key = _key(clip, score)
    return dict(
        path=f"{clip.name}.ogg",
        title=title,
        composer=composer,
        caption=render.caption(clip.tempo_bpm, clip.form, key, clip.players),
        instruments=[instrument for instrument, _ in clip.players],
        tempo_bpm=clip.tempo_bpm,
        key=key,
        licence=f"{LICENCE} (audio); composition: public domain; score: {encoding}",
        composition=clip.composition,
        source=source,
        split=clip.split,
        seconds=SECONDS,
    )


def _key(clip: Clip, score: Any) -> str:
    """The key signature as it sounds; where it has no mode, the likelier of the relative keys."""
    from music21 import key as keys

    sounding = score.toSoundingPitch()
    signature = sounding.parts[-1].recurse().getElementsByClass("KeySignature").first()
    if not isinstance(clip.score, int):
        major = signature.asKey("major")
        guess = sounding.analyze("key.krumhansl")
        likelihood = {
            (k.tonic.name, k.mode): k.correlationCoefficient
            for k in (guess, *guess.alternateInterpretations)
        }
        signature = max((major, major.relative), key=lambda k: likelihood[k.tonic.name, k.mode])
    assert isinstance(signature, keys.Key)
    tonic = signature.tonic.name.upper().replace("-", " flat").replace("#", " sharp")
    return f"{tonic} {signature.mode}"


def _notes(clip: Clip, score: Any) -> list[render.Note]:
    """The clip's notes, from its first measure to a little more than the clip's seconds."""
    length = SECONDS * clip.tempo_bpm / 60 * clip.beat
    parts, notes = score.toSoundingPitch().parts, {}
    for part in (part for _, played in clip.players for part in played):
        # Offsets from the clip's own first measure: the concertino's parts disagree before it.
        start = next(
            m.offset for m in parts[part].getElementsByClass("Measure") if m.number >= clip.measure
        )
        since = [n._replace(onset=n.onset - float(start)) for n in render.part_notes(parts[part])]
        notes[part] = [n for n in since if 0 <= n.onset < length + 4]
    notes = render.arrange(clip.players, notes)
    first = min(note.onset for note in notes)
    end = max(note.onset + note.duration for note in notes) - first
    if end < length:
        raise UserError(
            f"{clip.name}: expected {length:g} quarter notes of music, the score has {end:g}"
        )
    return [note._replace(onset=note.onset - first) for note in notes]


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print(f"render_sample: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def _run(argv: list[str]) -> int:
    try:
        main(argv)
    except (ValueError, OSError) as error:
        print(f"render_sample: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    app.run(_run, flags_parser=_parse)
