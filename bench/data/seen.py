"""Image files as they were when numbers were made of them, so that exchanged images are noticed.

A dataset's reader may look at its lists alone (``Dataset.lists``). What the image files hold then comes in
here, while planning:

- A person's own lists: the digest covers the contents of every listed file, always.
- The catalog's lists: the digest of the lists is what is published, and stays, as long as no image is another
  one than those that the results folder and the feature store have used. Both keep a stamp of every image
  that they used: size, time of change and SHA-256. Sizes and times are compared; where they differ the file
  is hashed. If it holds other bytes, the images are another dataset, whose digest covers all contents.

Sizes and times are in no digest; they only spare hashing. An image that is exchanged without a change of both
is noticed by ``bench data verify``, which hashes every file.

Stamps lie under ``<place>/images/<family>/<digest>-<writer>.json``: one file for each process that wrote, so
that processes and copied folders never overwrite each other's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench import typed
from bench.data.dataset import Dataset
from bench.data.imagefile import FolderSource
from bench.errors import BenchError
from bench.files import digest, sha256_file, write_json

SCHEMA = 1
FOLDER = "images"  # below a place
_SHORT = 12  # hex digits of a digest in a name
_THREADS = 8  # files are looked at side by side, for network disks answer slowly
_WITHOUT = (
    "it does not say what image files were: delete it, "
    "and `bench data verify` the dataset, for without it exchanged images would not be noticed"
)
_WRITER = secrets.token_hex(6)


class Stamp(NamedTuple):
    """Bytes of an image file, its time of change (ns) and the SHA-256 (hex) of its content."""

    size: int
    mtime_ns: int
    sha256: str


class _Kept(msgspec.Struct):
    schema: int
    images: dict[str, Stamp]


Stamps = Mapping[str, frozenset[Stamp]]  # by path


def watched(dataset: Dataset) -> bool:
    """Whether the dataset's images are files that its lists say nothing about."""
    return bool(dataset.lists) and isinstance(dataset.source, FolderSource)


def current(dataset: Dataset, places: Sequence[Path]) -> Dataset:
    """The dataset under the digest of what its image files hold now.

    ``places``: results folder and feature store; hashes are remembered in the last one. Where the digest of a
    dataset of the catalog becomes one of contents, a note says why.
    """
    if not watched(dataset):
        return dataset
    if dataset.spec.identity:
        return _by_contents(dataset, places, ())
    before = _stamps(places, dataset, dataset.lists)
    if not before:
        return dataset
    known = _hashes(_stamps(places, dataset, "*"))
    with ThreadPoolExecutor(_THREADS) as pool:
        doubts = pool.map(lambda path: _doubtful(dataset, path, before[path]), before)
        doubtful = [path for path, doubt in zip(before, doubts, strict=True) if doubt]
    now = _look(dataset, doubtful, known)
    changed = [path for path, stamp in now.items() if any(s.sha256 != stamp.sha256 for s in before[path])]
    _remember(places[-1], dataset, dataset.lists, {p: s for p, s in now.items() if p not in changed})
    if not changed:
        return dataset
    line = (
        f"{len(changed)} of its images are not those that were used before, first {changed[0]}: taken as "
        "another dataset. If no number is to be kept from before, take another results folder and clear the "
        "features (`bench cache clear`)"
    )
    return _by_contents(dataset, places, (line,))


def _by_contents(dataset: Dataset, places: Sequence[Path], notes: tuple[str, ...]) -> Dataset:
    """The dataset under a digest of what all its files hold."""
    known = _hashes(_stamps(places, dataset, "*"))
    listed = _look(dataset, list(dict.fromkeys(dataset.listed())), known)
    other = of_contents(dataset, {path: stamp.sha256 for path, stamp in listed.items()})
    _remember(places[-1], dataset, other, listed)
    return replace(dataset, digest=other, notes=(*dataset.notes, *notes))


def note(place: Path, dataset: Dataset, paths: Iterable[str], beside: Sequence[Path] = ()) -> None:
    """Keep stamps of image files that are about to be used, but for those that ``place`` has already.

    ``beside``: other places, whose stamps spare hashing. A file that is not there gets none: whoever reads it
    says so. Raises OSError where ``place`` cannot be written.
    """
    asked = list(dict.fromkeys(paths))
    if not asked or not watched(dataset) or dataset.spec.identity:
        return
    have = _stamps([place], dataset, dataset.digest)
    lacking = [path for path in asked if path not in have]
    if lacking:
        known = _hashes(_stamps([place, *beside], dataset, "*"))
        _write(place, dataset, dataset.digest, _look(dataset, lacking, known))


