"""The TFDS dataset `indep_scores`: free scores in changing instruments, tempi and keys, captioned.

Scores of music21 whose own file says that they are free, and those of scores.abc, are rendered by
fluidsynth; each clip's caption says what was rendered, no more. Compositions, never clips, are
assigned to a split. `launch/render_scores.py` makes it, `tfds:indep_scores/2h` reads it.
"""

from __future__ import annotations

import dataclasses
import pathlib
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from indep_jax.datasets.scores import render
from indep_jax.datasets.scores.render import PartNote
from indep_jax.support import progress
from indep_jax.support.errors import UserError

SAMPLE_RATE = 32_000
SECONDS = 10.0
SPLITS = {"train": 0.9, "validation": 0.05, "test": 0.05}  # shares of the hours
SEED = 0
OWN_SCORES = pathlib.Path(__file__).with_name("scores.abc")

_OWN_LICENCE = "Apache-2.0"
_LONGEST_SILENCE = 1.0  # seconds without a note
_DRAWS = 10_000  # of a clip, until one can be played,
_PATIENCE = 200  # so many of one score


class Source(NamedTuple):
    """A score that may be rendered, and what its notes do not say.

    path: in music21's corpus, or "X:n" in scores.abc.
    licence: of the score as it is encoded. The compositions are in the public domain: the last of
      the composers to die was J. Rosamond Johnson, in 1954.
    says: words of the score's own file that give the licence; without them it is not rendered.
    form: for the caption.
    tempo_bpm: around which clips are played.
    beat: quarter notes of a beat.
    parts: those that are played, melody first.
    measures: the first and the last that are played; None for all.
    tonal: whether it has a key, and its signature says which (Foster's file, in F, has none).
    """

    path: str
    licence: str
    says: str
    title: str
    composer: str
    form: str
    tempo_bpm: int
    split: str = "train"
    beat: float = 1.0
    parts: tuple[int, ...] | None = None
    measures: tuple[int, int] | None = None
    tonal: bool = True


_SEELY = ("weber/concertino_clarinet", "public domain", "assigned to the public domain")
_CLARA = ("CC-BY-SA-4.0", "released under the CC BY-SA 4.0 license")
_CUTHBERT = ("CC-BY-SA-3.0", "freely distributed under a CC-BY-SA 3.0 license")
_CONRAD = ("GPL-2.0-or-later", "GNU General Public License as published by")
_OWN = (_OWN_LICENCE, "written for indep_jax (Apache-2.0)")
_WEBER = ("Concertino for clarinet, Op. 26", "Carl Maria von Weber")
_ALOHA = ("Aloha Oe", "Liliuokalani")

