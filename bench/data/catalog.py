"""Datasets by name: the descriptions in ``datasets/``, a user's own TOML file, or a plain folder of images.

A reader turns a description into a Dataset. It is chosen by the description's ``reader = "..."``, and the
table ``READERS`` says where it is: "module:function". It is imported at its first use, so that this room need
not know the rooms of readers that stand on it.
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
    """Where a reader looks and writes.

    ``data_root`` holds the datasets' folders (None: not given). ``images`` False asks for the lists only, so
    that a missing image folder is no error. A split that a reader makes itself is written under ``out``, if
    given. ``skip_bad`` leaves out classes of somebody's own folder that cannot be used, instead of refusing.
    ``max_pixels``: images with more are refused, None for the usual limit (``bench.data.limit``).
    """

    data_root: Path | None = None
    images: bool = True
    out: Path | None = None
    skip_bad: bool = False
    max_pixels: int | None = None


Reader = Callable[[DatasetSpec, Place], Dataset]


def names() -> list[str]:
    """The names of the datasets that come with the program, sorted."""
    return sorted(_catalog(datasets_dir()).values(), key=canonical)


def spec(name: str) -> DatasetSpec:
    """The description of a dataset by name; hyphen and underscore are the same letter.

    Raises BenchError, with the nearest name, when there is none.
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
    """The dataset of that name, or at that path (a folder with one folder per class, or a TOML description).

    ``images=False`` reads the lists only; ``out``, ``skip_bad`` and ``max_pixels`` are those of Place. Raises
    MissingData when something is not where it is looked for and BenchError when what is there cannot be used.
    """
    described = describe(name_or_path)
    return reader(described.reader)(described, Place(data_root, images, out, skip_bad, max_pixels))


def describe(name_or_path: str) -> DatasetSpec:
    """The description that ``find`` uses: by name first, then by path."""
    if canonical(name_or_path) in _catalog(datasets_dir()):
        return spec(name_or_path)
    path = from_home(name_or_path)
    # os.path says no to names that no file can have, where Path raises the system's error.
    if path.suffix == ".toml" and os.path.isfile(path):
        return _own(read_toml(path, own=True), path.resolve())
    if os.path.isdir(path):
        folder = path.resolve()
        table = {"name": printable(folder.name) or "images", "folder": str(folder)}
        return _own(parse(table, str(path), folder.parent, own=True), folder)
    if os.path.isfile(path):
        raise BenchError(f"{shown(name_or_path)}: a file, and no TOML; name the folder of images")
    if path.suffix == ".toml" or len(path.parts) > 1:
        raise BenchError(f"{shown(name_or_path)}: no such folder or TOML file")
    return spec(name_or_path)


def reader(name: str) -> Reader:
    """The function that reads datasets of this kind. Raises BenchError for an unknown reader."""
    if name not in READERS:
        raise BenchError(
            f"unknown reader '{name}'{nearest(name, READERS)}; known: {', '.join(sorted(READERS))}"
        )
    module, _, function = READERS[name].partition(":")
    read: Reader = getattr(importlib.import_module(module), function)
    return read


def _own(described: DatasetSpec, place: Path) -> DatasetSpec:
    """A user's dataset under a name that is safe in file names and is not one of the catalog's.

    Letters of any script stay; a long name is cut, for file names have at most 255 bytes.
    """
    name = re.sub(r"[^\w.-]+", "-", described.name).strip("-.")
    name = name.encode(errors="ignore")[:_LONGEST].decode(errors="ignore").strip("-.") or "images"
    if canonical(name) in _catalog(datasets_dir()):
        name = f"{name}-own"
    identity = hashlib.sha256(os.fsencode(place)).hexdigest()
    return replace(described, name=name, place=printable(str(place)), identity=identity)


@lru_cache
def _catalog(folder: Path) -> dict[str, str]:
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
    """Published mined templates per dataset (datasets 5.5); labels chose them, so tables mark them."""
    if not file.is_file():
        return {}
    return typed.toml(file, dict[str, tuple[str, ...]])
