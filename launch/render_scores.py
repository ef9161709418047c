"""Renders the dataset indep_scores: python launch/render_scores.py --config=2h

Then `tfds:indep_scores/2h` is a source. Needs music21 (pip install indep_jax[scores]), fluidsynth
and FluidR3_GM.sf2 (apt-get install fluidsynth fluid-soundfont-gm).
"""

from absl import flags

from indep_jax.support import command


def main() -> None:
    from indep_jax.datasets.scores import builder

    print(builder.prepare(flags.FLAGS.config, flags.FLAGS.data_dir))


if __name__ == "__main__":
    flags.DEFINE_enum("config", "2h", ["2h", "10h"], "Hours of music.")
    flags.DEFINE_string(
        "data_dir",
        None,
        "Where TFDS keeps datasets; default $TFDS_DATA_DIR or ~/tensorflow_datasets.",
    )
    command.run(main)
