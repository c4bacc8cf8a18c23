"""Open every listed image of a dataset, and guess the cause if some do not open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.data import seen
from bench.data.dataset import Dataset
from bench.data.imagefile import FolderSource
from bench.data.repeats import repeats
from bench.errors import BenchError, MissingData, UnsuitableImage
from bench.names import few, shown

SHOWN = 10


@dataclass(frozen=True)
class Verification:
    """The outcome of opening all images: how many were opened, how many failed, and why.

    ``failures`` are the first ten as (path, reason), ``cause`` is the likely cause. ``contents`` is a digest
    of what all files hold, to compare machines with. ``exchanged`` are images that are not those that were
    used before. ``remarks`` are lines about pictures that occur twice, and about pictures outside the folder
    to which links lead.
    """

    checked: int
    failed: int
    failures: tuple[tuple[str, str], ...] = ()
    cause: str = ""
    contents: str = ""
    exchanged: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def verify(
    dataset: Dataset,
    progress: Callable[[int, int], None] | None = None,
    places: Sequence[Path] = (),
    hashing: Callable[[int, int], None] | None = None,
) -> Verification:
    """Open every listed image once, as a run opens it; ``progress(done, total)`` is called after each.

    ``hashing`` is called in the same way if all files are hashed afterwards. ``places`` are results folders
    and feature stores: the contents of the images are compared with what was used there.
    """
    paths = list(dataset.listed())
    failures: list[tuple[str, str]] = []
    absent: list[str] = []
    failed = unsuitable = 0
    for done, path in enumerate(paths, 1):
        try:
            dataset.source.open(path)
        except BenchError as error:
            failed += 1
            if isinstance(error, MissingData):
                absent.append(path)
            unsuitable += isinstance(error, UnsuitableImage)
            if len(failures) < SHOWN:
                failures.append((path, shown(str(error))))
        if progress is not None:
            progress(done, len(paths))
    cause = ""
    if failed > unsuitable:  # the error of an unsuitable image names its mend; only the others need a cause
        cause = (
            likely_cause(dataset, absent, len(paths))
            if absent
            else "damaged files: replace them, or remove them"
            if dataset.spec.identity
            else "damaged files: download the archive again"
        )
    opened = Verification(len(paths), failed, tuple(failures), shown(cause), dataset.digest)
    return _hashed(dataset, opened, places, hashing) if seen.watched(dataset) else opened


def _hashed(
    dataset: Dataset,
    opened: Verification,
    places: Sequence[Path],
    hashing: Callable[[int, int], None] | None,
) -> Verification:
    """Add to a verification what hashing every file shows.

    It is for datasets whose reader did not hash the files.
    """
    hashes = seen.contents(dataset, hashing)
    parts = {
        part: [(path, label) for path, label in zip(items.paths, items.labels, strict=True) if path in hashes]
        for part, items in (("train", dataset.train), ("val", dataset.val), ("test", dataset.test))
    }
    return replace(
        opened,
        contents=seen.of_contents(dataset, hashes),
        exchanged=tuple(seen.differing(dataset, hashes, places)),
        remarks=(*repeats(parts, hashes, {}), *_behind_links(dataset, hashes)),
    )


def _behind_links(dataset: Dataset, paths: Iterable[str]) -> list[str]:
    """Return one line about the images that lie outside the dataset's folder, behind links, if there
    are any.
    """
    source = dataset.source
    assert isinstance(source, FolderSource), "only files are hashed"
    home = source.root.resolve()
    outside = [path for path in paths if not source.file(path).resolve().is_relative_to(home)]
    if not outside:
        return []
    those = "1 image lies" if len(outside) == 1 else f"{len(outside)} images lie"
    return [f"{those} outside {shown(str(source.root))}, behind links ({few(outside)})"]


def likely_cause(dataset: Dataset, absent: Sequence[str], checked: int) -> str:
    """Explain in one sentence why ``absent`` files, of ``checked`` ones, may be missing.

    The explanation comes from what lies in their place.
    """
    if not isinstance(dataset.source, FolderSource):
        return "files were removed after the lists were read"
    root = dataset.source.root
    if not root.is_dir():
        return f"the folder of images {root} does not exist"
    path = absent[0].replace("\\", "/")
    if _other_case(root, path):
        return (
            f"file names differ in upper and lower case: {_other_case(root, path)} is there instead of {path}"
        )
    parent = _deepest(root, path)
    if parent != (root / path).parent:
        wanted = (root / path).relative_to(parent).parts[0]
        there = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))[:4]
        return (
            f"{parent} has no {wanted}/ but {', '.join(there) or 'nothing'}: "
            "another copy of the dataset, arranged differently, or an archive that was not unpacked whole"
        )
    there = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))[:2]
    if len(absent) == checked:
        here = ", ".join(there) or "nothing"
        return f"{parent} holds {here} instead of {Path(path).name}: another copy of the dataset"
    return "the archive was not unpacked whole, or files were removed: unpack it again"


def _deepest(root: Path, path: str) -> Path:
    """Return the deepest folder on the way to ``path`` that exists."""
    folder = root
    for part in Path(path).parts[:-1]:
        if not (folder / part).is_dir():
            return folder
        folder = folder / part
    return folder


def _other_case(root: Path, path: str) -> str:
    """Return what lies at ``path`` if upper and lower case are ignored.

    The result is empty if nothing lies there, or ``path`` itself.
    """
    folder, matches = root, []
    for part in Path(path).parts:
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        match = part if part in names else next((name for name in names if name.lower() == part.lower()), "")
        if not match:
            return ""
        matches.append(match)
        folder = folder / match
    there = "/".join(matches)
    return there if there != path else ""
