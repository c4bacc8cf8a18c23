"""A user's own images: one folder per class, with or without train, val and test folders around them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.data import layout
from bench.data.catalog import Place
from bench.data.dataset import Dataset, Items, dataset_digest
from bench.data.imagefile import is_image
from bench.data.spec import DatasetSpec
from bench.data.splitfile import Split, split_rows
from bench.errors import BenchError
from bench.files import sha256_file, write_json

SHARES = {"train": 0.5, "val": 0.2, "test": 0.3}
SPELLINGS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def class_folders(spec: DatasetSpec, place: Place) -> Dataset:
    """A dataset of class folders: their sorted order gives the labels, their names the class names.

    The TOML may rename or drop classes.

    With train and test folders these are kept, and a missing val folder is replaced by a fifth of train.
    Without, each class is cut 50/20/30 by the SHA-256 of its files, so that the split depends on nothing but
    the images and identical files stay together; the split is written under ``place.out``. The digest covers
    the files' contents.

    Raises BenchError when there are no class folders, when a class has fewer than 3 different images, or when
    test holds a class that train lacks.
    """
    spec.option_values()
    root = layout.image_folder(spec, place)
    given = {part: here for part, spellings in SPELLINGS.items() if (here := _subfolder(root, spellings))}
    if "train" in given and "test" not in given:
        raise BenchError(
            f"{root} has train/ but no test/: name the folder of test images test/ "
            "(val/ is for choosing settings), or take train/ away and let the images be split"
        )
    split, contents, notes = _given(root, given, spec) if "train" in given else _cut_all(root, spec)
    digest = dataset_digest(split.classnames, split.train, split.val, split.test, contents)
    if "train" not in given and place.out is not None:
        write_json(place.out / "splits" / f"{spec.name}-{digest[:12]}.json", split_rows(split))
    return Dataset(
        name=spec.name,
        spec=spec,
        classnames=split.classnames,
        train=split.train,
        val=split.val,
        test=split.test,
        digest=digest,
        source=layout.source(spec, place, root),
        notes=notes,
        own_split=len(given) < len(SHARES),
        indices=layout.index_folder(spec, place),
    )


def _cut_all(root: Path, spec: DatasetSpec) -> tuple[Split, str, tuple[str, ...]]:
    folders = _class_names(root, spec)
    parts: dict[str, list[tuple[str, int]]] = {part: [] for part in SHARES}
    owner: dict[str, str] = {}
    shared: set[str] = set()
    contents: list[str] = []
    for label, folder in enumerate(folders):
        hashes = {path: sha256_file(root / path) for path in _images(root, folder)}
        for part, paths in cut(hashes, f"{root / folder}").items():
            parts[part] += [(path, label) for path in paths]
        contents += [f"{path}\t{content}" for path, content in hashes.items()]
        shared.update(h for h in hashes.values() if owner.setdefault(h, folder) != folder)
    notes: tuple[str, ...] = ("no split given: each class is cut 50/20/30 by content",)
    if shared:
        notes += (f"{len(shared)} image files lie in more than one class folder",)
    return _split(parts, tuple(folders.values())), "\n".join(contents), notes


def cut(hashes: Mapping[str, str], where: str) -> dict[str, list[str]]:
    """One class's paths in train, val and test: 50/20/30 in order of content hash, identical files together.

    ``hashes`` maps a path to the SHA-256 of its content. Every part gets at least one image. Raises
    BenchError, beginning with ``where``, when there are fewer than 3 different images.
    """
    groups: dict[str, list[str]] = {}
    for path, content in sorted(hashes.items(), key=lambda item: (item[1], item[0])):
        groups.setdefault(content, []).append(path)
    if len(groups) < len(SHARES):
        raise BenchError(
            f"{where}: a class needs at least 3 different images (training, validation, test), "
            f"and this one has {len(groups)}; add images or take the folder away"
        )
    result: dict[str, list[str]] = {part: [] for part in SHARES}
    order = list(SHARES)
    current = 0
    for done, group in enumerate(groups.values()):
        part, later = result[order[current]], len(order) - current - 1
        full = len(part) >= round(SHARES[order[current]] * len(hashes))
        if later and part and (full or len(groups) - done <= later):
            current += 1
        result[order[current]] += group
    return result


def _given(root: Path, given: Mapping[str, str], spec: DatasetSpec) -> tuple[Split, str, tuple[str, ...]]:
    folders = _class_names(root / given["train"], spec)
    parts: dict[str, list[tuple[str, int]]] = {part: [] for part in SHARES}
    for part, name in given.items():
        unknown = set(_class_names(root / name, spec)) - set(folders)
        if unknown:
            raise BenchError(f"{root / name}: class folder '{min(unknown)}' is not in {given['train']}/")
        for label, folder in enumerate(folders):
            if (root / name / folder).is_dir():
                parts[part] += [(path, label) for path in _images(root, f"{name}/{folder}")]
    for label, folder in enumerate(folders):
        if all(row[1] != label for row in parts["train"]):
            raise BenchError(f"{root / given['train'] / folder}: no images in this class folder")
    if not parts["test"]:
        raise BenchError(f"{root / given['test']}: no images in its class folders")
    notes: tuple[str, ...] = ()
    if not parts["val"]:
        parts["train"], parts["val"] = _carve(root, parts["train"])
        notes = ("no val folder: a fifth of train, by content, is set aside for validation",)
    contents = "\n".join(f"{path}\t{sha256_file(root / path)}" for rows in parts.values() for path, _ in rows)
    return _split(parts, tuple(folders.values())), contents, notes


def _carve(root: Path, rows: list[tuple[str, int]]) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    hashes = {path: sha256_file(root / path) for path, _ in rows}
    train: list[tuple[str, int]] = []
    val: list[tuple[str, int]] = []
    for label in sorted({label for _, label in rows}):
        own = [path for path, row_label in rows if row_label == label]
        contents = sorted({hashes[path] for path in own})
        if len(contents) < 2:
            raise BenchError(
                f"{root / own[0]}: its class needs 2 different training images, or give a val folder"
            )
        held_out = set(contents[: max(1, round(0.2 * len(contents)))])
        train += [(path, label) for path in own if hashes[path] not in held_out]
        val += [(path, label) for path in own if hashes[path] in held_out]
    return train, val


def _split(parts: Mapping[str, list[tuple[str, int]]], names: tuple[str, ...]) -> Split:
    lists = {
        part: Items(tuple(p for p, _ in rows), tuple(label for _, label in rows))
        for part, rows in parts.items()
    }
    return Split(lists["train"], lists["val"], lists["test"], names)


def _subfolder(root: Path, spellings: tuple[str, ...]) -> str:
    return next((name for name in spellings if (root / name).is_dir()), "")


def _class_names(root: Path, spec: DatasetSpec) -> dict[str, str]:
    """Class folder to class name in plain (case-sensitive) order, without hidden and dropped folders."""
    rule = spec.classnames
    folders = sorted(
        entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")
    )
    kept = [folder for folder in folders if folder not in rule.drop]
    unknown = {*rule.rename, *rule.drop} - set(folders)
    if unknown:
        raise BenchError(
            f"{spec.name}: [classnames] speaks of '{min(unknown)}', which is no class folder of {root}"
        )
    if not kept:
        raise BenchError(
            f"{root}: no class folders; put the images of each class into a folder named after it"
        )
    return {folder: rule.rename.get(folder, folder) for folder in kept}


def _images(root: Path, folder: str) -> Iterator[str]:
    """Image files below ``root/folder``, at any depth, as paths relative to ``root``, in sorted order."""
    for place, folders, files in os.walk(root / folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if is_image(name):
                yield (Path(place) / name).relative_to(root).as_posix()
