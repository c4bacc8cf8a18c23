"""Read datasets that follow published lists: CoOp's split files, and FGVC Aircraft's own lists."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from bench.data import layout
from bench.data.catalog import Place
from bench.data.dataset import Dataset, Items, dataset_digest
from bench.data.imagefile import escapes
from bench.data.spec import DatasetSpec
from bench.data.splitfile import PARTS, Split, read_split
from bench.errors import BenchError
from bench.files import read_text, sha256_file
from bench.names import short, shown

_LONGEST = 4096  # characters of a line
_MEND = "download the list again, or correct it"  # the end of error messages


def coop_split(spec: DatasetSpec, place: Place) -> Dataset:
    """Read a dataset whose lists are a CoOp split file (datasets 2).

    A missing split file is an error, and never a reason to split anew.

    Options: ``file`` is the name of the split file. ``sha256`` is the digest of the published file; a file
    with another digest leads to a note.
    """
    options = spec.option_values(file="", sha256="")
    if not options["file"]:
        raise BenchError(f'{spec.name}: its description names no split file: add [options] file = "..."')
    candidates = layout.file_candidates(spec, place, options["file"])
    file = layout.first_existing(candidates)
    if file is None:
        raise layout.missing(
            spec,
            f"the split file {options['file']}",
            candidates,
            "It is CoOp's list of training, validation and test images, "
            "and no other list gives comparable numbers. CoOp's DATASETS.md links it, "
            "and the folder splits/ of linzhiqiu/cross_modal_adaptation holds all nine; "
            f"put it in {layout.first_existing(layout.dataset_folders(spec, place)) or candidates[0].parent}",
        )
    split = read_split(file)
    notes = []
    if options["sha256"] and sha256_file(file) != options["sha256"]:
        notes.append(f"{file.name} is not byte for byte the published file")
    return build(spec, place, split, layout.image_folder(spec, place), notes)


def aircraft(spec: DatasetSpec, place: Place) -> Dataset:
    """Read FGVC Aircraft's own text files (datasets 3.7).

    They are a class list, and one list "image-id class" per part. Options: ``classes`` is the name of the
    class list, ``lists`` the pattern of the three lists' names.
    """
    options = spec.option_values(classes="variants.txt", lists="images_variant_{part}.txt")
    candidates = [home / options["classes"] for home in layout.dataset_folders(spec, place)]
    file = layout.first_existing(candidates)
    if file is None:
        raise layout.missing(spec, f"the class list {options['classes']}", candidates, spec.get)
    names = [line for _, line in _lines(file)]
    labels = {name: label for label, name in enumerate(names)}
    if len(labels) < len(names):
        twice = next(name for label, name in enumerate(names) if labels[name] != label)
        raise BenchError(f"{file}: '{shown(twice)}' is listed twice; {_MEND}")
    seen: set[str] = set()
    parts = {
        part: _aircraft_list(file.parent / options["lists"].replace("{part}", part), labels, spec, seen)
        for part in PARTS
    }
    split = Split(parts["train"], parts["val"], parts["test"], tuple(names))
    return build(spec, place, split, layout.image_folder(spec, place), [])


def _aircraft_list(file: Path, labels: dict[str, int], spec: DatasetSpec, seen: set[str]) -> Items:
    """Read the images of one part's list with their labels. ``seen`` collects the images of all parts."""
    if not file.is_file():
        raise layout.missing(spec, f"the list {file.name}", [file], spec.get)
    paths: list[str] = []
    chosen: list[int] = []
    for number, line in _lines(file):
        image, _, name = line.partition(" ")  # an id keeps its leading zeros, and a name may hold blanks
        path = f"{image}.jpg"
        if name not in labels:
            raise BenchError(
                f"{file}: line {number}: '{short(shown(name))}' is not in the class list; {_MEND}"
            )
        if escapes(path):
            raise BenchError(f"{file}: line {number}: path '{shown(path)}' leaves the image folder; {_MEND}")
        if path in seen:
            raise BenchError(f"{file}: line {number}: '{shown(image)}' is listed twice; {_MEND}")
        seen.add(path)
        paths.append(path)
        chosen.append(labels[name])
    if not paths:
        raise BenchError(f"{file}: lists no image; {_MEND}")
    return Items(tuple(paths), tuple(chosen))


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a list that are not empty, stripped, each with its number.

    Raises BenchError for a line that is too long or no plain text.
    """
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if "\ufeff" in line or "\0" in line or len(line) > _LONGEST:
            what = "longer than any name" if len(line) > _LONGEST else "not plain text"
            raise BenchError(
                f"{file}: line {number}: {what}: save it as UTF-8 text without a byte order mark"
            )
        if text := line.strip():
            yield number, text


def build(spec: DatasetSpec, place: Place, split: Split, images: Path, notes: list[str]) -> Dataset:
    """Make the dataset of ``split``, whose images lie under ``images``.

    A note is added if the class names differ from the published ones.
    """
    expected = spec.classnames.sha256
    if expected and hashlib.sha256("\n".join(split.classnames).encode()).hexdigest() != expected:
        notes = [*notes, "class names or their order differ from the published ones"]
    digest = dataset_digest(split.classnames, split.train, split.val, split.test)
    return Dataset(
        name=spec.name,
        spec=spec,
        classnames=split.classnames,
        train=split.train,
        val=split.val,
        test=split.test,
        digest=digest,
        lists=digest,
        source=layout.source(spec, place, images),
        notes=tuple(notes),
        indices=layout.index_folder(spec, place),
    )
