"""Gather the pictures of a user's class folders, by part and class, with their digests and faults."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_from_bytes

from bench.data.imagefile import escapes
from bench.data.spec import DatasetSpec
from bench.data.walk import Listing, Unlisted, below, look
from bench.errors import BenchError
from bench.files import sha256_file
from bench.names import printable, shown

FLAT = "not in a class folder"
ALL = "all"  # the name of the only part of a folder without a split


@dataclass
class Gathered:
    """Everything that lies below a root, part by part.

    ``homes`` maps a part to its folder; without a split it is ``{ALL: ""}``. ``names`` maps a class folder to
    its class name, in plain order. ``paths`` maps a part to the pictures of each class folder. ``hashes``
    maps a picture to the SHA-256 of its bytes. ``real`` maps a picture to its file if the file's own name
    cannot be stored. ``bad`` maps a class folder to the reason why it cannot be used. ``unreadable`` holds
    pairs (file, reason) and ``passed`` pairs (reason, path) of what is left out. ``outside`` are pictures
    that lie outside the root, behind links.
    """

    root: Path
    homes: Mapping[str, str]
    names: dict[str, str] = field(default_factory=dict)
    paths: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    real: dict[str, str] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    passed: list[tuple[str, str]] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    @property
    def learnt(self) -> dict[str, list[str]]:
        """Return the pictures by class of the part that defines the classes: train, or all."""
        return next(iter(self.paths.values()))

    def home(self, folder: str) -> str:
        """Return where a class lies in that part, below the root."""
        return _join(next(iter(self.homes.values())), folder)

    def different(self, folder: str) -> int:
        """Return how many different pictures a class has in that part."""
        return len({self.hashes[path] for path in self.learnt[folder]})


def gather(root: Path, parts: Mapping[str, str], spec: DatasetSpec) -> Gathered:
    """Gather everything below ``root``. ``parts`` maps each part to its folder.

    Without a split, ``parts`` is ``{ALL: ""}``. The classes are those of the first part. The description may
    rename or drop classes. Raises BenchError if the description names a class that is not there, or if there
    are no class folders at all.
    """
    found = Gathered(root, parts)
    folders: dict[str, list[str]] = {}
    for part, home in parts.items():
        listing = look(root, home, links=True)
        folders[part] = list(listing.folders)
        found.passed += listing.passed
        found.passed += [(FLAT, _join(home, name)) for name in listing.pictures]
    if ALL not in parts:
        top, used = look(root, links=True), {home.partition("/")[0] for home in parts.values()}
        found.passed += [*top.passed, *((FLAT, name) for name in top.pictures)]
        found.passed += [("beside the split", f"{name}/") for name in top.folders if name not in used]
    found.names = _names(found, folders, spec)
    for part, home in parts.items():
        kept = [folder for folder in folders[part] if printable(folder) not in spec.classnames.drop]
        found.paths[part] = {folder: _pictures(found, _join(home, folder), folder) for folder in kept}
        for folder in kept:
            if folder not in found.names:
                alike = [name for name in found.names if _plain(name) == _plain(folder)]
                hint = f", which has {shown(alike[0])}" if alike else ""
                found.bad[folder] = f"in {shown(home)}/ but not in {shown(next(iter(parts.values())))}/{hint}"
    return found


def _names(found: Gathered, folders: Mapping[str, list[str]], spec: DatasetSpec) -> dict[str, str]:
    """Return the class name of each class folder of the first part; ``folders`` lists those of every part."""
    rule, home = spec.classnames, found.root / next(iter(found.homes.values()))
    there = {printable(folder) for part in folders.values() for folder in part}
    if unknown := {*rule.rename, *rule.drop} - there:
        raise BenchError(
            f"{spec.name}: [classnames] names '{min(unknown)}', which is no class folder of {home}; "
            "write the folder's name as it is on disk"
        )
    names = {
        folder: rule.rename.get(printable(folder), printable(folder))
        for folder in next(iter(folders.values()))
        if printable(folder) not in rule.drop
    }
    if not names:
        flat = sum(reason == FLAT for reason, _ in found.passed)
        raise BenchError(
            f"{shown(str(home))}: no class folders{f', but {flat} images' if flat else ''}; "
            "put the images of each class into a folder named after it"
        )
    return names


def _pictures(found: Gathered, where: str, folder: str) -> list[str]:
    """Return a class folder's readable pictures, under names that can be stored, and note the others."""
    try:
        listing = below(found.root, where)
    except Unlisted as error:
        found.bad[folder] = error.reason
        return []
    found.passed += listing.passed
    found.outside += _outside(found.root, where, listing)
    paths = []
    for file in listing.pictures:
        path = storable(file)
        if path in found.hashes:
            raise BenchError(
                f"{shown(str(found.root / file))} would be stored under the name of another file, {path}; "
                "rename one of them"
            )
        try:
            found.hashes[path] = sha256_file(found.root / file)
        except OSError as error:
            found.unreadable.append((file, (error.strerror or str(error)).lower()))
            continue
        paths.append(path)
        if path != file:
            found.real[path] = file
    return paths


def _outside(root: Path, where: str, listing: Listing) -> list[str]:
    """Return the pictures of a class folder that lie outside ``root``, reached through links."""
    home = root.resolve()
    if not (root / where).resolve().is_relative_to(home):
        return list(listing.pictures)
    return [file for file in listing.links if not (root / file).resolve().is_relative_to(home)]


def storable(file: str) -> str:
    """Return a file's path in the form that lists and records hold.

    It is the path itself if that is UTF-8 and a valid path on every system. Otherwise it is quoted like a web
    address (``caf%E9.png``).
    """
    if printable(file) == file and "\\" not in file and not escapes(file):
        return file
    return quote_from_bytes(file.encode("utf-8", "surrogateescape"), safe="/ ")


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _plain(name: str) -> str:
    """Return a name without differences that people do not see: case, and how accents are composed."""
    return unicodedata.normalize("NFC", name).casefold()
