"""Draw the images that a fit may see (datasets 4.1).

Read and write index files, which record draws (datasets 4.4).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from bench import typed
from bench.data.dataset import Dataset, Draw, Items, path_digest
from bench.errors import BenchError, MissingData
from bench.files import digest

MAX_VAL_SHOTS = 4
_Whole = int | Annotated[str, Meta(pattern=r"^[0-9]{1,18}\Z")]  # some tools write numbers as strings


class _Image(Struct):
    impath: str
    label: _Whole


class _Part(Struct):
    data: list[_Image]
    indices: list[_Whole]


class _Index(Struct):
    train: _Part
    val: _Part


def draw(dataset: Dataset, shots: int, seed: int) -> Draw:
    """Draw ``shots`` images per class for the support set and min(shots, 4) for validation, by ``seed``.

    One private ``random.Random(seed)`` draws from train and then from val. Classes come in the order of their
    first appearance, images in the order of the sample. A class with fewer images is taken whole. Draws of
    different numbers of shots are not nested. If the dataset has a folder of index files, and in it a file
    for these shots and this seed, that file is the draw. ``shots = 0`` gives the empty draw of methods that
    use no labels.

    Raises MissingData if the dataset has no training images here, and BenchError for a test-only dataset.
    """
    if shots < 0:
        raise BenchError(f"shots must be 0 or more, not {shots}")
    if shots == 0:
        return _draw((), (), dataset, "")
    _require_train(dataset)
    index = dataset.indices / f"shot_{shots}-seed_{seed}.json" if dataset.indices else None
    if index is not None and index.is_file():
        return read_index(dataset, index)
    generator = random.Random(seed)
    train = sample(dataset.train, shots, generator)
    val = sample(dataset.val, min(shots, MAX_VAL_SHOTS), generator)
    return _draw(train, val, dataset, _shortage(dataset, shots))


def sample(items: Items, shots: int, generator: random.Random) -> tuple[int, ...]:
    """Return the positions of ``shots`` items per label (datasets 4.1, steps 2 and 3).

    Labels come in the order of their first appearance.
    """
    groups: dict[int, list[int]] = {}
    for position, label in enumerate(items.labels):
        groups.setdefault(label, []).append(position)
    chosen: list[int] = []
    for group in groups.values():
        chosen += generator.sample(group, shots) if len(group) >= shots else group
    return tuple(chosen)


def export_index(dataset: Dataset, drawn: Draw) -> dict[str, Any]:
    """Return the draw as a Cross-Modal index file (datasets 4.4).

    Its paths are relative to the dataset's folder.
    """
    prefix = dataset.spec.images[0].strip("/")

    def part(items: Items, indices: tuple[int, ...]) -> dict[str, Any]:
        rows = zip(items.paths, items.labels, strict=True)
        return {
            "data": [
                {
                    "impath": f"{prefix}/{path}" if prefix else path,
                    "label": label,
                    "classname": dataset.classnames[label],
                }
                for path, label in rows
            ],
            "indices": list(indices),
        }

    return {"train": part(drawn.train, drawn.train_indices), "val": part(drawn.val, drawn.val_indices)}


def read_index(dataset: Dataset, file: Path) -> Draw:
    """Read the draw that an index file on disk records; see ``import_index``."""
    return import_index(dataset, typed.json(file, dict[str, Any]), f"index file {file.name}")


def import_index(dataset: Dataset, content: Mapping[str, Any], where: str = "index file") -> Draw:
    """Return the draw that an index file's ``content`` records.

    Folders before the dataset's own paths are ignored. Positions and paths must agree with the dataset's
    lists. If these lists are the program's own cut (``dataset.own_split``), positions count in another list,
    so images are matched by path alone. Raises BenchError, beginning with ``where``, if file and dataset
    disagree.
    """
    _require_train(dataset)
    parts: dict[str, tuple[Items, tuple[int, ...]]] = {}
    index = _index(content, where)
    for name, part, items in (("train", index.train, dataset.train), ("val", index.val, dataset.val)):
        rows = list(_rows(part, f"{where}: {name}"))
        if dataset.own_split:
            parts[name] = _by_path(dataset, rows, where), tuple(position for _, _, position in rows)
            continue
        for path, label, position in rows:
            if not (
                0 <= position < len(items)
                and items.labels[position] == label
                and _same_file(path, items.paths[position])
            ):
                raise BenchError(
                    f"{where}: {name} position {position} is {path} (label {label}), "
                    f"but {dataset.name}'s list has something else there: the file belongs to another split. "
                    "Remove it, and the images are drawn; or get the split that it was made with"
                )
        positions = tuple(position for _, _, position in rows)
        parts[name] = items.take(positions), positions
    (train, train_indices), (val, val_indices) = parts["train"], parts["val"]
    if len(set(train.paths) | set(val.paths)) < len(train) + len(val):
        raise BenchError(f"{where}: an image occurs twice: keep one of the two, in train or in val")
    return Draw(train, val, train_indices, val_indices, _pair_digest(train, val), f"from {where}")


def _rows(part: _Part, where: str) -> Iterator[tuple[str, int, int]]:
    """Yield path, label and position of each image of a part."""
    if len(part.data) != len(part.indices):
        raise BenchError(
            f"{where}: {len(part.data)} images and {len(part.indices)} indices; write one index per image"
        )
    for item, position in zip(part.data, part.indices, strict=True):
        yield item.impath.replace("\\", "/"), int(item.label), int(position)


def _index(content: Mapping[str, Any], where: str) -> _Index:
    """Return the content of an index file as typed data. Raises BenchError if it is none."""
    try:
        return typed.converted(content, _Index, where)
    except typed.Odd as error:
        reason = str(error).removeprefix(f"{where}: ")
        raise BenchError(
            f"{where}: not a Cross-Modal index file, which holds "
            f'{{"train": {{"data": [...], "indices": [...]}}, "val": ...}} ({reason})'
        ) from error


def _by_path(dataset: Dataset, rows: list[tuple[str, int, int]], where: str) -> Items:
    """Find the rows in the dataset's train and val lists by path alone, whatever folders stand before it."""
    known = {path: (path, label) for items in (dataset.train, dataset.val) for path, label in _pairs(items)}
    chosen: list[tuple[str, int]] = []
    for path, label, _ in rows:
        parts = path.split("/")
        row = next((known[tail] for i in range(len(parts)) if (tail := "/".join(parts[i:])) in known), None)
        if row is None or row[1] != label:
            raise BenchError(
                f"{where}: {path} (label {label}) is not among the training images of {dataset.name}; "
                "the file belongs to another dataset or split: remove it, and the images are drawn"
            )
        chosen.append(row)
    return Items(tuple(path for path, _ in chosen), tuple(label for _, label in chosen))


