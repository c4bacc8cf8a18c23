"""Finding a dataset's files: its description's folders in order, and an error that lists those tried."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.imagefile import FolderSource
from bench.data.spec import DatasetSpec
from bench.errors import BenchError, MissingData
from bench.names import shown
from bench.paths import from_home

if TYPE_CHECKING:
    from bench.data.catalog import Place


def dataset_folders(spec: DatasetSpec, place: Place) -> list[Path]:
    """Folders that may hold the dataset, best first: beside a user's TOML, under the data root, the system's.

    Raises MissingData when the description needs a data root and none is given.
    """
    if not spec.folders:
        raise BenchError(f'{spec.name}: its description names no folder: add a line  folder = "..."')
    roots = [root for root in (spec.base, place.data_root) if root is not None]
    folders = [from_home(folder) for folder in spec.folders]
    tried = [root / folder for root in roots for folder in folders if not folder.is_absolute()]
    tried += [folder for folder in folders if folder.is_absolute()]
    if not tried:
        raise MissingData(f"{spec.name}: give --data-root DIR, the folder that holds {spec.folders[0]}/")
    return tried


def first_existing(paths: Iterable[Path]) -> Path | None:
    """The first of ``paths`` that exists."""
    return next((path for path in paths if path.exists()), None)


def file_candidates(spec: DatasetSpec, place: Place, name: str) -> list[Path]:
    """Where a list of the dataset may lie: in its folder, else in ``splits/`` or the data root itself."""
    roots = [root for root in (spec.base, place.data_root) if root is not None]
    return [folder / name for folder in dataset_folders(spec, place)] + [
        folder / name for root in roots for folder in (root / "splits", root)
    ]


def image_candidates(spec: DatasetSpec, place: Place) -> list[Path]:
    """Where the images may lie, best first."""
    return [folder / images for folder in dataset_folders(spec, place) for images in spec.images]


def image_folder(spec: DatasetSpec, place: Place, must_hold: Sequence[str] = ()) -> Path:
    """The folder that item paths are relative to: the first that exists and holds one of ``must_hold``.

    The description's ``holds`` is the default. Without such a folder it is the first candidate if ``place``
    asks for lists only, else MissingData lists what was tried.
    """
    tried = image_candidates(spec, place)
    inside = must_hold or spec.holds
    for folder in tried:
        if folder.is_dir() and (not inside or any((folder / name).is_dir() for name in inside)):
            return folder
    if not place.images:
        return tried[0]
    raise missing(spec, "its folder of images", tried, spec.get)


def missing(spec: DatasetSpec, what: str, tried: Sequence[Path], mend: str) -> MissingData:
    """The error for something that is in none of the ``tried`` places."""
    places = ", ".join(shown(str(path)) for path in tried)
    return MissingData(f"{spec.name}: {what} is in none of: {places}. {' '.join(mend.split())}".rstrip())


def index_folder(spec: DatasetSpec, place: Place) -> Path | None:
    """``indices/<name>/`` under the data root, where few-shot index files may lie (datasets 4.4).

    None for a person's own dataset: another one may bear its name.
    """
    folder = place.data_root / "indices" / spec.name if place.data_root and not spec.identity else None
    return folder if folder is not None and folder.is_dir() else None


def source(
    spec: DatasetSpec, place: Place, root: Path, real: Mapping[str, str] | None = None
) -> FolderSource:
    """What opens the image files below ``root``, in the description's way; ``real``: as in FolderSource."""
    return FolderSource(root, real or {}, spec.opening, place.max_pixels)
