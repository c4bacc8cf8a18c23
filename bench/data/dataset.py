"""Define what every reader returns: lists of images with labels, and the source that opens the images."""

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
    """Images and their labels, as two parallel lists.

    Their order is part of the protocol, so nothing may sort them (datasets 2.2).
    """

    paths: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.paths) == len(self.labels), "paths and labels are parallel"

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Iterable[int]) -> Items:
        """Return the rows at ``indices``, in that order."""
        chosen = tuple(indices)
        return Items(tuple(self.paths[i] for i in chosen), tuple(self.labels[i] for i in chosen))


class ImageSource(Protocol):
    """An opener of a dataset's images by the paths in its items.

    It can be pickled, so that workers can have it.
    """

    def open(self, path: str) -> Image.Image:
        """Return the image as RGB in its own size.

        Raises BenchError, which names the file, if it cannot be read or is refused.
        """
        ...


@dataclass(frozen=True)
class Dataset:
    """A dataset that has been found and read.

    ``classnames`` is indexed by label. Underscores stay in it; prompts replace them. ``digest`` identifies
    the lists, labels and names, and contains no path of this machine. ``lists`` equals ``digest`` if the
    reader did not look at the images' bytes (``bench.data.seen`` watches such images); otherwise it is empty.

    ``classes`` is for shifted test sets that hold a subset of their source's classes: label i of this dataset
    is row ``classes[i]`` of the source's class list. None means all classes, in order. ``own_split`` marks
    lists that this program cut because no published ones were found; ``notes`` say how. ``indices`` is a
    folder of few-shot index files, which replace the draw (datasets 4.4), or None. ``reading`` says how a
    user's own folder was understood. ``same`` holds the groups of paths whose files have equal bytes, as far
    as the reader looked.

    ``whole`` is for a fold (``bench.data.folds``): the dataset that it was cut from. Its images are those of
    the whole, so their features and stamps are kept under the whole's names, once for all folds.
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
    same: tuple[tuple[str, ...], ...] = ()
    whole: Dataset | None = None

    def listed(self) -> Iterator[str]:
        """Yield every path of the three lists, in order."""
        for items in (self.train, self.val, self.test):
            yield from items.paths

    @property
    def covers(self) -> Literal["lists", "contents"]:
        """Return what ``digest`` was taken of: the lists alone, or the contents of the images too."""
        return "lists" if self.lists == self.digest else "contents"

    @property
    def stored_as(self) -> str:
        """Return the name of this dataset's stored features. All folds of a dataset share its features.

        For watched images it differs from ``digest``: features from before image files were watched have that
        name, and must not be found.
        """
        if self.whole is not None:
            return self.whole.stored_as
        return digest([self.digest, "watched"]) if self.lists else self.digest


@dataclass(frozen=True)
class Draw:
    """The images that a fit may see: a support set and a validation set (datasets 4.1; folds: 4.7).

    ``train_indices`` and ``val_indices`` are positions in the dataset's train and val lists. ``digest``
    identifies the two ordered lists of paths. ``note`` says in which way the draw is not the standard one.
    """

    train: Items
    val: Items
    train_indices: tuple[int, ...]
    val_indices: tuple[int, ...]
    digest: str
    note: str = ""


def path_digest(paths: Iterable[str]) -> str:
    """Return the SHA-256 (hex) of relative paths (datasets 4.1).

    They are joined by newlines, with none at the end, in UTF-8.
    """
    return hashlib.sha256("\n".join(paths).encode()).hexdigest()


def dataset_digest(classnames: Iterable[str], train: Items, val: Items, test: Items, *more: str) -> str:
    """Return the SHA-256 (hex) of the class names and the three labelled lists.

    ``more`` is whatever else defines the images, such as digests of their contents.
    """
    state = hashlib.sha256()
    for part in ("\n".join(classnames), *map(_rows, (train, val, test)), *more):
        state.update(f"{len(part)}:".encode() + part.encode() + b"\0")
    return state.hexdigest()


def _rows(items: Items) -> str:
    return "\n".join(f"{label}\t{path}" for path, label in zip(items.paths, items.labels, strict=True))