def forget(place: Path, dataset: Dataset, paths: Iterable[str]) -> None:
    """Take back this process's stamps of images that could not be read: a whole file may take their place."""
    if not watched(dataset):
        return
    file = _own_file(place, dataset, dataset.digest)
    if file.is_file():
        kept = _read(file)
        for path in paths:
            kept.pop(path, None)
        _put(file, dataset, dataset.digest, kept)


def clear(place: Path) -> None:
    """Delete all stamps of a place: nothing is left there that they vouch for."""
    for file in (place / FOLDER).glob("*/*-*.json"):
        file.unlink(missing_ok=True)
        with suppress(OSError):
            file.parent.rmdir()
    with suppress(OSError):
        (place / FOLDER).rmdir()


def contents(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> dict[str, str]:
    """The SHA-256 (hex) of every listed image file that is there, by path; all are read.

    ``progress(done, total)`` is called after each.
    """
    stamps = _look(dataset, list(dict.fromkeys(dataset.listed())), {}, progress)
    return {path: stamp.sha256 for path, stamp in stamps.items()}


def of_contents(dataset: Dataset, hashes: Mapping[str, str]) -> str:
    """The digest of the lists and of what all files hold; ``hashes`` as ``contents`` gives them."""
    return digest([dataset.lists, {path: hashes.get(path, "absent") for path in dataset.listed()}])


def differing(dataset: Dataset, hashes: Mapping[str, str], places: Sequence[Path]) -> list[str]:
    """The images whose content (``contents``) is not what was used in ``places`` under these lists."""
    before = _stamps(places, dataset, dataset.lists)
    return [p for p, stamps in before.items() if p in hashes and any(s.sha256 != hashes[p] for s in stamps)]


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
    dataset: Dataset,
    paths: Sequence[str],
    known: Mapping[tuple[str, int, int], str],
    progress: Callable[[int, int], None] | None = None,
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

    found = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, (path, one) in enumerate(zip(paths, pool.map(stamp, paths), strict=True), 1):
            if one is not None:
                found[path] = one
            if progress is not None:
                progress(done, len(paths))
    return found


def _hashes(stamps: Stamps) -> dict[tuple[str, int, int], str]:
    return {(path, s.size, s.mtime_ns): s.sha256 for path, several in stamps.items() for s in several}


def _folder(place: Path, dataset: Dataset) -> Path:
    """Where a place keeps the stamps of a dataset, whatever its digest was; own ones are told apart."""
    family = digest([dataset.lists, dataset.spec.identity]) if dataset.spec.identity else dataset.lists
    return place / FOLDER / family[:_SHORT]


def _own_file(place: Path, dataset: Dataset, of: str) -> Path:
    return _folder(place, dataset) / f"{of[:_SHORT]}-{_WRITER}.json"


def _stamps(places: Iterable[Path], dataset: Dataset, of: str) -> Stamps:
    """All stamps in these places under digest ``of``; ``*`` is every digest that the dataset ever had."""
    found: dict[str, set[Stamp]] = {}
    for place in places:
        for file in sorted(_folder(place, dataset).glob(f"{of[:_SHORT]}-*.json")):
            for path, stamp in _read(file).items():
                found.setdefault(path, set()).add(stamp)
    return {path: frozenset(stamps) for path, stamps in found.items()}


def _read(file: Path) -> dict[str, Stamp]:
    try:
        kept = typed.json(file, _Kept)
    except (OSError, typed.Odd) as error:
        why = str(error) if isinstance(error, typed.Odd) else f"{file}: {error.strerror}"
        raise BenchError(f"{why}; {_WITHOUT}") from error
    if kept.schema != SCHEMA:
        raise BenchError(f"{file}: schema {kept.schema}; {_WITHOUT}")
    return kept.images


def _remember(place: Path, dataset: Dataset, of: str, stamps: Mapping[str, Stamp]) -> None:
    """``_write`` for what only spares hashing next time: where nothing can be written, nothing is lost."""
    with suppress(OSError):
        _write(place, dataset, of, stamps)


def _write(place: Path, dataset: Dataset, of: str, stamps: Mapping[str, Stamp]) -> None:
    file = _own_file(place, dataset, of)
    before = _read(file) if file.is_file() else {}
    mine = {**before, **stamps}
    if mine != before:
        _put(file, dataset, of, mine)


def _put(file: Path, dataset: Dataset, of: str, stamps: Mapping[str, Stamp]) -> None:
    write_json(file, {"schema": SCHEMA, "dataset": dataset.name, "digest": of, "images": stamps})