# Most scores of music21's corpus state no licence, or one that is not free: they are not here.
WHITELIST = (
    Source(*_SEELY, *_WEBER, "concertino theme", 92, measures=(38, 146)),
    Source(*_SEELY, *_WEBER, "concertino finale", 76, beat=1.5, measures=(147, 236)),
    Source("johnson_j_r/lift_every_voice", "CC0-1.0", "Public Domain (Encoding by MSAC: CC0)",
           "Lift Every Voice and Sing", "J. Rosamond Johnson", "hymn", 78, beat=1.5),
    Source("liliuokalani/aloha_oe", "CC0-1.0", "Encoding by MSAC, CC0", *_ALOHA,
           "Hawaiian song", 80, parts=(0, 1, 2, 3)),
    Source("liliuokalani/aloha_oe", "CC0-1.0", "Encoding by MSAC, CC0", *_ALOHA,
           "Hawaiian song", 80, parts=(4, 5, 6)),
    Source("leadSheet/fosterBrownHair", "public domain", "Public Domain",
           "Jeanie With The Light Brown Hair", "Stephen Foster", "song", 76, tonal=False),
    Source("schumann_clara/polonaise_op1n1", *_CLARA, "Polonaise, Op. 1 No. 1", "Clara Schumann",
           "polonaise", 92),
    Source("schumann_clara/polonaise_op1n2", *_CLARA, "Polonaise, Op. 1 No. 2", "Clara Schumann",
           "polonaise", 92),
    Source("schumann_clara/polonaise_op1n3", *_CLARA, "Polonaise, Op. 1 No. 3", "Clara Schumann",
           "polonaise", 92),
    Source("schumann_clara/polonaise_op1n4", *_CLARA, "Polonaise, Op. 1 No. 4", "Clara Schumann",
           "polonaise", 96, split="test"),
    Source("corelli/opus3no1/1grave", "CC-BY", "Creative Commons License (CC-BY)",
           "Trio sonata, Op. 3 No. 1, Grave", "Arcangelo Corelli", "trio sonata", 60,
           split="validation"),
    Source("beach/prayer_of_a_tired_child", "CC-BY-SA", "most uses allowed for free (CC-SA-BY)",
           "Prayer of a Tired Child, Op. 75 No. 4", "Amy Beach", "part song", 84,
           parts=(0, 1, 2, 3)),
    Source("ciconia/quod_jactatur", *_CUTHBERT, "Quod jactatur", "Johannes Ciconia", "melody", 84,
           tonal=False),
    Source("luca/gloria", *_CUTHBERT, "Gloria", "D. Luca", "mass movement", 104, tonal=False),
    Source("josquin/adieuMesAmours", *_CONRAD, "Adieu mes amours", "Josquin des Prez", "chanson",
           100, beat=2.0, tonal=False),
    Source("josquin/fortunaDunGranTempo", *_CONRAD, "Fortuna d'un gran tempo", "Josquin des Prez",
           "chanson", 100, split="validation", beat=2.0, tonal=False),
    Source("josquin/laPlusDesPlus", *_CONRAD, "La plus des plus", "Josquin des Prez", "chanson",
           100, split="test", beat=2.0, tonal=False),
    Source("josquin/milleRegrets", *_CONRAD, "Mille regrets", "Josquin des Prez", "chanson", 100,
           beat=2.0, tonal=False),
    Source("josquin/oVenusBant", *_CONRAD, "O Venus bant", "Josquin des Prez", "chanson", 100,
           beat=2.0, tonal=False),
    Source("josquin/petiteCamusette", *_CONRAD, "Petite Camusette", "Josquin des Prez", "chanson",
           96, beat=2.0, tonal=False),
    Source("X:1", *_OWN, "Invention No. 1, BWV 772", "Johann Sebastian Bach",
           "two-part invention", 78),
    Source("X:2", *_OWN, "Prelude No. 1, BWV 846", "Johann Sebastian Bach", "prelude", 80),
    Source("X:3", *_OWN, "Minuet, BWV Anh. 114", "Christian Petzold", "minuet", 116, split="test"),
    Source("X:4", *_OWN, "Für Elise, WoO 59", "Ludwig van Beethoven", "bagatelle", 52, beat=1.5),
    Source("X:5", *_OWN, "Ode to Joy", "Ludwig van Beethoven", "hymn", 104, split="test"),
    Source("X:6", *_OWN, "Emperor's Hymn", "Joseph Haydn", "hymn", 72),
    Source("X:7", *_OWN, "The Entertainer", "Scott Joplin", "ragtime", 80),
    Source("X:8", *_OWN, "Greensleeves", "traditional, England", "folk song", 56,
           split="validation", beat=1.5),
    Source("X:9", *_OWN, "Canon in D", "Johann Pachelbel", "canon", 72, split="validation"),
    Source("X:10", *_OWN, "Gymnopédie No. 1", "Erik Satie", "dance", 70, split="validation"),
    Source("X:11", *_OWN, "In the Hall of the Mountain King", "Edvard Grieg", "march", 138),
    Source("X:12", *_OWN, "Old Hundredth", "Louis Bourgeois", "chorale", 72),
    Source("X:13", *_OWN, "Heidenröslein, D. 257", "Franz Schubert", "song", 69),
    Source("X:14", *_OWN, "Sonata No. 16, K. 545, first movement", "Wolfgang Amadeus Mozart",
           "sonata movement", 120, split="test"),
)  # fmt: skip


