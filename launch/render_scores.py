"""Renders the dataset indep_scores: python launch/render_scores.py --config=2h

Then `tfds:indep_scores/2h` is a source. Needs music21 (pip install indep_jax[scores]), fluidsynth
and FluidR3_GM.sf2 (apt-get install fluidsynth fluid-soundfont-gm).
"""

from absl import flags

from indep_jax.datasets.scores import builder
from indep_jax.support import command

_CONFIG = flags.DEFINE_enum("config", "2h", ["2h", "10h"], "Hours of music.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where TFDS keeps datasets; default $TFDS_DATA_DIR or ~/tensorflow_datasets."
)


def main() -> None:
    print(builder.prepare(_CONFIG.value, _DATA_DIR.value))


if __name__ == "__main__":
    command.run(main)
