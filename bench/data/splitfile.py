"""Read and write CoOp's split files (datasets 2): one JSON object with the lists train, val and test.

A file is checked strictly, and the order of its rows is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from bench import typed
from bench.data.dataset import Items
from bench.data.imagefile import escapes, spelled
from bench.errors import BenchError
from bench.names import quoted, shown

PARTS = ("train", "val", "test")
_MEND = "download the split file again, or correct it"  # the end of error messages
# A row is image, label and class name. No file system has paths of more than 4096 characters, and no text
# tower reads a longer class name to its end.
_Rows = list[
    tuple[Annotated[str, Meta(max_length=4096)], int, Annotated[str, Meta(min_length=1, max_length=4096)]]
]


@dataclass(frozen=True)
class Split:
    """The three lists of a split file, and the class names by label."""

    train: Items
    val: Items
    test: Items
    classnames: tuple[str, ...]


def read_split(file: Path) -> Split:
    """Read and check a split file without looking at images.

    ``imagefile.spelled`` unifies the spelling of paths. Raises BenchError if the file is not exactly three
    lists of ``[path, label, class name]``, if train or test is empty, if the labels are not 0..C-1 with one
    name each and all of them in train, if a path occurs twice, or if a path leaves the image folder.
    """
    try:
        content = typed.json(file, dict[str, Any])
    except OSError as error:
        raise BenchError(f"{file}: {error.strerror}; download the split file again") from error
    except BenchError as error:
        raise BenchError(f"{error}; download the split file again") from error
    return parse_split(content, str(file))


def parse_split(content: Any, where: str) -> Split:
    """Make a Split from parsed JSON, checked as in ``read_split``; ``where`` begins the error messages."""
    if not isinstance(content, dict) or set(content) != set(PARTS):
        raise BenchError(f"{where}: a split file has exactly the keys train, val and test; {_MEND}")
    seen: set[str] = set()
    names: dict[int, str] = {}
    lists = {part: _items(content[part], f"{where}: {part}", seen, names) for part in PARTS}
    for part in ("train", "test"):
        if not len(lists[part]):
            raise BenchError(f"{where}: {part} holds no row; {_MEND}")
    if sorted(names) != list(range(len(names))):
        raise BenchError(f"{where}: labels must be 0 to {len(names) - 1} without gaps; {_MEND}")
    absent = set(names) - set(lists["train"].labels)
    if absent:
        raise BenchError(
            f"{where}: class {min(absent)} ('{shown(names[min(absent)])}') has no row in train; {_MEND}"
        )
    return Split(
        lists["train"], lists["val"], lists["test"], tuple(names[label] for label in range(len(names)))
    )


def _items(rows: Any, where: str, seen: set[str], names: dict[int, str]) -> Items:
    """Check the rows of one list and return them.

    ``seen`` and ``names`` collect the paths and class names of all lists.
    """
    paths: list[str] = []
    labels: list[int] = []
    for number, (listed, label, name) in enumerate(typed.converted(rows, _Rows, where)):
        at = f"{where}[{number}]"
        path = spelled(listed)
        if escapes(path):
            raise BenchError(f"{at}: path {shown(listed)!r} leaves the image folder; {_MEND}")
        if (one := path.replace("\\", "/")) in seen:
            raise BenchError(f"{at}: {shown(listed)} is listed twice; {_MEND}")
        if names.setdefault(label, name) != name:
            raise BenchError(f"{at}: class {label} is both {quoted((names[label], name))}; {_MEND}")
        seen.add(one)
        paths.append(path)
        labels.append(label)
    return Items(tuple(paths), tuple(labels))


def split_rows(split: Split) -> dict[str, list[list[Any]]]:
    """Return the split as JSON rows, ready to be written as a split file."""
    return {
        part: [
            [path, label, split.classnames[label]]
            for path, label in zip(getattr(split, part).paths, getattr(split, part).labels, strict=True)
        ]
        for part in PARTS
    }
