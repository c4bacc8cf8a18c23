"""Image files as they were when numbers were made of them, so that exchanged images are noticed.

Where a dataset's digest is one of its lists alone (``Dataset.lists``), a results folder and a feature store
keep a stamp of every image that they used: its size, its time of change and the SHA-256 of its bytes. While
planning, sizes and times are compared; where they differ the file is hashed. If it holds other bytes, the
images are another dataset: its digest then covers the contents of every listed file, on every machine in the
same way. Sizes and times themselves are in no digest. An image that is exchanged without a change of size and
time is noticed by ``bench data verify``, which hashes every file.

Stamps lie under ``<place>/images/<lists>/<digest>-<writer>.json``: one file for each process that wrote, so
that processes and copied folders never overwrite each other's.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bench.data.dataset import Dataset
from bench.data.imagefile import FolderSource
from bench.errors import BenchError
from bench.files import digest, read_json, sha256_file, write_json

SCHEMA = 1
_SHORT = 12  # hex digits of a digest in a name
_THREADS = 8  # files are looked at side by side, for network disks answer slowly
_WRITER = secrets.token_hex(6)


class Stamp(NamedTuple):
    """Bytes of an image file, its time of change (ns) and the SHA-256 (hex) of its content."""

    size: int
    mtime_ns: int
    sha256: str


Stamps = Mapping[str, frozenset[Stamp]]  # by path


def watched(dataset: Dataset) -> bool:
    """Whether the dataset's images are files that its lists say nothing about."""
    return bool(dataset.lists) and isinstance(dataset.source, FolderSource)


def current(dataset: Dataset, places: Sequence[Path]) -> Dataset:
    """The dataset under the digest of what its image files hold now.

    ``places``: results folder and feature store. Where no image differs from what was used there, the dataset
    is returned as it is; else its digest covers the contents of all its files, and a note says why.
    """
    if not watched(dataset):
        return dataset
    before = _stamps(places, dataset.lists, dataset.lists)
    if not before:
        return dataset
    known = _hashes(_stamps(places, dataset.lists, "*"))
    with ThreadPoolExecutor(_THREADS) as pool:
        doubts = pool.map(lambda path: _doubtful(dataset, path, before[path]), before)
        doubtful = [path for path, doubt in zip(before, doubts, strict=True) if doubt]
    now = _look(dataset, doubtful, known)
    changed = [path for path, stamp in now.items() if any(s.sha256 != stamp.sha256 for s in before[path])]
    _remember(places[0], dataset, dataset.lists, {p: s for p, s in now.items() if p not in changed})
    if not changed:
        return dataset
    listed = _look(dataset, list(dict.fromkeys(_listed(dataset))), known)
    other = of_contents(dataset, {path: stamp.sha256 for path, stamp in listed.items()})
    _remember(places[0], dataset, other, listed)
    note = (
        f"{len(changed)} of its images are not those that were used before, first {changed[0]}: "
        "taken as another dataset, whose digest covers the contents of all its files"
    )
    return replace(dataset, digest=other, notes=(*dataset.notes, note))


def note(place: Path, dataset: Dataset, paths: Iterable[str], beside: Sequence[Path] = ()) -> None:
    """Keep stamps of image files that are about to be used, but for those that ``place`` has already.

    ``beside``: other places, whose stamps spare hashing. A file that is not there gets none: whoever reads it
    says so. Raises OSError where ``place`` cannot be written.
    """
    if not watched(dataset):
        return
    have = _stamps([place], dataset.lists, dataset.digest)
    lacking = [path for path in dict.fromkeys(paths) if path not in have]
    if lacking:
        known = _hashes(_stamps([place, *beside], dataset.lists, "*"))
        _write(place, dataset, dataset.digest, _look(dataset, lacking, known))


def contents(dataset: Dataset) -> dict[str, str]:
    """The SHA-256 (hex) of every listed image file that is there, by path; all are read."""
    stamps = _look(dataset, list(dict.fromkeys(_listed(dataset))), {})
    return {path: stamp.sha256 for path, stamp in stamps.items()}


