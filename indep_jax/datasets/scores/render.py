"""Notes to sound: General MIDI instruments, MIDI files, fluidsynth, and words for what plays.

Of music21 this knows the objects that it is given. Nothing here is needed to train or measure.
"""

from __future__ import annotations

import collections
import importlib.util
import pathlib
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import soundfile

from indep_jax.support.errors import UserError

SOUND_FONT = "/usr/share/sounds/sf2/FluidR3_GM.sf2"  # MIT licence; Debian: fluid-soundfont-gm

_PEAK = 10 ** (-3 / 20)
_FADE_SECONDS = 0.020
_TICKS = 480  # MIDI ticks a quarter note
_DRUM_CHANNEL = 9
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}


class Instrument(NamedTuple):
    """A General MIDI program, counted from 0, and the range in which it sounds like itself."""

    program: int
    lowest: int  # MIDI numbers
    highest: int


INSTRUMENTS = {
    "piano": Instrument(0, 21, 108),
    "electric piano": Instrument(4, 28, 103),
    "harpsichord": Instrument(6, 29, 89),
    "vibraphone": Instrument(11, 53, 89),
    "marimba": Instrument(12, 45, 96),
    "church organ": Instrument(19, 36, 96),
    "accordion": Instrument(21, 41, 93),
    "nylon guitar": Instrument(24, 40, 83),
    "violin": Instrument(40, 55, 100),
    "viola": Instrument(41, 48, 88),
    "cello": Instrument(42, 36, 76),
    "contrabass": Instrument(43, 28, 60),
    "pizzicato strings": Instrument(45, 28, 96),
    "harp": Instrument(46, 24, 103),
    "string ensemble": Instrument(48, 28, 96),
    "choir": Instrument(52, 40, 84),
    "trumpet": Instrument(56, 54, 86),
    "trombone": Instrument(57, 40, 72),
    "tuba": Instrument(58, 26, 65),
    "French horn": Instrument(60, 41, 77),
    "alto saxophone": Instrument(65, 49, 80),
    "oboe": Instrument(68, 58, 91),
    "bassoon": Instrument(70, 34, 72),
    "clarinet": Instrument(71, 50, 91),
    "flute": Instrument(73, 59, 96),
    "recorder": Instrument(74, 60, 98),
}

Players = Sequence[tuple[str, Sequence[int]]]  # instrument, and the parts of the score it plays


class PartNote(NamedTuple):
    """A note of a score's part; times in quarter notes."""

    onset: float
    duration: float
    pitch: int  # MIDI number, as it sounds
    downbeat: bool


class Note(NamedTuple):
    """A note as it is played; times in quarter notes."""

    player: int
    onset: float
    duration: float
    pitch: int
    velocity: int


def check_tools(sound_font: str = SOUND_FONT) -> None:
    """Raises UserError, one line that says what to install, where rendering is not possible."""
    if not shutil.which("fluidsynth"):
        raise UserError("fluidsynth is missing: apt-get install fluidsynth")
    if not pathlib.Path(sound_font).is_file():
        raise UserError(f"sound font {sound_font} is missing: apt-get install fluid-soundfont-gm")


def check_music21() -> None:
    """Raises UserError, one line, where music21 is not installed."""
    if importlib.util.find_spec("music21") is None:
        raise UserError("music21 is missing: pip install indep_jax[scores]")


def part_notes(part: Any) -> Iterator[PartNote]:
    """The notes of a music21 part at sounding pitch: ties joined, grace notes left out."""
    for element in part.stripTies().flatten().notes:
        if element.quarterLength > 0:
            for pitch in element.pitches:
                yield PartNote(
                    float(element.offset),
                    float(element.quarterLength),
                    pitch.midi,
                    element.beat == 1,
                )


def arrange(players: Players, parts: Mapping[int, Sequence[PartNote]]) -> list[Note]:
    """The notes of parts as players play them: melody over accompaniment, bars that are heard."""
    notes = []
    for player, (_, played) in enumerate(players):
        for part in played:
            velocity = 92 - 10 * (part != played[0]) - 10 * (player > 0)
            notes += [
                Note(player, n.onset, n.duration, n.pitch, velocity + 8 * n.downbeat)
                for n in parts[part]
            ]
    return notes


