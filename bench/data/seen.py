"""Notice images that were exchanged since results were computed from them.

Some readers look only at a dataset's lists and not into its image files (``Dataset.lists``). For such a
dataset this module makes the digest depend on the files' contents, while a run is planned:

- A user's own lists: the digest always covers the contents of every listed file.
- The catalog's lists: the digest of the lists, which is the published one, stays as long as no image differs
  from those that the results folder and the feature store have used. Both keep a stamp of every image that
  they used: size, time of change and SHA-256. Planning compares size and time; if they differ, it hashes the
  file. If the file holds other bytes, the images count as another dataset, whose digest covers all contents.

Sizes and times are in no digest; they only save hashing. If an image is exchanged and both stay the same,
only ``bench data verify`` notices it, because it hashes every file.

Stamps lie in ``<place>/images/<family>/<digest>-<writer>.json``. Each process writes a file of its own, so
that processes and copied folders never overwrite each other's stamps.
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
FOLDER = "images"  # the folder of stamps below a place
_SHORT = 12  # hex digits of a digest in a name
_THREADS = 8  # files are looked at in parallel, because network disks answer slowly
_WITHOUT = (
    "it cannot say which image files were used before: delete it, and then check the dataset with "
    "`bench data verify`, because without this file exchanged images go unnoticed"
)
_WRITER = secrets.token_hex(6)


class Stamp(NamedTuple):
    """The size of an image file in bytes, its time of change (ns), and the SHA-256 (hex) of its content."""

    size: int
    mtime_ns: int
    sha256: str


class _Kept(msgspec.Struct):
    schema: int
    images: dict[str, Stamp]


Stamps = Mapping[str, frozenset[Stamp]]  # the stamps of each path


def watched(dataset: Dataset) -> bool:
    """Return whether the dataset's images are files whose contents the reader did not look at."""
    return bool(dataset.lists) and isinstance(dataset.source, FolderSource)


