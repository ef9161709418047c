#!/usr/bin/env bash
# The default tests on the Python of another Debian release, in a folder of its own: for machines whose
# own Python is older than the newest supported set (launch/constraints/newest.txt) asks for.
#
#   bash launch/test_in.sh SUITE [pytest arguments]      SUITE such as trixie, with Python 3.13
#
# Needs root (debootstrap, mount, chroot) and a Debian mirror. Nothing outside the folder is changed, but
# for debootstrap, which is installed where it is missing.
# Environment: DEBIAN, the folder (~/.cache/indep_jax/debian-SUITE), made once and used again; MIRROR, by
# default that of this machine's apt sources; CONSTRAINTS as for launch/install.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "launch/test_in.sh: $1" >&2; exit 2; }

suite=${1:?usage: bash launch/test_in.sh SUITE [pytest arguments]}
shift
[ "$(id -u)" = 0 ] || fail "needs root, for debootstrap and chroot"
debian=${DEBIAN:-${XDG_CACHE_HOME:-$HOME/.cache}/indep_jax/debian-$suite}
if [ -z "${MIRROR:-}" ]; then
    # Both forms of apt's sources: "URIs: http://..." and "deb [options] http://... suite component".
    MIRROR=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true; } |
        sed -n -e 's/^URIs: *\([^ ]*\).*/\1/p' -e 's/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' |
        grep -m 1 -E '/debian/?$') || fail "no Debian mirror in apt's sources: set MIRROR"
fi

if [ ! -e "$debian/made" ]; then
    if ! command -v debootstrap >/dev/null; then
        { apt-get update && apt-get install -y debootstrap; } >/dev/null 2>&1 ||
            fail "debootstrap is missing, and apt-get could not install it"
    fi
    echo "making Debian $suite in $debian from $MIRROR" >&2
    rm -rf "$debian"
    mkdir -p "$debian"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates,git \
        "$suite" "$debian" "$MIRROR" >"$debian.log" 2>&1 || fail "debootstrap failed: see $debian.log"
    touch "$debian/made"
fi

# What pip needs to reach the package index as it does here.
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/xdg/pip /etc/ssl/certs/ca-certificates.crt \
    "$HOME/.config/pip" "$HOME/.pip"; do
    [ ! -e "$file" ] || { mkdir -p "$debian$(dirname "$file")" && cp -RL "$file" "$debian$(dirname "$file")/"; }
done

mounted=()
leave() {
    for place in "${mounted[@]}"; do umount -l "$place"; done
}
trap leave EXIT
for place in proc dev; do
    mountpoint -q "$debian/$place" && continue
    mount --rbind "/$place" "$debian/$place" && mount --make-rslave "$debian/$place" ||
        fail "cannot mount /$place in $debian"
    mounted=("$debian/$place" "${mounted[@]}")
done

# The working tree as git sees it, with what is not committed yet. The environment and the compiled
# programs of an earlier run stay.
mkdir -p "$debian/indep_jax"
find "$debian/indep_jax" -mindepth 1 -maxdepth 1 ! -name '.venv' ! -name '.pytest_cache' -exec rm -rf {} +
git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    tar --null -T - -c | tar -x -C "$debian/indep_jax"

chroot "$debian" env -u PYTHON -u VENV -u PYTHONPATH -u LD_LIBRARY_PATH HOME=/root LANG=C.UTF-8 \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    bash /indep_jax/launch/test.sh "$@"