def of_contents(dataset: Dataset, hashes: Mapping[str, str]) -> str:
    """The digest of the lists and of what all files hold; ``hashes`` as ``contents`` gives them."""
    return digest([dataset.lists, {path: hashes.get(path, "absent") for path in _listed(dataset)}])


def differing(dataset: Dataset, hashes: Mapping[str, str], places: Sequence[Path]) -> list[str]:
    """The images whose content (``contents``) is not what was used in ``places`` under these lists."""
    before = _stamps(places, dataset.lists, dataset.lists)
    return [p for p, stamps in before.items() if p in hashes and any(s.sha256 != hashes[p] for s in stamps)]


def _listed(dataset: Dataset) -> Iterable[str]:
    for items in (dataset.train, dataset.val, dataset.test):
        yield from items.paths


def _file(dataset: Dataset, path: str) -> Path:
    assert isinstance(dataset.source, FolderSource), "only files are watched"
    return dataset.source.file(path)


def _doubtful(dataset: Dataset, path: str, stamps: frozenset[Stamp]) -> bool:
    """Whether the file is there and is not surely what it was; two contents on record are always a doubt."""
    try:
        stat = _file(dataset, path).stat()
    except OSError:
        return False
    same = any((s.size, s.mtime_ns) == (stat.st_size, stat.st_mtime_ns) for s in stamps)
    return not same or len({s.sha256 for s in stamps}) > 1


def _look(
    dataset: Dataset, paths: Sequence[str], known: Mapping[tuple[str, int, int], str]
) -> dict[str, Stamp]:
    """Stamps of the files that are there and can be read; ``known`` spares hashing."""

    def stamp(path: str) -> Stamp | None:
        file = _file(dataset, path)
        try:
            stat = file.stat()
            where = (stat.st_size, stat.st_mtime_ns)
            return Stamp(*where, known.get((path, *where)) or sha256_file(file))
        except OSError:
            return None

    with ThreadPoolExecutor(_THREADS) as pool:
        return {path: s for path, s in zip(paths, pool.map(stamp, paths), strict=True) if s is not None}


def _hashes(stamps: Stamps) -> dict[tuple[str, int, int], str]:
    return {(path, s.size, s.mtime_ns): s.sha256 for path, several in stamps.items() for s in several}


def _stamps(places: Iterable[Path], lists: str, of: str) -> Stamps:
    """All stamps in these places under digest ``of``; ``*`` is every digest that the lists ever had."""
    found: dict[str, set[Stamp]] = {}
    for place in places:
        folder = place / "images" / lists[:_SHORT]
        for file in sorted(folder.glob(f"{of[:_SHORT]}-*.json")):
            for path, stamp in _read(file).items():
                found.setdefault(path, set()).add(stamp)
    return {path: frozenset(stamps) for path, stamps in found.items()}


def _read(file: Path) -> dict[str, Stamp]:
    try:
        about = read_json(file)
        if about["schema"] != SCHEMA:
            raise ValueError(f"schema {about['schema']}")
        return {
            path: Stamp(int(size), int(mtime_ns), str(content))
            for path, (size, mtime_ns, content) in about["images"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(
            f"{file}: does not say what image files were ({error}); delete it, "
            "and run with another --results and --cache"
        ) from error


def _remember(place: Path, dataset: Dataset, of: str, stamps: Mapping[str, Stamp]) -> None:
    """``_write`` for what only spares hashing next time: where nothing can be written, nothing is lost."""
    with suppress(OSError):
        _write(place, dataset, of, stamps)


def _write(place: Path, dataset: Dataset, of: str, stamps: Mapping[str, Stamp]) -> None:
    if not stamps:
        return
    folder = place / "images" / dataset.lists[:_SHORT]
    file = folder / f"{of[:_SHORT]}-{_WRITER}.json"
    mine = {**(_read(file) if file.is_file() else {}), **stamps}
    write_json(file, {"schema": SCHEMA, "dataset": dataset.name, "digest": of, "images": mine})