def _pairs(items: Items) -> Iterator[tuple[str, int]]:
    return zip(items.paths, items.labels, strict=True)


def _same_file(path: str, row: str) -> bool:
    return path == row or path.endswith(f"/{row}")


def _draw(train: tuple[int, ...], val: tuple[int, ...], dataset: Dataset, note: str) -> Draw:
    chosen, held_out = dataset.train.take(train), dataset.val.take(val)
    return Draw(chosen, held_out, train, val, _pair_digest(chosen, held_out), note)


def _pair_digest(train: Items, val: Items) -> str:
    return digest({"train": path_digest(train.paths), "val": path_digest(val.paths)})


def _require_train(dataset: Dataset) -> None:
    """Raise an error if the dataset has no training images."""
    if len(dataset.train):
        return
    if dataset.spec.source:
        raise BenchError(
            f"{dataset.name} is a test set only: "
            f"run {dataset.spec.source} and it is evaluated as one of its targets"
        )
    raise MissingData(
        f"{dataset.name} has no training images here: {'; '.join(dataset.notes) or dataset.spec.get}"
    )


def _shortage(dataset: Dataset, shots: int) -> str:
    """Say how many classes have fewer than ``shots`` training images; empty if none has."""
    sizes = Counter(dataset.train.labels)
    short = sum(1 for size in sizes.values() if size < shots)
    if not short:
        return ""
    return f"{short} of {len(sizes)} classes have fewer than {shots} training images and are taken whole"
