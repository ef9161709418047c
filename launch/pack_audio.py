"""Packs music into ArrayRecord shards, which `array_record:GLOB` reads.

    python launch/pack_audio.py --source=folder:music --output=packed --sample_rate=16000
    python -m indep_jax.train --config.data.source='array_record:packed/*.array_record' ...

Training reads them without decoding or resampling. Interrupted, the same command goes on.
"""

from absl import flags

from indep_jax.support import command


def main() -> None:
    from indep_jax.data import records

    options = flags.FLAGS
    paths = records.pack(
        options.source,
        options.output,
        sample_rate=options.sample_rate,
        channels=options.channels,
        seconds=options.seconds,
        shards=options.shards,
    )
    print(f"{options.output}: {len(paths)} shards")


if __name__ == "__main__":
    flags.DEFINE_string("source", None, "Music: folder:PATH or sample:.", required=True)
    flags.DEFINE_string("output", None, "Folder to write to.", required=True)
    flags.DEFINE_integer("sample_rate", None, "Hz, the codec's.", required=True)
    flags.DEFINE_integer("channels", 1, "Channels, the codec's.")
    flags.DEFINE_float("seconds", 30.0, "The longest piece of a file in one record.")
    flags.DEFINE_integer("shards", 1, "Shards a split.")
    command.run(main)