class Key(NamedTuple):
    """From `onset` on (quarter notes) the music is in this key; its tonic is a pitch class."""

    onset: float
    tonic: int
    mode: str  # "major" or "minor"


@dataclasses.dataclass(frozen=True)
class Score:
    """The notes of a source, as plain data. Times are in quarter notes.

    starts: where a clip may begin. end: where the music ends. keys: sorted; empty without one.
    """

    source: Source
    parts: tuple[tuple[PartNote, ...], ...]
    starts: tuple[float, ...]
    end: float
    keys: tuple[Key, ...]


@dataclasses.dataclass(frozen=True)
class Clip:
    """What to render: `SECONDS` of a score, in a key, at a tempo, by players.

    start: quarter notes. transposed: semitones. key: as it sounds, "" where that is open.
    """

    name: str
    score: Score
    start: float
    transposed: int
    tempo_bpm: int
    key: str
    players: render.Players

    @property
    def caption(self) -> str:
        return render.caption(self.tempo_bpm, self.score.source.form, self.key, self.players)

    @property
    def quarters_per_minute(self) -> float:
        return self.tempo_bpm * self.score.source.beat

    def parts(self) -> dict[int, list[PartNote]]:
        """The notes of each part from the start on, a little longer than is rendered."""
        length = SECONDS * self.quarters_per_minute / 60
        return {
            number: [
                n._replace(onset=n.onset - self.start, pitch=n.pitch + self.transposed)
                for n in part
                if 0 <= n.onset - self.start < length + 1
            ]
            for number, part in enumerate(self.score.parts)
        }

    def midi(self) -> bytes:
        notes = render.arrange(self.players, self.parts())
        return render.midi_file(self.players, notes, self.quarters_per_minute)


# Who plays together. One of the first group can play a whole score, or accompany; each of the
# others plays one part of single notes.
_SOLOISTS = ("piano", "electric piano", "harpsichord", "vibraphone", "marimba", "church organ",
             "accordion", "nylon guitar", "harp", "string ensemble", "choir",
             "pizzicato strings")  # fmt: skip
_BANDS = (
    ("violin", "viola", "cello", "contrabass"),
    ("flute", "oboe", "clarinet", "bassoon"),
    ("trumpet", "French horn", "trombone", "tuba"),
    ("recorder", "alto saxophone", "violin", "flute", "clarinet", "trumpet", "cello", "bassoon"),
)


def plan(scores: Sequence[Score], split: str, clips: int, seed: int = SEED) -> list[Clip]:
    """The clips of a split: clip i is a function of (scores, split, seed, i) alone.

    Scores are drawn with probability proportional to the square root of their duration, so that
    short ones are heard too. Raises UserError, one line, where none of them can be played.
    """
    mine = [score for score in scores if score.source.split == split]
    if not mine:
        raise UserError(f"indep_scores: no score is in split {split}")
    weights = np.sqrt([score.end - score.starts[0] for score in mine])
    key = [seed, list(SPLITS).index(split)]
    return [
        _draw(mine, weights / weights.sum(), np.random.default_rng([*key, number]),
              f"{split}-{number:05d}")
        for number in range(clips)
    ]  # fmt: skip


