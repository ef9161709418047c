"""Music to tokens, and back.

    python -m indep_jax.encode --codec=DIR --source=folder:PATH --output=DIR [--split=all] [--stereo]
    python -m indep_jax.encode --codec=DIR --tokens=DIR --output=DIR
    python -m indep_jax.encode --tokenizer=transformers:dac:PATH --source=folder:PATH --output=FILE.npz

The first writes a token store (indep_jax/data/tokens.py): ArrayRecord shards of about
--shard_seconds of music, and tokens.json; with --stereo, of a codec of one channel, the codes of left
and right by turns, as stereo MusicGen reads them. The second decodes a store to one wav (16 bit) per file.
Files of any length take the memory of one window of 10 s. Interrupted, the same command goes on:
shards and files that are complete are kept. The third writes the codes of another tokenizer, DAC or
Mimi in transformers (extra `parity`): one integer array [frames, codebooks] for each file, by its
name, as indep_jax.measure --codes reads.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from absl import flags

from indep_jax.support import command
from indep_jax.support.errors import UserError
from indep_jax.support.files import begin_output, naming, replacing

if TYPE_CHECKING:
    from indep_jax.data import sources, tokens

SHARD_SECONDS = 3_600.0


def encode(
    codec,
    source: sources.AudioSource,
    output: str,
    shard_seconds: float,
    max_unreadable: float = 0.1,
) -> dict:
    """Writes the token store of a source; returns the content of tokens.json.

    Files that break while they are read are named and left out. Raises UserError, one line, where
    they are more than a share `max_unreadable` of all (the shard is not kept: a disk that was gone
    for a while leaves no hole), and where `output` holds the store of another codec or other music.
    """
    from indep_jax.data import tokens
    from indep_jax.inference.encode_files import encode_files, music_bar

    folder = pathlib.Path(output)
    shards = _shards(source, shard_seconds)
    info = dict(
        codec=codec.fingerprint,
        sample_rate=codec.sample_rate,
        frame_rate=codec.frame_rate,
        codebooks=codec.codebooks,
        codebook_size=codec.codebook_size,
        source=source.source,
        split=source.split,
        files=len(source.files),
        seconds=round(source.seconds, 3),
        shards=len(shards),
        shard_seconds=shard_seconds,
    )
    begin_output(folder / tokens.INFO, info)
    errors: dict[str, str] = {}
    with music_bar(source.seconds, "encode") as bar:
        for number, files in enumerate(shards):
            path = tokens.shard_path(folder, number, len(shards))
            if tokens.index_path(path).exists() and path.exists():
                bar.update(sum(file.seconds for file in files))
                continue
            items = encode_files(
                codec,
                source,
                files,
                errors=errors,
                max_unreadable=max_unreadable,
                advance=bar.update,
            )
            small = np.uint16 if codec.codebook_size <= 2**16 else np.int32
            tokens.write_shard(
                path, (item._replace(codes=item.codes.astype(small)) for item in items)
            )
    return info


def _shards(source: sources.AudioSource, seconds: float) -> list[list[sources.AudioFile]]:
    """The files in order, in runs that end with the one that reaches `seconds`."""
    shards: list[list[sources.AudioFile]] = [[]]
    for file in source.files:
        if sum(f.seconds for f in shards[-1]) >= seconds:
            shards.append([])
        shards[-1].append(file)
    return shards


def encode_codes(
    tokenizer, source: sources.AudioSource, output: str, max_unreadable: float = 0.1
) -> int:
    """Writes an .npz of one array [frames, codebooks] for each file of a source, by its name.

    Returns how many there are. Raises UserError as `encode` does for files that break.
    """
    from indep_jax.data import sources
    from indep_jax.inference.encode_files import codes_by_origin

    path = pathlib.Path(output)
    found = codes_by_origin(tokenizer, source, max_unreadable=max_unreadable)
    codes = {sources.printable(name): codes_TxK for name, codes_TxK in found.items()}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **codes)
    return len(codes)


def decode(codec, store: tokens.Store, output: str) -> int:
    """Writes a wav per record of a store; returns how many were written (others were there).

    Raises UserError, one line, for a store of another codec, a name that leaves `output`, and where
    `output` holds what another codec or store gave.
    """
    from indep_jax.codec.model import Encoded
    from indep_jax.inference.encode_files import music_bar

    made_by = store.info["codec"]
    if made_by != codec.fingerprint:
        raise UserError(f"the tokens are of codec {made_by}, and this one is {codec.fingerprint}")
    folder = pathlib.Path(output).resolve()
    begin_output(
        folder / "decoded.json", {key: store.info[key] for key in ("codec", "source", "split")}
    )
    written = 0
    with music_bar(store.info["seconds"], "decode") as bar:
        for index in range(len(store)):
            item = store[index]
            path = (folder / (item.name + ".wav")).resolve()
            if not path.is_relative_to(folder):
                raise UserError(f"record {index} is named {item.name!r}, outside of {output}")
            seconds = item.length / codec.sample_rate
            if path.exists():
                bar.update(seconds)
                continue
            encoded = Encoded(item.codes, item.scales, item.length)
            form = codec.sample_rate, codec.channels, "PCM_16"
            with (
                naming(path, soundfile.LibsndfileError),
                replacing(path) as temporary,
                soundfile.SoundFile(os.fsencode(temporary), "w", *form, format="WAV") as file,
            ):
                for block in codec.decode_long(encoded):
                    file.write(np.clip(block, -1, 1))
                    bar.update(len(block) / codec.sample_rate)
            written += 1
    return written


def main() -> None:
    options = flags.FLAGS
    if bool(options.source) == bool(options.tokens):
        raise UserError("expected --source, music to encode, or --tokens, a store to decode")
    if options.shard_seconds <= 0:
        raise UserError(f"--shard_seconds: expected more than 0, not {options.shard_seconds}")
    if bool(options.codec) == bool(options.tokenizer):
        raise UserError("expected --codec, or --tokenizer, one that transformers runs")
    if options.tokenizer and not (options.source and options.output.endswith(".npz")):
        raise UserError("--tokenizer: expected --source and --output=FILE.npz")
    if options.source and options.stereo and options.bandwidth is not None:
        raise UserError("--stereo: expected all of the codec's codebooks, without --bandwidth")

    from indep_jax import inference
    from indep_jax.data import sources, tokens
    from indep_jax.hub import tokenizers

    if options.tokenizer:
        source = sources.open_source(options.source, options.split)
        tokenizer = tokenizers.load(options.tokenizer)
        written = encode_codes(tokenizer, source, options.output, options.max_unreadable)
        print(f"{options.output}: the codes of {written} files")
        return
    if options.source:
        codec = inference.load_codec(options.codec, bandwidth=options.bandwidth)
        if options.stereo:
            codec = inference.PairedCodec(codec)
        source = sources.open_source(options.source, options.split)
        info = encode(codec, source, options.output, options.shard_seconds, options.max_unreadable)
        print(f"{options.output}: {json.dumps(info)}")
    else:
        store = tokens.Store(options.tokens)
        codec = inference.load_codec_of(options.codec, store.info["codebooks"])
        written = decode(codec, store, options.output)
        print(f"{options.output}: {written} of {len(store)} files written, the others were there")


if __name__ == "__main__":
    flags.DEFINE_string(
        "codec",
        None,
        "Workdir of indep_jax.train, Hugging Face folder, hf:NAME, or a model that ships, such as "
        "small.",
    )
    flags.DEFINE_float(
        "bandwidth", None, "kbit/s of a codec that has several; default the largest."
    )
    flags.DEFINE_bool("stereo", False, "Codes of two channels of a codec that has one.")
    flags.DEFINE_string("tokenizer", None, "transformers:dac:PATH or transformers:mimi:PATH.")
    flags.DEFINE_string("source", None, "Music to encode, such as folder:PATH.")
    flags.DEFINE_enum("split", "all", ["train", "valid", "test", "all"], "Split of the source.")
    flags.DEFINE_string("tokens", None, "Token store to decode.")
    flags.DEFINE_string("output", None, "Folder, or FILE.npz, to write.", required=True)
    flags.DEFINE_float("max_unreadable", 0.1, "Share of the files that may be unreadable.")
    flags.DEFINE_float("shard_seconds", SHARD_SECONDS, "Seconds of music in a shard.")
    command.run(main)
