#!/usr/bin/env bash
# The default tests: no torch, no network beyond the package index.
#
#   bash launch/test.sh [pytest arguments]
#
# Without arguments, all tests, and then once more those marked `default_flags`, under XLA's own
# flags: the programs as they are compiled for a user.
# Environment: PYTHON (python3), VENV (.venv), CONSTRAINTS: see launch/install.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/install.sh '[test]'
python -m pytest -n 2 --dist worksteal -m 'not parity' "$@"
if [ $# = 0 ]; then
    XLA_FLAGS= python -m pytest -n 2 --dist worksteal -m default_flags
fi