def _draw(scores, weights, rng: np.random.Generator, name: str) -> Clip:
    for draw in range(_DRAWS):
        if draw % _PATIENCE == 0:  # not anew each time: short scores seldom have room for a clip
            score = scores[rng.choice(len(scores), p=weights)]
        tempo_bpm = round(score.source.tempo_bpm * 2 ** rng.uniform(-0.4, 0.4))
        start = float(rng.choice(score.starts))
        transposed = int(rng.integers(-5, 7))
        clip = Clip(name, score, start, transposed, tempo_bpm, "", ())
        end = start + SECONDS * clip.quarters_per_minute / 60
        changes = any(start < key.onset < end for key in score.keys)
        if end > score.end or changes or not _is_dense(clip):
            continue
        players = _choose_players(clip, rng)
        if players:
            return dataclasses.replace(clip, key=_sounding_key(clip), players=players)
    raise UserError(f"indep_scores: {name}: found nothing to play in {_DRAWS} draws")


def _sounding_key(clip: Clip) -> str:
    """The clip's key, where the score's signature and what sounds agree on one; else ""."""
    written = [key for key in clip.score.keys if key.onset <= clip.start][-1:]
    if not written:
        return ""
    tonic, mode = (written[0].tonic + clip.transposed) % 12, written[0].mode
    if likeliest_key([n for part in clip.parts().values() for n in part]) != (tonic, mode):
        return ""
    return f"{(_MAJOR_NAMES if mode == 'major' else _MINOR_NAMES)[tonic]} {mode}"


def _is_dense(clip: Clip) -> bool:
    """Whether it begins with a note and is never silent for long."""
    quarter = 60 / clip.quarters_per_minute
    notes = sorted(note for part in clip.parts().values() for note in part)
    if not notes or notes[0].onset > 0:
        return False
    heard = 0.0
    for note in notes:
        if (note.onset - heard) * quarter > _LONGEST_SILENCE:
            return False
        heard = max(heard, note.onset + note.duration)
    return heard * quarter >= SECONDS


def _choose_players(clip: Clip, rng: np.random.Generator) -> render.Players:
    """Players whose instruments have the notes of their parts; () where the draw finds none.

    Every player is heard: who has no note in the first four fifths of the clip is not named.
    """
    heard = 0.8 * SECONDS * clip.quarters_per_minute / 60
    parts = {
        number: part for number, part in clip.parts().items() if any(n.onset < heard for n in part)
    }
    if len(parts) < len(clip.score.parts):
        return ()  # a part that comes in late
    every = sorted(parts)
    single = [number for number in every if _is_single(parts[number])]

    def able(instruments, numbers):
        pitches = [note.pitch for number in numbers for note in parts[number]]
        return [
            name
            for name in instruments
            if render.INSTRUMENTS[name].lowest <= min(pitches)
            and max(pitches) <= render.INSTRUMENTS[name].highest
        ]

    kinds = ["alone"]
    if 0 in single and len(every) > 1:
        kinds.append("accompanied")
    if single == every and len(every) <= 5:
        kinds.append("band")
    kind = kinds[rng.integers(len(kinds))]
    band = _BANDS[rng.integers(len(_BANDS))]
    if kind == "alone":
        groups = [(_SOLOISTS, every)]
    elif kind == "accompanied":
        groups = [(band, [0]), (_SOLOISTS, every[1:])]
    else:
        groups = [(band, [number]) for number in every]
    players = []
    for instruments, numbers in groups:
        names = able(instruments, numbers)
        if not names:
            return ()
        players.append((names[rng.integers(len(names))], tuple(numbers)))
    return tuple(players)


def _is_single(part: Sequence[PartNote]) -> bool:
    """Whether no two of its notes sound at once (1/32 of overlap is an artefact of notation)."""
    notes = sorted(part)
    return all(a.onset + a.duration <= b.onset + 0.125 for a, b in zip(notes, notes[1:]))


# How much each pitch class belongs to a key on the first of them: Krumhansl & Kessler 1982,
# "Tracing the dynamic changes in perceived tonal organization", probe tone ratings.
_PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}


_ALL_KEYS = [(tonic, mode) for tonic in range(12) for mode in _PROFILES]


