"""Read ImageNet and its shifted test sets (datasets 3.1, 3.12, 4.5).

Their class folders are named by WordNet id or by number.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.data import layout
from bench.data.catalog import Place
from bench.data.dataset import Dataset, Items, dataset_digest
from bench.data.imagefile import is_image
from bench.data.spec import DatasetSpec
from bench.data.splitfile import read_split
from bench.errors import BenchError
from bench.files import read_text
from bench.names import few, shown
from bench.paths import datasets_dir

CUT_SEED = 0
VAL_SHARE = 0.2


def class_list(name: str, dataset: str = "imagenet") -> dict[str, str]:
    """Read a class list that comes with the program: WordNet id to class name, in label order.

    The published names are used even if a ``classnames.txt`` lies beside the images, because other names
    change the accuracy. Raises BenchError for any other file; its text begins with the ``dataset`` that asks.
    """
    file = datasets_dir() / name
    if Path(name).name != name or file.suffix != ".txt" or not file.is_file():
        raise BenchError(
            f"{dataset}: [options] classes: no class list '{shown(name)}' comes with the program; leave the "
            "option out"
        )
    lines = read_text(file).splitlines()
    return dict(line.split(" ", 1) for line in lines if line.strip())


def imagenet(spec: DatasetSpec, place: Place) -> Dataset:
    """Read ImageNet. The validation images are the test set; train and val are made of the training images.

    Train and val are read from the split file if it exists. Otherwise they are this program's own cut
    (``own_split``): files are sorted by name, and 20 % of each class are set aside for validation by one
    generator with a fixed seed. Few-shot index files under ``indices/`` replace the draw from either.
    Options: ``classes`` and ``split`` are the names of the class list and of the split file.
    """
    options = spec.option_values(classes="imagenet-classnames.txt", split="split_ImageNet.json")
    names = class_list(options["classes"], spec.name)
    file = layout.first_existing(layout.file_candidates(spec, place, options["split"]))
    root = layout.image_folder(spec, place, must_hold=("val", "train"))
    notes: tuple[str, ...] = ()
    if file is not None:
        split = read_split(file)
        if split.classnames != tuple(names.values()):
            raise BenchError(
                f"{file}: its class names are not ImageNet's 1000 in the order of WordNet ids; "
                "download it again"
            )
        train, val, test = split.train, split.val, split.test
    else:
        if place.images and not (root / "val").is_dir():
            raise layout.missing(spec, "val/ (the test set)", [root / "val"], spec.get)
        test = (
            _listed(spec, root, {wnid: f"val/{wnid}" for wnid in names})
            if (root / "val").is_dir()
            else Items()
        )
        train, val, notes = Items(), Items(), (f"no folder {root / 'train'}",)
        if (root / "train").is_dir():
            pool = _listed(spec, root, {wnid: f"train/{wnid}" for wnid in names})
            train, val = cut(pool)
            notes = (
                f"no {options['split']}: train and val are this program's own 80/20 cut "
                "of the training images, not comparable image by image with published few-shot sets",
            )
    digest = dataset_digest(names.values(), train, val, test)
    return Dataset(
        name=spec.name,
        spec=spec,
        classnames=tuple(names.values()),
        train=train,
        val=val,
        test=test,
        digest=digest,
        lists=digest,
        source=layout.source(spec, place, root),
        notes=notes,
        own_split=file is None,
        indices=layout.index_folder(spec, place),
    )


def cut(pool: Items) -> tuple[Items, Items]:
    """Cut the training images into train and val by the fallback that datasets 4.5 documents.

    It is a seeded 80/20 cut of each class, and the order is kept.
    """
    groups: dict[int, list[int]] = {}
    for position, label in enumerate(pool.labels):
        groups.setdefault(label, []).append(position)
    generator = random.Random(CUT_SEED)
    held_out: set[int] = set()
    for group in groups.values():
        held_out.update(generator.sample(group, round(VAL_SHARE * len(group))))
    positions = range(len(pool))
    return pool.take(p for p in positions if p not in held_out), pool.take(
        p for p in positions if p in held_out
    )


def wnid_folders(spec: DatasetSpec, place: Place) -> Dataset:
    """Read a test set of folders named by WordNet id.

    It has all of ImageNet's classes, or those in the option ``wnids``. With ``wnids``, labels count within
    that list, and ``classes`` holds the rows of ImageNet's class list.
    """
    options = spec.option_values(classes="imagenet-classnames.txt", wnids=[])
    names = class_list(options["classes"], spec.name)
    rows = {wnid: row for row, wnid in enumerate(names)}
    if unknown := [wnid for wnid in options["wnids"] if wnid not in rows]:
        raise BenchError(f"{spec.name}: [options] wnids: not in the class list: {few(unknown)}; correct them")
    chosen: Sequence[str] = options["wnids"] or list(names)
    classes = tuple(rows[wnid] for wnid in chosen) if options["wnids"] else None
    return _test_set(
        spec, place, {wnid: wnid for wnid in chosen}, tuple(names[wnid] for wnid in chosen), classes
    )


def number_folders(spec: DatasetSpec, place: Place) -> Dataset:
    """Read a test set of folders named 0, 1, 2, ...

    The label is the number itself, and not the rank in a sorted listing ("10" would come before "2" there).
    """
    names = class_list(spec.option_values(classes="imagenet-classnames.txt")["classes"], spec.name)
    folders = {wnid: str(number) for number, wnid in enumerate(names)}
    return _test_set(spec, place, folders, tuple(names.values()), None)


def _test_set(
    spec: DatasetSpec,
    place: Place,
    folders: Mapping[str, str],
    names: tuple[str, ...],
    classes: tuple[int, ...] | None,
) -> Dataset:
    """Make a dataset without training images: ``folders`` maps each class, in label order, to its folder."""
    root = layout.image_folder(spec, place, must_hold=tuple(folders.values()))
    test = _listed(spec, root, folders) if root.is_dir() else Items()
    digest = dataset_digest(names, Items(), Items(), test, repr(classes))
    return Dataset(
        name=spec.name,
        spec=spec,
        classnames=names,
        train=Items(),
        val=Items(),
        test=test,
        digest=digest,
        lists=digest,
        source=layout.source(spec, place, root),
        classes=classes,
    )


def _listed(spec: DatasetSpec, root: Path, folders: Mapping[str, str]) -> Items:
    """List the images of each class folder, sorted by name, with the classes in order.

    Raises BenchError if a class folder is missing or holds no image.
    """
    paths: list[str] = []
    labels: list[int] = []
    empty: list[str] = []
    for label, name in enumerate(folders.values()):
        files = images_in(root / name)
        if not files:
            empty.append(name)
        paths += [f"{name}/{file}" for file in files]
        labels += [label] * len(files)
    if empty:
        parent = (root / empty[0]).parent
        flat = bool(images_in(parent))
        mend = (
            f"the images lie flat in {parent}: sort them into one folder per WordNet id"
            if flat
            else f"unpack the dataset again, or check that {parent} is the right folder"
        )
        raise BenchError(
            f"{spec.name}: {len(empty)} of {len(folders)} class folders are missing or empty "
            f"(first: {root / empty[0]}); {mend}"
        )
    return Items(tuple(paths), tuple(labels))


def images_in(folder: Path) -> list[str]:
    """Return the names of the image files directly in ``folder``, sorted; hidden and other files are skipped.

    Raises BenchError for a pipe, a device, a socket or a folder that has the name of an image. What is behind
    a link is only looked at when it is opened.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if is_image(entry.name)]
    odd = [e.name for e in found if not (e.is_symlink() or e.is_file(follow_symlinks=False))]
    if odd:
        raise BenchError(f"{folder}: {len(odd)} of its images are no regular files ({few(odd)}); remove them")
    return sorted(entry.name for entry in found)
