"""The training steps as pure functions: they run wherever jax and flax do, on plain configs."""

import subprocess
import sys

ALLOWED = "jax flax optax chex numpy"


def test_the_steps_import_nothing_but_jax_flax_optax_and_chex():
    program = f"""
import sys
for name in {ALLOWED!r}.split():
    __import__(name)
import flax.linen
before = set(sys.modules)
import indep_jax.tasks.codec_steps, indep_jax.tasks.lm_steps
more = {{name.split(".")[0] for name in set(sys.modules) - before}}
print(*sorted(more - sys.stdlib_module_names - set({ALLOWED!r}.split())))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.split() == ["indep_jax"], run.stdout + run.stderr
