#!/usr/bin/env bash
# Fetches about seven hours of freely licensed recorded music from the Debian archive:
#
#     bash launch/fetch_music.sh DEST
#
# DEST/PACKAGE/... holds the audio beside its licence texts, DEST/manifest.json the titles,
# licences, compositions and the train/valid/test split. Train with
# --config.data.source=folder:DEST. Packages are unpacked, never installed, so no root is needed.
# Running it again fetches only what is missing; a package appears complete or not at all.
set -euo pipefail

fail() { echo "fetch_music: $*" >&2; exit 2; }

[ $# -eq 1 ] || fail "expected one argument, the folder to put the music in: fetch_music.sh DEST"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1" || fail "cannot make the folder $1"
dest=$(cd "$1" && pwd)
command -v apt-get >/dev/null && command -v dpkg >/dev/null \
  || fail "apt-get and dpkg not found: expected a Debian or Ubuntu system (a container will do)"

python=${PYTHON:-}
for candidate in "$here/../.venv/bin/python" python3 python; do
  [ -n "$python" ] && break
  "$candidate" -c "import soundfile" 2>/dev/null && python=$candidate
done
[ -n "$python" ] || fail "no Python with soundfile found: install the package first, or set PYTHON"

partial=$dest/.partial
trap 'rm -rf "$partial"' EXIT

# apt with its state in a folder of ours, as a last resort: works without root and never touches
# the system's own lists.
private=(-o "Dir::State::lists=$partial/lists" -o "Dir::Cache=$partial/cache")
# apt otherwise drops to a user who cannot write here.
sandbox=(-o "APT::Sandbox::User=$(id -un)")

download() { # PACKAGE: leaves one .deb in the current folder
  apt-get "${sandbox[@]}" -qq download "$1" 2>/dev/null && return
  if [ ! -d "$partial/lists" ]; then
    mkdir -p "$partial/lists/partial" "$partial/cache/archives/partial"
    apt-get "${sandbox[@]}" "${private[@]}" -qq update \
      || fail "apt-get update failed: expected a reachable Debian or Ubuntu mirror"
  fi
  apt-get "${sandbox[@]}" "${private[@]}" -qq download "$1" \
    || fail "package $1 is not in this system's apt sources (Debian 12 has it)"
}

fetch() { # PACKAGE FOLDER: the folder of PACKAGE that holds the music becomes DEST/PACKAGE
  [ -d "$dest/$1" ] && return
  echo "fetching $1"
  mkdir -p "$partial/$1"
  (cd "$partial/$1" && download "$1" && dpkg -x ./*.deb tree)
  local music=("$partial/$1/tree"/$2) # unquoted: the folder may hold a version
  [ -d "${music[0]}" ] || fail "package $1 has no folder $2, where its music was expected"
  cp "$partial/$1/tree/usr/share/doc/$1/copyright" "${music[0]}/copyright"
  mv "${music[0]}" "$dest/$1"
  rm -rf "${partial:?}/$1"
}

rm -rf "$partial"
fetch warzone2100-music usr/share/games/warzone2100/music
fetch hyperrogue-music usr/share/hyperrogue/music
fetch fretsonfire-songs-muldjord usr/share/games/fretsonfire/data/songs/muldjord
fetch wesnoth-1.16-music 'usr/share/games/wesnoth/*/data/core/music'
"$python" "$here/music_manifest.py" "$dest"
