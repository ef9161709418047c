#!/usr/bin/env bash
# From a machine with Python 3.11 to a page to look at and to listen to: makes .venv, installs,
# trains the small codec with the independence loss on the package's sample music, evaluates it.
# Ten minutes on two cores. Run again, it goes on where it was.
#
#   bash launch/quickstart.sh [--config.FIELD=VALUE ...]
#
# Environment: PYTHON (python3), VENV (.venv), OUTPUT (runs/quickstart).
set -euo pipefail
cd "$(dirname "$0")/.."
OUTPUT=${OUTPUT:-runs/quickstart}
# Large arrays in huge pages: glibc then has less to ask of the system.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
source launch/install.sh ''

python -m indep_jax.train --config=configs/quickstart.py --workdir="$OUTPUT" "$@"
# Of all clips, not of the held-out ones alone: three clips are too few to measure dependence on.
python -m indep_jax.evaluate --codec="$OUTPUT" --source=sample: --split=all --items=20 \
    --dependence --output="$OUTPUT/report"