def current(dataset: Dataset, places: Sequence[Path]) -> Dataset:
    """Return the dataset under the digest of what its image files hold now.

    ``places`` are the results folder and the feature store; hashes are remembered in the last one. If the
    digest of a dataset of the catalog becomes one of contents, a note says why.
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
    now = _stamps_of_files(dataset, doubtful, known)
    changed = [path for path, stamp in now.items() if any(s.sha256 != stamp.sha256 for s in before[path])]
    _remember(places[-1], dataset, dataset.lists, {p: s for p, s in now.items() if p not in changed})
    if not changed:
        return dataset
    line = (
        f"{len(changed)} of its images are not those that were used before, first {changed[0]}: it counts as "
        "another dataset. If you do not need the numbers from before, use another results folder and clear "
        "the features (`bench cache clear`)"
    )
    return _by_contents(dataset, places, (line,))


def _by_contents(dataset: Dataset, places: Sequence[Path], notes: tuple[str, ...]) -> Dataset:
    """Return the dataset under a digest of what all its files hold."""
    known = _hashes(_stamps(places, dataset, "*"))
    listed = _stamps_of_files(dataset, list(dict.fromkeys(dataset.listed())), known)
    other = of_contents(dataset, {path: stamp.sha256 for path, stamp in listed.items()})
    _remember(places[-1], dataset, other, listed)
    return replace(dataset, digest=other, notes=(*dataset.notes, *notes))


def note(place: Path, dataset: Dataset, paths: Iterable[str], beside: Sequence[Path] = ()) -> None:
    """Keep stamps of image files that are about to be used, except those that ``place`` has already.

    ``beside`` are other places; a file whose size and time are those of a stamp there is not hashed again. A
    file that does not exist gets no stamp, and reading it reports the error. Raises OSError if ``place``
    cannot be written to.
    """
    dataset = dataset.whole or dataset
    asked = list(dict.fromkeys(paths))
    if not asked or not watched(dataset) or dataset.spec.identity:
        return
    have = _stamps([place], dataset, dataset.digest)
    lacking = [path for path in asked if path not in have]
    if lacking:
        known = _hashes(_stamps([place, *beside], dataset, "*"))
        _write(place, dataset, dataset.digest, _stamps_of_files(dataset, lacking, known))


def forget(place: Path, dataset: Dataset, paths: Iterable[str]) -> None:
    """Remove this process's stamps of images that could not be read.

    If a damaged file is then replaced by an intact one, the new file does not count as exchanged.
    """
    dataset = dataset.whole or dataset
    if not watched(dataset):
        return
    file = _own_file(place, dataset, dataset.digest)
    if file.is_file():
        kept = _read(file)
        for path in paths:
            kept.pop(path, None)
        _write_file(file, dataset, dataset.digest, kept)


def clear(place: Path) -> None:
    """Delete all stamps of a place, after everything that they vouch for was deleted."""
    for file in (place / FOLDER).glob("*/*-*.json"):
        file.unlink(missing_ok=True)
        with suppress(OSError):
            file.parent.rmdir()
    with suppress(OSError):
        (place / FOLDER).rmdir()


def contents(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> dict[str, str]:
    """Read every listed image file that exists, and return the SHA-256 (hex) of each path.

    ``progress(done, total)`` is called after each.
    """
    stamps = _stamps_of_files(dataset, list(dict.fromkeys(dataset.listed())), {}, progress)
    return {path: stamp.sha256 for path, stamp in stamps.items()}


def of_contents(dataset: Dataset, hashes: Mapping[str, str]) -> str:
    """Return the digest of the lists and of what all files hold; ``hashes`` come from ``contents``."""
    return digest([dataset.lists, {path: hashes.get(path, "absent") for path in dataset.listed()}])


def differing(dataset: Dataset, hashes: Mapping[str, str], places: Sequence[Path]) -> list[str]:
    """Return the paths of the images that ``places`` used under the same lists with another content.

    ``hashes`` come from ``contents``.
    """
    before = _stamps(places, dataset, dataset.lists)
    return [p for p, stamps in before.items() if p in hashes and any(s.sha256 != hashes[p] for s in stamps)]


def _file(dataset: Dataset, path: str) -> Path:
    assert isinstance(dataset.source, FolderSource), "only files are watched"
    return dataset.source.file(path)


def _doubtful(dataset: Dataset, path: str, stamps: frozenset[Stamp]) -> bool:
    """Return whether the file exists and must be hashed, because it may differ from the one that was used.

    It may differ if its size or its time of change is in none of the stamps, or if the stamps are of
    different contents.
    """
    try:
        stat = _file(dataset, path).stat()
    except OSError:
        return False
    same = any((s.size, s.mtime_ns) == (stat.st_size, stat.st_mtime_ns) for s in stamps)
    return not same or len({s.sha256 for s in stamps}) > 1


def _stamps_of_files(
    dataset: Dataset,
    paths: Sequence[str],
    known: Mapping[tuple[str, int, int], str],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Stamp]:
    """Return the stamps of those files that exist and can be read; ``known`` hashes save hashing."""

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
    """Return the SHA-256 of each path, size and time of change that the stamps know."""
    return {(path, s.size, s.mtime_ns): s.sha256 for path, several in stamps.items() for s in several}


def _folder(place: Path, dataset: Dataset) -> Path:
    """Return where a place keeps the stamps of a dataset under all its digests.

    Users' own datasets are kept apart.
    """
    family = digest([dataset.lists, dataset.spec.identity]) if dataset.spec.identity else dataset.lists
    return place / FOLDER / family[:_SHORT]


def _own_file(place: Path, dataset: Dataset, of: str) -> Path:
    return _folder(place, dataset) / f"{of[:_SHORT]}-{_WRITER}.json"


def _stamps(places: Iterable[Path], dataset: Dataset, of: str) -> Stamps:
    """Read all stamps in these places under digest ``of``; ``*`` stands for every digest of the dataset."""
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
    """Write stamps that only save hashing next time, so an error of the system does not matter."""
    with suppress(OSError):
        _write(place, dataset, of, stamps)


def _write(place: Path, dataset: Dataset, of: str, stamps: Mapping[str, Stamp]) -> None:
    """Add stamps to this process's own file."""
    file = _own_file(place, dataset, of)
    before = _read(file) if file.is_file() else {}
    mine = {**before, **stamps}
    if mine != before:
        _write_file(file, dataset, of, mine)


def _write_file(file: Path, dataset: Dataset, of: str, stamps: Mapping[str, Stamp]) -> None:
    write_json(file, {"schema": SCHEMA, "dataset": dataset.name, "digest": of, "images": stamps})
