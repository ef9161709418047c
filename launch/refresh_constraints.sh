#!/usr/bin/env bash
# Writes launch/constraints/SET.txt anew: what pip takes today for the package and its extras, for
#   oldest  the lowest release of each dependency that setup.cfg allows
#   newest  the latest of everything
# Run the tests on a set before you commit it.
#
#   PYTHON=python3.11 bash launch/refresh_constraints.sh oldest
#   PYTHON=python3.13 bash launch/refresh_constraints.sh newest
set -euo pipefail
cd "$(dirname "$0")/.."
set=${1:-}
case "$set" in
    # parity is tested on the oldest set alone.
    oldest) extras='[test,dev,scores,parity]' ;;
    newest) extras='[test,dev,scores]' ;;
    *) echo "usage: bash launch/refresh_constraints.sh oldest|newest" >&2; exit 2 ;;
esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ "$set" = oldest ]; then
    # The bounds themselves, so that they are what is tested: jax>=0.10.2 becomes jax==0.10.2.*
    sed -n '/^install_requires/,/^$/s/^ *\([A-Za-z_-]*\)>=\([0-9.]*\).*/\1==\2.*/p' setup.cfg >"$folder/pins"
else
    touch "$folder/pins"
fi
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$folder/pins" -e ".$extras"
"$folder/venv/bin/python" -m pip check
# Without the package, without local versions such as 2.13.0+cpu.
"$folder/venv/bin/python" -m pip list --format=freeze --exclude indep_jax --exclude-editable |
    grep -v -E '^(pip|setuptools|wheel)==' | sed 's/+.*//' >"$folder/found"
{
    echo "# $("$folder/venv/bin/python" -V), $(date +%Y-%m-%d): bash launch/refresh_constraints.sh $set"
    cat "$folder/found"
} >"launch/constraints/$set.txt.tmp"
mv "launch/constraints/$set.txt.tmp" "launch/constraints/$set.txt"
wc -l "launch/constraints/$set.txt"