def likeliest_key(
    notes: Sequence[PartNote], among: Sequence[tuple[int, str]] = _ALL_KEYS
) -> tuple[int, str]:
    """The key, (tonic's pitch class, mode), whose profile correlates best with what sounds."""
    heard = np.bincount([n.pitch % 12 for n in notes], [n.duration for n in notes], 12)
    return max(among, key=lambda key: np.corrcoef(np.roll(_PROFILES[key[1]], key[0]), heard)[0, 1])


_MAJOR_NAMES = ("C", "D flat", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat",
                "B")  # fmt: skip
_MINOR_NAMES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "G sharp", "A", "B flat",
                "B")  # fmt: skip


def read_scores(whitelist: Sequence[Source] = WHITELIST) -> list[Score]:
    """The scores of a whitelist, by music21.

    Raises UserError, one line, where music21 is missing, or a score's file does not say its
    licence in the words that the whitelist expects.
    """
    render.check_music21()
    import music21

    warnings.simplefilter("ignore", music21.musicxml.xmlObjects.MusicXMLWarning)
    own, parsed, scores = None, {}, []
    for source in whitelist:
        _, _, number = source.path.partition("X:")
        path = OWN_SCORES if number else pathlib.Path(music21.corpus.getWork(source.path))
        if source.says not in " ".join(_text(path).split()):
            raise UserError(f"{path}: expected the words {source.says!r}, {source.licence}")
        if number:
            own = own or music21.converter.parse(path)
            stream = own.getScoreByNumber(int(number))
        else:
            if source.path not in parsed:
                parsed[source.path] = music21.converter.parse(path)
            stream = parsed[source.path]
        scores.append(to_score(source, stream))
    return scores


def _text(path: pathlib.Path) -> str:
    """The text of a score's file; .mxl is a zip archive of MusicXML."""
    if path.suffix != ".mxl":
        return path.read_text(encoding="utf-8", errors="replace")
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.endswith("xml") and "META-INF" not in n]
        return "".join(archive.read(name).decode("utf-8", "replace") for name in names)


def to_score(source: Source, stream: Any) -> Score:
    """A Score from a music21 Score, or from an Opus of one voice each."""
    if hasattr(stream, "scores"):
        streams = [score.toSoundingPitch().parts[0] for score in stream.scores]
    else:
        streams = list(stream.toSoundingPitch().parts)
    numbers = source.parts or range(len(streams))
    measures = [list(streams[number].getElementsByClass("Measure")) for number in numbers]
    first, last = source.measures or (-1, 10**6)
    chosen = [[m for m in part if first <= m.number <= last] for part in measures]
    parts = []
    for number, mine in zip(numbers, chosen, strict=True):
        # From the part's own first measure: in the concertino they disagree before it.
        start, end = 0.0, np.inf
        if mine:
            start, end = (float(m.offset) for m in (mine[0], mine[-1]))
            end += float(mine[-1].duration.quarterLength)
        notes = [n for n in render.part_notes(streams[number]) if start <= n.onset < end]
        parts.append(tuple(n._replace(onset=n.onset - start) for n in notes))
    end = max(note.onset + note.duration for part in parts for note in part)
    if chosen[-1]:
        origin = float(chosen[-1][0].offset)
        starts = [float(measure.offset) - origin for measure in chosen[-1]]
    else:  # music without bars
        origin, starts = 0.0, np.arange(0.0, end, 8.0).tolist()
    keys = _keys(source, streams[numbers[-1]], origin, parts) if source.tonal else ()
    return Score(source, tuple(parts), tuple(starts), float(end), keys)


