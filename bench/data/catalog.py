"""Find datasets by name or by path.

A name stands for a description in ``datasets/``. A path leads to a user's own TOML file, or to a plain folder
of images. A reader turns the description into a Dataset. The description names the reader (``reader =
"..."``), and the table ``READERS`` says where each reader is, as "module:function". A reader is imported at
its first use, so that this room does not depend on the rooms above it that have readers too.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from bench import typed
from bench.data.dataset import Dataset
from bench.data.spec import DatasetSpec, parse, read_toml
from bench.errors import BenchError
from bench.names import canonical, nearest, printable, shown
from bench.paths import datasets_dir, from_home

__all__ = ["DatasetSpec", "Place", "Reader", "find", "names", "spec"]

READERS = {
    "coop-split": "bench.data.readers:coop_split",
    "aircraft": "bench.data.readers:aircraft",
    "imagenet": "bench.data.imagenet:imagenet",
    "wnid-folders": "bench.data.imagenet:wnid_folders",
    "number-folders": "bench.data.imagenet:number_folders",
    "folder": "bench.data.folder:class_folders",
    "idx": "bench.data.idx:idx",
    "scenes": "bench.pocket.readers:read_scenes",
    "digits": "bench.pocket.readers:read_digits",
}


_LONGEST = 80  # bytes of a name


@dataclass(frozen=True)
class Place:
    """Where a reader looks for data and where it writes, with the choices that it needs.

    ``data_root`` holds the folders of the datasets; None if it was not given. ``images=False`` asks for the
    lists only, so that a missing image folder is no error. A split that the reader makes itself is written
    under ``out``, if given. ``skip_bad`` leaves out the classes of a user's own folder that cannot be used,
    where the reader otherwise refuses the folder. Images with more pixels than ``max_pixels`` are refused;
    None stands for the usual limit (``bench.data.limit``).
    """

    data_root: Path | None = None
    images: bool = True
    out: Path | None = None
    skip_bad: bool = False
    max_pixels: int | None = None


Reader = Callable[[DatasetSpec, Place], Dataset]


def names() -> list[str]:
    """Return the names of the datasets that come with the program, sorted."""
    return sorted(_catalog(datasets_dir()).values(), key=canonical)


def spec(name: str) -> DatasetSpec:
    """Return the description of a dataset by its name; hyphen and underscore count as the same letter.

    Raises BenchError, with the nearest name, if there is no such dataset.
    """
    folder = datasets_dir()
    stem = _catalog(folder).get(canonical(name))
    if stem is None:
        raise BenchError(
            f"unknown dataset '{name}'{nearest(name, names())}; `bench list datasets` shows all, "
            "and a path to a folder of images or to a TOML file works too"
        )
    return _read(folder / f"{stem}.toml")


def find(
    name_or_path: str,
    data_root: Path | None,
    *,
    images: bool = True,
    out: Path | None = None,
    skip_bad: bool = False,
    max_pixels: int | None = None,
) -> Dataset:
    """Find and read the dataset of a name, or the one at a path.

    A path leads to a folder that holds one folder per class, or to a TOML description. ``images=False`` reads
    the lists only; ``out``, ``skip_bad`` and ``max_pixels`` are as in Place. Raises MissingData if something
    is not where it is looked for, and BenchError if what is there cannot be used.
    """
    described = describe(name_or_path)
    return reader(described.reader)(described, Place(data_root, images, out, skip_bad, max_pixels))


def describe(name_or_path: str) -> DatasetSpec:
    """Return the description that ``find`` uses: the catalog's of that name, else the one at that path."""
    if canonical(name_or_path) in _catalog(datasets_dir()):
        return spec(name_or_path)
    path = from_home(name_or_path)
    # For a name that no file can have, os.path answers no, while Path raises the system's error.
    if path.suffix == ".toml" and os.path.isfile(path):
        return _as_users_own(read_toml(path, own=True), path.resolve())
    if os.path.isdir(path):
        folder = path.resolve()
        table = {"name": printable(folder.name) or "images", "folder": str(folder)}
        return _as_users_own(parse(table, str(path), folder.parent, own=True), folder)
    if os.path.isfile(path):
        raise BenchError(
            f"{shown(name_or_path)}: this file is no TOML file; name the folder of images, or a TOML file"
        )
    if path.suffix == ".toml" or os.sep in name_or_path:
        raise BenchError(f"{shown(name_or_path)}: no such folder or TOML file{_near_path(path)}")
    return spec(name_or_path)


def _near_path(path: Path) -> str:
    """Return the hint at the entry beside a missing path whose name is nearest; empty if none is near."""
    beside = path.parent
    try:
        names = os.listdir(beside)
    except OSError:  # no folder, or one that may not be read
        return ""
    hint = nearest(path.name, names)
    # An entry of the folder itself, ``./pets``, is shown as a path too: ``pets`` alone would be a name.
    return hint.replace("mean '", f"mean '{shown(str(beside))}/", 1)


def reader(name: str) -> Reader:
    """Return the function that reads datasets of this kind. Raises BenchError for an unknown reader."""
    if name not in READERS:
        raise BenchError(
            f"unknown reader '{name}'{nearest(name, READERS)}; known: {', '.join(sorted(READERS))}"
        )
    module, _, function = READERS[name].partition(":")
    read: Reader = getattr(importlib.import_module(module), function)
    return read


def _as_users_own(described: DatasetSpec, place: Path) -> DatasetSpec:
    """Give a user's dataset a name that is safe in file names and is not one of the catalog's.

    Letters of any script stay. A long name is cut, because file names have at most 255 bytes.
    """
    name = re.sub(r"[^\w.-]+", "-", described.name).strip("-.")
    name = name.encode(errors="ignore")[:_LONGEST].decode(errors="ignore").strip("-.") or "images"
    if canonical(name) in _catalog(datasets_dir()):
        name = f"{name}-own"
    identity = hashlib.sha256(os.fsencode(place)).hexdigest()
    return replace(described, name=name, place=printable(str(place)), identity=identity)


@lru_cache
def _catalog(folder: Path) -> dict[str, str]:
    """Map the canonical form of each dataset's name to the stem of its TOML file."""
    return {canonical(file.stem): file.stem for file in sorted(folder.glob("*.toml"))}


@lru_cache
def _read(file: Path) -> DatasetSpec:
    described = read_toml(file)
    if described.name != file.stem:
        raise BenchError(f'{file}: name = "{described.name}" must equal the file\'s name')
    described = replace(described, base=None)
    mined = _mined(file.parent / "prompts" / "mined.toml").get(described.name)
    return replace(described, templates={**described.templates, "mined": mined}) if mined else described


@lru_cache
def _mined(file: Path) -> dict[str, tuple[str, ...]]:
    """Read the published mined templates of each dataset (datasets 5.5).

    Labels chose them, so tables mark them.
    """
    if not file.is_file():
        return {}
    return typed.toml(file, dict[str, tuple[str, ...]])
