"""What every reader returns: lists of images with labels, and the source that opens them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from bench.data.reading import Reading
from bench.files import digest

if TYPE_CHECKING:
    from PIL import Image

    from bench.data.spec import DatasetSpec


@dataclass(frozen=True)
class Items:
    """Images and labels in parallel. Their order is part of the protocol: never sort it (datasets 2.2)."""

    paths: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.paths) == len(self.labels), "paths and labels are parallel"

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Iterable[int]) -> Items:
        """The rows at ``indices``, in that order."""
        chosen = tuple(indices)
        return Items(tuple(self.paths[i] for i in chosen), tuple(self.labels[i] for i in chosen))


class ImageSource(Protocol):
    """Opens a dataset's images by the paths in its items. It pickles, so worker processes can hold it."""

    def open(self, path: str) -> Image.Image:
        """The image as RGB in its own size. BenchError names a file that cannot be read or is refused."""
        ...


@dataclass(frozen=True)
class Dataset:
    """A dataset that has been found and read.

    ``classnames`` is indexed by label; underscores are kept (prompts replace them). ``digest`` identifies the
    lists, labels and names, and no path of the machine. ``lists`` is the same digest where the reader did not
    look at the images' bytes (``bench.data.seen`` watches such images), else empty. ``classes`` is for
    shifted test sets that hold a subset of their source's classes: label i here is row ``classes[i]`` of the
    source's class list; None means all, in order. ``own_split`` marks lists cut by this program where no
    published ones are at hand (``notes`` say how). ``indices`` is a folder of few-shot index files (datasets
    4.4) that take the place of the draw, if there is one. ``reading`` says how somebody's own folder was
    understood.
    """

    name: str
    spec: DatasetSpec
    classnames: tuple[str, ...]
    train: Items
    val: Items
    test: Items
    digest: str
    source: ImageSource
    notes: tuple[str, ...] = ()
    classes: tuple[int, ...] | None = None
    own_split: bool = False
    indices: Path | None = None
    lists: str = ""
    reading: Reading | None = None

    def listed(self) -> Iterator[str]:
        """Every path of the three lists, in order."""
        for items in (self.train, self.val, self.test):
            yield from items.paths

    @property
    def covers(self) -> Literal["lists", "contents"]:
        """What ``digest`` was taken of: the lists alone, or the images' contents too."""
        return "lists" if self.lists == self.digest else "contents"

    @property
    def stored_as(self) -> str:
        """What names stored features. Rows from before image files were watched are under another name."""
        return digest([self.digest, "watched"]) if self.lists else self.digest


@dataclass(frozen=True)
class Draw:
    """The images a few-shot fit may see: a support set and a validation set (datasets 4.1).

    ``train_indices`` and ``val_indices`` are positions in the dataset's train and val lists. ``digest``
    identifies the two ordered lists of paths; ``note`` says what is not standard about them.
    """

    train: Items
    val: Items
    train_indices: tuple[int, ...]
    val_indices: tuple[int, ...]
    digest: str
    note: str = ""


def path_digest(paths: Iterable[str]) -> str:
    """SHA-256 (hex) of relative paths joined by one newline, none at the end, UTF-8 (datasets 4.1)."""
    return hashlib.sha256("\n".join(paths).encode()).hexdigest()


def dataset_digest(classnames: Iterable[str], train: Items, val: Items, test: Items, *more: str) -> str:
    """SHA-256 (hex) of class names and the three labelled lists; ``more`` is what else defines the images."""
    state = hashlib.sha256()
    for part in ("\n".join(classnames), *map(_rows, (train, val, test)), *more):
        state.update(f"{len(part)}:".encode() + part.encode() + b"\0")
    return state.hexdigest()


def _rows(items: Items) -> str:
    return "\n".join(f"{label}\t{path}" for path, label in zip(items.paths, items.labels, strict=True))
