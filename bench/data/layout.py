"""Find the files of a dataset.

The folders in the dataset's description are tried in order. If a file is in none of them, the error lists all
places that were tried.
"""

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
    """Return the folders that may hold the dataset, best first.

    Relative folders are looked for beside a user's TOML file, and then under the data root; absolute ones
    come last. Raises BenchError if the description names no folder, and MissingData if it needs a data root
    and none is given.
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
    """Return the first of ``paths`` that exists, or None."""
    return next((path for path in paths if path.exists()), None)


def file_candidates(spec: DatasetSpec, place: Place, name: str) -> list[Path]:
    """Return where a list of the dataset may lie: in its own folder, in ``splits/``, or in the data root."""
    roots = [root for root in (spec.base, place.data_root) if root is not None]
    return [folder / name for folder in dataset_folders(spec, place)] + [
        folder / name for root in roots for folder in (root / "splits", root)
    ]


def image_candidates(spec: DatasetSpec, place: Place) -> list[Path]:
    """Return the folders in which the images may lie, best first."""
    return [folder / images for folder in dataset_folders(spec, place) for images in spec.images]


def image_folder(spec: DatasetSpec, place: Place, must_hold: Sequence[str] = ()) -> Path:
    """Return the folder that item paths are relative to.

    It is the first candidate that exists and holds one of the folders ``must_hold``, by default those of the
    description's ``holds``. If there is none, the first candidate is returned if ``place`` asks for lists
    only; otherwise MissingData is raised, which lists what was tried.
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
    """Make the error for something that is in none of the ``tried`` places; ``mend`` says how to get it."""
    places = ", ".join(shown(str(path)) for path in tried)
    return MissingData(
        f"{spec.name}: {what} is in none of these places: {places}. {' '.join(mend.split())}".rstrip()
    )


def index_folder(spec: DatasetSpec, place: Place) -> Path | None:
    """Return ``indices/<name>/`` under the data root, the folder of few-shot index files (datasets 4.4).

    The result is None if that folder does not exist. For a user's own dataset it is always None, because
    another dataset may have the same name.
    """
    folder = place.data_root / "indices" / spec.name if place.data_root and not spec.identity else None
    return folder if folder is not None and folder.is_dir() else None


def source(
    spec: DatasetSpec, place: Place, root: Path, real: Mapping[str, str] | None = None
) -> FolderSource:
    """Make the opener of the image files below ``root``, which opens them in the description's way.

    ``real`` is as in FolderSource.
    """
    return FolderSource(root, real or {}, spec.opening, place.max_pixels)
