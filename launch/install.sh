# Sourced by the other scripts: an environment with this package, made once.
#   source launch/install.sh EXTRAS     EXTRAS such as [test] or [test,parity], or ''
# Environment: PYTHON, the interpreter (python3); VENV, the environment (.venv); CONSTRAINTS, the set of
# versions that was tested: oldest, newest (launch/constraints/), or none for whatever pip takes. By default
# oldest on Python 3.11, for which JAX 0.11 and later are not made, else newest.
VENV=${VENV:-.venv}
if [ ! -x "$VENV/bin/python" ]; then
    "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "${PYTHON:-python3}: not found, or older than Python 3.11; set PYTHON to a newer one" >&2
        exit 2
    }
    "${PYTHON:-python3}" -m venv "$VENV" || {
        rm -rf "$VENV"
        echo "${PYTHON:-python3} -m venv failed; on Debian: apt-get install python3-venv" >&2
        exit 2
    }
fi
if [ -z "${CONSTRAINTS:-}" ]; then
    CONSTRAINTS=newest
    "$VENV/bin/python" -c 'import sys; sys.exit(sys.version_info >= (3, 12))' && CONSTRAINTS=oldest
fi
constraints=launch/constraints/$CONSTRAINTS.txt
if [ "$CONSTRAINTS" = none ]; then
    constraints=/dev/null
elif [ ! -e "$constraints" ]; then
    echo "CONSTRAINTS=$CONSTRAINTS: expected oldest, newest or none" >&2
    exit 2
fi
# The stamp keeps a second run from asking the package index again.
stamp="$VENV/installed-$CONSTRAINTS-$(printf '%s' "$1" | tr -c 'a-z' '-')"
if [ ! -e "$stamp" ] || [ setup.cfg -nt "$stamp" ] || [ "$constraints" -nt "$stamp" ]; then
    echo "installing into $VENV" >&2
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c "$constraints" -e ".$1"
    "$VENV/bin/python" -m pip check --disable-pip-version-check >&2
    touch "$stamp"
fi
export PATH="$(cd "$VENV/bin" && pwd):$PATH"
