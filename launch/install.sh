# Sourced by the other scripts: an environment with this package, made once.
#   source launch/install.sh EXTRAS     EXTRAS such as [test] or [test,parity], or ''
# Environment: PYTHON, the interpreter (python3); VENV, the environment (.venv).
VENV=${VENV:-.venv}
if [ ! -x "$VENV/bin/python" ]; then
    "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "${PYTHON:-python3} is older than Python 3.11: set PYTHON to a newer one" >&2
        exit 2
    }
    "${PYTHON:-python3}" -m venv "$VENV"
fi
# The stamp keeps a second run from asking the package index again.
stamp="$VENV/installed-$(printf '%s' "$1" | tr -c 'a-z' '-')"
if [ ! -e "$stamp" ] || [ setup.cfg -nt "$stamp" ]; then
    echo "installing into $VENV" >&2
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e ".$1"
    touch "$stamp"
fi
export PATH="$(cd "$VENV/bin" && pwd):$PATH"