def _keys(source: Source, stream: Any, origin: float, parts) -> tuple[Key, ...]:
    """The keys of a score's signatures.

    Own scores say major or minor. Files of MusicXML all say major, so there it is the likelier of
    the two relative keys, by what sounds under the signature.
    """
    signatures = [
        (max(0.0, float(k.getOffsetInHierarchy(stream)) - origin), k)
        for k in stream.recurse().getElementsByClass("KeySignature")
    ]
    signatures = [(onset, key) for onset, key in signatures if onset <= parts[-1][-1].onset]
    keys = []
    for number, (onset, signature) in enumerate(signatures):
        if number + 1 < len(signatures) and signatures[number + 1][0] <= onset:
            continue  # one from before the measures that are played
        until = signatures[number + 1][0] if number + 1 < len(signatures) else np.inf
        relative = 7 * signature.sharps % 12
        pair = [(relative, "major"), ((relative + 9) % 12, "minor")]
        if source.path.startswith("X:"):
            pair = [key for key in pair if key[1] == signature.mode]
        notes = [note for part in parts for note in part if onset <= note.onset < until]
        keys.append(Key(onset, *likeliest_key(notes, pair)))
    return tuple(keys)


@dataclasses.dataclass
class ScoresConfig(tfds.core.BuilderConfig):
    """hours: of all splits together. scores: instead of the whitelist's, for tests."""

    hours: float = 2.0
    scores: Sequence[Score] | None = dataclasses.field(default=None, repr=False)


class IndepScores(tfds.core.GeneratorBasedBuilder):
    """Free scores, rendered; see the module. Prepare it with file_format="array_record"."""

    VERSION = tfds.core.Version("1.0.0")
    # TFDS looks beside it for checksums of downloads, of which there are none, by a package that it
    # does not depend on.
    code_path = None
    BUILDER_CONFIGS = [
        ScoresConfig(name="2h", description="Two hours in clips of 10 s.", hours=2.0),
        ScoresConfig(name="10h", description="Ten hours in clips of 10 s.", hours=10.0),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        texts = ("caption", "instruments", "key", "form", "title", "composer", "licence", "source")
        features = dict(
            # Not tfds.features.Audio, which imports TensorFlow.
            audio=tfds.features.Tensor(shape=(None, 1), dtype=np.int16, encoding="bytes"),
            sample_rate=np.int32,
            tempo_bpm=np.int32,
            start=np.float32,  # in the score, quarter notes
            transposed=np.int32,  # semitones
            **{name: tfds.features.Text() for name in texts},
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager) -> dict[str, Any]:
        render.check_tools()
        scores = self.builder_config.scores or read_scores()
        clips = round(self.builder_config.hours * 3600 / SECONDS)
        return {
            split: self._generate_examples(split, plan(scores, split, max(1, round(share * clips))))
            for split, share in SPLITS.items()
        }

    def _generate_examples(
        self, split: str, clips: Sequence[Clip]
    ) -> Iterator[tuple[str, Mapping]]:
        for clip in progress.each(clips, f"render {split}", unit="clips"):
            audio = render.render(clip.midi(), clip.name, SECONDS, SAMPLE_RATE)
            source = clip.score.source
            yield (
                clip.name,
                dict(
                    audio=np.round(audio[:, None] * 32767).astype(np.int16),
                    sample_rate=SAMPLE_RATE,
                    tempo_bpm=clip.tempo_bpm,
                    start=clip.start,
                    transposed=clip.transposed,
                    caption=clip.caption,
                    instruments=", ".join(instrument for instrument, _ in clip.players),
                    key=clip.key,
                    form=source.form,
                    title=source.title,
                    composer=source.composer,
                    licence=f"composition: public domain; score: {source.licence}",
                    source=source.path,
                ),
            )


def prepare(config: str | ScoresConfig = "2h", data_dir: str | None = None) -> pathlib.Path:
    """Renders the dataset, unless it is there already; returns its folder.

    `data_dir` is TFDS's, by default $TFDS_DATA_DIR or ~/tensorflow_datasets. Raises UserError, one
    line that says what to install, where fluidsynth, its sound font or music21 is missing.
    """
    builder = IndepScores(config=config, data_dir=data_dir, file_format="array_record")
    tfds.disable_progress_bar()  # its bars fill a log with carriage returns; ours takes their place
    builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)
