"""Read the predictions for a test set from a CSV file, and check every line before anything is made of it.

Legend: n test images, K classes of the test set.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import Dataset
from bench.errors import BenchError
from bench.files import regular
from bench.imported.names import Classes, Images
from bench.names import counted, few, short, shown

IMAGE, PREDICTED = "image", "predicted"
SUM_WITHIN = 0.005  # what the probabilities of 1,000 classes with four decimals may lack of 1, and more
FORM = "the first line names the columns: image, predicted and, if there are probabilities, p_CLASS for each"
_NEVER = 0  # no line of a file has this number


@dataclass(frozen=True)
class Predictions:
    """What a file says of every test image, in the order of the test list.

    - ``top1`` (n,): the predicted class, from 0 to K - 1.
    - ``probabilities`` (n, K): each row sums to 1. None if the file has none.
    """

    top1: NDArray[np.int64]
    probabilities: NDArray[np.float64] | None = None

    @property
    def digest(self) -> str:
        """The SHA-256 (hex) of the numbers. The order of the file's lines and columns does not change it."""
        state = hashlib.sha256(self.top1.astype("<i8").tobytes())
        if self.probabilities is not None:
            state.update(self.probabilities.astype("<f8").tobytes())
        return state.hexdigest()


def read(file: Path, target: Dataset) -> Predictions:
    """Return the predictions of a CSV file for all n images of a test set.

    The first line names the columns. ``image`` holds a path as the dataset lists it; folders may stand before
    it, and the base name alone will do where only one test image has it. ``predicted`` holds a class, by its
    name or its number from 0. Every other column holds the probabilities of one class: it is called as the
    class, with or without ``p_`` before it. With probabilities, ``predicted`` may be missing; the most
    probable class then counts, of several the one with the lower number.

    Raises BenchError, which names the line and the mend, for a file that is no such table, an image that is
    missing, unknown or there twice, an unknown class, and probabilities that are no probabilities, do not sum
    to 1 (within ``SUM_WITHIN``), or are largest for another class than the predicted one.
    """
    reader = _Reader(file, target)
    try:
        with regular(file) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
            return reader.read(text)
    except UnicodeDecodeError as error:
        raise BenchError(f"{file}: not UTF-8 text: save it as CSV with the encoding UTF-8") from error
    except csv.Error as error:
        raise BenchError(
            f"{file}: line {reader.line}: no line of a CSV file ({error}): put commas between the cells, and "
            "double quotes around a cell that holds a comma"
        ) from error


