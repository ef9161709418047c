#!/usr/bin/env bash
# The default tests: no torch, no network beyond the package index.
#
#   bash launch/test.sh [pytest arguments]
#
# Environment: PYTHON (python3), VENV (.venv).
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/install.sh '[test]'
python -m pytest -n 2 --dist worksteal -m 'not parity' "$@"