def midi_file(players: Players, notes: Sequence[Note], quarters_per_minute: float) -> bytes:
    """A standard MIDI file, format 0: a channel a player, so that unisons do not cut each other."""
    channels = [c for c in range(16) if c != _DRUM_CHANNEL]
    microseconds = round(60e6 / quarters_per_minute)
    # Sorted by tick, then note-offs before note-ons of the same tick.
    events = [(0, 0, b"\xff\x51\x03" + microseconds.to_bytes(3, "big"))]
    for player, (instrument, _) in enumerate(players):
        program = INSTRUMENTS[instrument].program
        events.append((0, 0, bytes([0xC0 | channels[player], program])))
    for note in notes:
        channel = channels[note.player]
        on = round(note.onset * _TICKS)
        off = max(on + 1, round((note.onset + note.duration) * _TICKS) - 8)
        events.append((on, 2, bytes([0x90 | channel, note.pitch, note.velocity])))
        events.append((off, 1, bytes([0x80 | channel, note.pitch, 0])))
    track, now = b"", 0
    for tick, _, message in sorted(events):
        track += _variable_length(tick - now) + message
        now = tick
    track += b"\x00\xff\x2f\x00"
    header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, _TICKS)
    return header + b"MTrk" + struct.pack(">I", len(track)) + track


def _variable_length(value: int) -> bytes:
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(0x80 | value & 0x7F)
    return bytes(reversed(digits))


def render(
    midi: bytes, name: str, seconds: float, sample_rate: int, sound_font: str = SOUND_FONT
) -> np.ndarray:
    """Mono samples [time] of a MIDI file: `seconds` from the first sound on, ends faded, at -3 dB.

    Raises UserError, one line that names `name`, where fluidsynth fails or the music is shorter.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, wav = pathlib.Path(folder, "in.mid"), pathlib.Path(folder, "out.wav")
        path.write_bytes(midi)
        command = ["fluidsynth", "-ni", "-q", "-r", str(sample_rate), "-g", "0.6"]
        command += ["-F", str(wav), sound_font, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not wav.is_file():
            raise UserError(f"{name}: fluidsynth failed: {' '.join(done.stderr.split())}")
        audio, found_rate = soundfile.read(wav, always_2d=True)
    if found_rate != sample_rate:
        raise UserError(f"{name}: fluidsynth wrote {found_rate} Hz, expected {sample_rate}")
    audio = audio.mean(axis=1)
    frames, fade = round(seconds * sample_rate), round(_FADE_SECONDS * sample_rate)
    audible = np.flatnonzero(np.abs(audio) > 1e-3 * np.abs(audio).max(initial=0.0))
    if not audible.size:
        raise UserError(f"{name}: fluidsynth rendered silence")
    # The fade-in falls before the first attack, not on it.
    audio = np.concatenate([np.zeros(fade), audio])[audible[0] :]
    if audio.size < frames:
        raise UserError(f"{name}: rendered {audio.size / sample_rate:.2f} s, expected {seconds}")
    audio = audio[:frames].copy()
    ramp = np.linspace(0.0, 1.0, fade)
    audio[:fade] *= ramp
    audio[-fade:] *= ramp[::-1]
    return audio * (_PEAK / np.abs(audio).max())


def caption(tempo_bpm: int, form: str, key: str, players: Players) -> str:
    """What is played, in a sentence; `key` such as "E flat major", or "" where it has none."""
    counts = collections.Counter(instrument for instrument, _ in players)
    names = [f"{_NUMBERS[n]} {name}s" if n > 1 else name for name, n in counts.items()]
    band = " and ".join([", ".join(names[:-1])] * (len(names) > 1) + names[-1:])
    pace = "slow" if tempo_bpm < 76 else "mid-tempo" if tempo_bpm < 112 else "fast"
    where = f" in {key}" if key else ""
    return f"A {pace} {form}{where} played on {band}, {tempo_bpm} beats per minute"