class _Reader:
    """The reader of one file. ``line``: the number of the line that is read, from 1."""

    def __init__(self, file: Path, target: Dataset) -> None:
        self.file, self.target, self.line = file, target, 1
        self.images, self.classes = Images(target), Classes(target.classnames)
        n = len(target.test)
        self.seen = np.full(n, _NEVER, np.int64)  # the line of each image
        self.top1 = np.zeros(n, np.int64)

    def read(self, text: io.TextIOWrapper) -> Predictions:
        rows = self._rows(text)
        head = next(rows, None)
        if head is None:
            raise BenchError(f"{self.file}: is empty; {FORM} class")
        head = _usual(head)
        image, predicted, columns = self._columns(head)
        probabilities = np.zeros((len(self.seen), len(columns))) if columns else None
        for row in rows:
            if len(row) != len(head):
                raise self._bad(f"{len(row)} cells, but the first line has {len(head)}: write one per column")
            i = self._image(row[image])
            if probabilities is not None:
                probabilities[i] = self._distribution([row[column] for column in columns])
            self.top1[i] = self._predicted(
                row, predicted, None if probabilities is None else probabilities[i]
            )
        self._require_all()
        return Predictions(self.top1, probabilities)

    def _bad(self, what: str) -> BenchError:
        return BenchError(f"{self.file}: line {self.line}: {what}")

    def _rows(self, text: io.TextIOWrapper) -> Iterator[list[str]]:
        """Yield the cells of each line that is not blank, without the blanks around them."""
        lines = csv.reader(text, strict=True)
        while True:
            self.line = lines.line_num + 1
            try:
                row = next(lines)
            except StopIteration:
                return
            if any(cell.strip() for cell in row):
                yield [cell.strip() for cell in row]

    def _columns(self, head: Sequence[str]) -> tuple[int, int | None, list[int]]:
        """Return the columns of images, predicted classes, and probabilities in the order of classes."""
        if len(head) == 1 and any(sign in head[0] for sign in ";\t"):
            raise self._bad("the columns are not divided by commas: save the file as CSV with commas")
        if twice := [name for name, count in Counter(head).items() if count > 1]:
            raise self._bad(f"two columns are called '{_cut(twice[0])}': leave one of them out")
        if IMAGE not in head:
            raise self._bad(f"no column is called 'image'; {FORM} class")
        columns: dict[int, int] = {}  # by class
        for position, name in enumerate(head):
            if name in (IMAGE, PREDICTED):
                continue
            k = self.classes.column(name)
            if k is None:
                raise self._bad(
                    f"column '{_cut(name)}' is neither 'image' nor 'predicted' nor the probability of a "
                    f"class of {self.target.name}{self.classes.hint(name)}: rename it or leave it out"
                )
            if k in columns:
                raise self._bad(
                    f"columns '{_cut(head[columns[k]])}' and '{_cut(name)}' are of one class: leave one out"
                )
            columns[k] = position
        lacking = [name for k, name in enumerate(self.target.classnames) if k not in columns]
        if columns and lacking:
            raise self._bad(
                f"there are probabilities of {counted(len(columns), 'class', 'classes')}, but not of "
                f"{few(map(shown, lacking))}: write a column for each class, or none"
            )
        if not columns and PREDICTED not in head:
            raise self._bad(f"no column is called 'predicted', and none has probabilities; {FORM} class")
        predicted = list(head).index(PREDICTED) if PREDICTED in head else None
        return list(head).index(IMAGE), predicted, [columns[k] for k in sorted(columns)]

    def _image(self, name: str) -> int:
        """Return the position of an image in the test list, and note that it was there."""
        i, why = self.images.find(name)
        if i is None:
            raise self._bad(f"image '{_cut(name)}' {why}")
        if self.seen[i] != _NEVER:
            raise self._bad(f"image '{_cut(name)}' was on line {self.seen[i]} already: leave one of them out")
        self.seen[i] = self.line
        return i

    def _distribution(self, cells: Sequence[str]) -> NDArray[np.float64]:
        """Return the probabilities (K,) of one image, which sum to 1 exactly."""
        try:
            p: NDArray[np.float64] = np.array(cells, np.float64)
        except ValueError:
            k = next(k for k, cell in enumerate(cells) if not _is_number(cell))
            if not cells[k]:
                raise self._bad(
                    f"there is no probability of {self._named(k)}: write one for each class, or delete the "
                    "columns of probabilities"
                ) from None
            raise self._bad(
                f"'{_cut(cells[k])}' as the probability of {self._named(k)} is no number: write one from 0 "
                "to 1, with a point before the decimals"
            ) from None
        if (wrong := np.flatnonzero(~((p >= 0) & (p <= 1 + SUM_WITHIN)))).size:
            k = int(wrong[0])
            raise self._bad(
                f"{_cut(cells[k])} as the probability of {self._named(k)} is not from 0 to 1: write "
                "probabilities, not logits or percent"
            )
        if abs(p.sum() - 1) > SUM_WITHIN:
            raise self._bad(
                f"the probabilities sum to {p.sum():.4f}, not to 1: write those of a softmax over all "
                "classes, with four decimals or more"
            )
        return np.asarray(p / p.sum())

    def _predicted(self, row: Sequence[str], column: int | None, p: NDArray[np.float64] | None) -> int:
        """Return the predicted class of a line, after comparing it with the probabilities."""
        if p is not None and (column is None or not row[column]):
            return int(p.argmax())
        assert column is not None
        if not row[column]:
            raise self._bad("no class is predicted: write its name")
        k = self.classes.find(row[column])
        if k is None:
            numbers = f", or its number from 0 to {len(self.target.classnames) - 1}"
            raise self._bad(
                f"'{_cut(row[column])}' is no class of {self.target.name}{self.classes.hint(row[column])}: "
                f"write the name of a class{numbers if self.classes.by_number else ''}"
            )
        if k < 0:
            raise self._bad(f"several classes are called '{_cut(row[column])}': write the class's number")
        if p is not None and p[k] < p.max():
            best = int(p.argmax())
            raise self._bad(
                f"{self._named(k)} is predicted with probability {p[k]:.4g}, but {self._named(best)} has "
                f"{p[best]:.4g}: predict the most probable class, or leave the column 'predicted' out"
            )
        return k

    def _require_all(self) -> None:
        """Raise BenchError if the file lacks test images."""
        missing = np.flatnonzero(self.seen == _NEVER)
        if missing.size:
            names = few(self.target.test.paths[i] for i in missing)
            raise BenchError(
                f"{self.file}: {missing.size} of the {counted(len(self.seen), 'test image')} of "
                f"{self.target.name} are missing, such as {names}: write a line for each"
            )

    def _named(self, k: int) -> str:
        return f"'{_cut(self.target.classnames[k])}'"


def _usual(head: Sequence[str]) -> list[str]:
    """Return the names of columns with ``image`` and ``predicted`` in small letters."""
    usual = {name.lower(): name for name in reversed(head) if name.lower() in (IMAGE, PREDICTED)}
    chosen = {name for small, name in usual.items() if small not in head}
    return [name.lower() if name in chosen else name for name in head]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _cut(text: str) -> str:
    return short(shown(text))
