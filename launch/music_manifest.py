"""Writes DEST/manifest.json for the music of fetch_music.sh: python music_manifest.py DEST.

The split is by composition: two recordings of one piece, or two stems of one song, never fall on
different sides. wesnoth-1.16-music is test and is never trained on.
"""

import json
import os
import pathlib
import sys

import soundfile

LICENCES = {
    "warzone2100-music": "GPL-2.0-or-later",
    "hyperrogue-music": "CC-BY-SA-3.0",
    "fretsonfire-songs-muldjord": "CC-BY-SA-3.0",
    "wesnoth-1.16-music": "GPL-2.0-or-later",
}
# Says so in the license.txt of each album.
DUAL_LICENCE = "CC-BY-SA-3.0-or-later OR GPL-2.0-or-later"
# Recordings derived from the GPL-only original soundtrack.
GPL_ONLY = ("track3_enhanced",)

# Chosen by hand, to hold out every package and composer but the original Warzone one: about 9% of
# the minutes.
VALID = {
    "warzone2100-music/track14",
    "warzone2100-music/track19",
    "hyperrogue-music/hr-domina-hunting",
    "hyperrogue-music/hr-savino-ocean",
    "hyperrogue-music/hr-savino-palace",
    "hyperrogue-music/hr3-icyland",
    "hyperrogue-music/hr3-jungle",
    "hyperrogue-music/hr3-motion",
    "fretsonfire-songs-muldjord/chaos_god",
}
# hyperrogue-music's copyright file: its tags name the wrong titles.
HYPERROGUE_ARTISTS = {
    "hr3": "Shawn Parrotte",
    "hr-domina": "Lincoln Domina",
    "hr-savino": "Will Savino",
}
# Not music: ten seconds of silence for the game's menu.
SKIPPED = {"wesnoth-1.16-music/silence.ogg"}


def describe(package: str, path: pathlib.Path, tags: dict[str, str]) -> dict[str, object]:
    """Title, artist, licence and composition of one file of a package."""
    stem = path.stem
    licence, artist = LICENCES[package], tags.get("artist", "")
    title, composition = stem.replace("_", " ").replace("-", " ").title(), stem
    if package == "warzone2100-music":
        composition = stem.removesuffix("_enhanced")
        album = path.parent / "album.json"
        artist = "Martin Severn"
        if album.exists():
            tracks = json.loads(album.read_text(encoding="utf-8"))["tracks"]
            track = next(track for track in tracks if track["filename"] == path.name)
            title, artist = track["title"], track["author"]
        if (path.parent / "license.txt").exists() and stem not in GPL_ONLY:
            licence = DUAL_LICENCE
    elif package == "hyperrogue-music":
        prefix = next(prefix for prefix in HYPERROGUE_ARTISTS if stem.startswith(prefix))
        title = title.split(" ", prefix.count("-") + 1)[-1]
        artist = HYPERROGUE_ARTISTS[prefix]
    elif package == "fretsonfire-songs-muldjord":  # stems: guitar, and the rest of the band
        composition = path.parent.name
        title = f"{composition.replace('_', ' ').title()} ({stem})"
    else:
        title = tags.get("title", title)
    composition = f"{package}/{composition}"
    return dict(title=title, artist=artist, licence=licence, composition=composition)


def main(dest: pathlib.Path) -> None:
    files, bad = [], []
    for package in LICENCES:
        for path in sorted((dest / package).rglob("*")):
            relative = path.relative_to(dest).as_posix()
            if path.suffix not in (".ogg", ".opus") or relative in SKIPPED:
                continue
            try:
                with soundfile.SoundFile(path) as audio:
                    seconds, tags = audio.frames / audio.samplerate, audio.copy_metadata()
            except soundfile.LibsndfileError as error:
                bad.append(f"{relative} ({error})")
                continue
            entry = describe(package, path, tags)
            split = "valid" if entry["composition"] in VALID else "train"
            if package == "wesnoth-1.16-music":
                split = "test"
            entry.update(package=package, split=split, seconds=round(seconds, 3))
            files.append(dict(path=relative, **entry))
    if bad:
        sys.exit(f"music_manifest: {len(bad)} unreadable files: {', '.join(bad)}")
    licence = "by file; the copyright file of each package is beside its music"
    partial = dest / "manifest.json.partial"
    partial.write_text(
        json.dumps(dict(licence=licence, files=files), indent=1, ensure_ascii=False) + "\n",
        encoding="utf-8",
    )
    os.replace(partial, dest / "manifest.json")
    for split in ("train", "valid", "test"):
        chosen = [file for file in files if file["split"] == split]
        minutes = sum(file["seconds"] for file in chosen) / 60
        pieces = len({file["composition"] for file in chosen})
        print(f"{split}: {len(chosen)} files, {pieces} compositions, {minutes:.1f} minutes")
    print(f"manifest: {dest / 'manifest.json'}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
