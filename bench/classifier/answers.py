"""Turn paths into a list of images, and a classifier's answers into rows of CSV or JSON."""

from __future__ import annotations

import csv
import glob
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.classifier.file import About
from bench.data import walk
from bench.data.endings import is_picture
from bench.errors import BenchError
from bench.names import in_json, printable

STDIN = "-"  # the path that stands for paths on standard input
_DIGITS = 6  # of a probability in a row


def listed(paths: Sequence[str], lines: Callable[[], Iterable[str]]) -> list[str]:
    """Return the image files that paths name, in their order.

    A file is taken whatever its ending, also one that is not there (its row says so). A folder gives its
    pictures and those of the folders below it, sorted; hidden files are passed over. A pattern with ``*``,
    ``?`` or ``[`` gives what it matches, sorted, of which only files with a picture's ending count.
    ``lines`` is called for the path ``-`` and yields paths of the same three kinds. Raises BenchError if
    nothing is found, or a folder cannot be listed.
    """
    found: list[str] = []
    for path in paths:
        for one in lines() if path == STDIN else (path,):
            found += _of(one)
    if not found:
        raise BenchError(
            f"no image in {' '.join(map(printable, paths)) or 'nothing'}: name files, folders or patterns"
        )
    return found


def _of(path: str) -> list[str]:
    """Return the image files that one path names."""
    if os.path.isdir(path):
        return _below(path)
    if os.path.lexists(path) or not glob.has_magic(path):
        return [path]
    matches = sorted(glob.glob(path, recursive=True))
    return [
        file for one in matches for file in (_below(one) if os.path.isdir(one) else [one] * is_picture(one))
    ]


def _below(folder: str) -> list[str]:
    """Return the pictures in a folder and those below it."""
    found, waiting = [], [folder]
    while waiting:
        here = waiting.pop()
        listing = walk.look(Path(here))
        found += [os.path.join(here, name) for name in listing.pictures]
        waiting += [os.path.join(here, name) for name in reversed(listing.folders)]
    return found


def least(about: About, confidence: float | None, error: str | None) -> float | None:
    """Return the least probability of an answer that is given, or None if all are given.

    ``confidence``: a probability. ``error``: the error to hold among the given answers, as in ``5%`` or
    ``0.05``. The stricter of the two counts; infinity gives none. Raises BenchError for an error of which
    the classifier knows no threshold.
    """
    bounds = [] if confidence is None else [confidence]
    if error is not None:
        share = _share(error)
        known = about.thresholds
        if not known:
            raise BenchError(
                f"--abstain-at-error {error}: this classifier knows no thresholds, because it was made "
                "without answers on held-out images; use --min-confidence"
            )
        found = next((name for name in known if math.isclose(float(name), share)), None)
        if found is None:
            there = ", ".join(f"{100 * float(name):g}%" for name in known)
            raise BenchError(f"--abstain-at-error {error}: this classifier knows thresholds for {there}")
        threshold = known[found]
        bounds.append(math.inf if threshold is None else threshold)
    return max(bounds, default=None)


def _share(text: str) -> float:
    """Return an error as a share. Raises BenchError if the text is none between 0 and 1."""
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        number = math.nan
    if not 0 < number < 1:
        raise BenchError(f"--abstain-at-error {text}: write a share of wrong answers, as in 5% or 0.05")
    return number


@dataclass(frozen=True)
class Row:
    """What is said of one image.

    ``classes``, ``probabilities``: the best, in order; empty for an image that could not be read. ``given``:
    whether the best class is given as the answer. ``note``: the reason if it is not.
    """

    file: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    given: bool
    note: str = ""


def row(
    name: str,
    shares_K: NDArray[np.floating],
    order_K: NDArray[np.intp],
    classes: Sequence[str],
    least: float | None,
) -> Row:
    """Return the row of an image with these probabilities, whose best classes are ``order_K``."""
    most = float(shares_K[order_K[0]])
    sure = least is None or most >= least
    note = ""
    if not sure:
        note = "abstains always" if least == math.inf else f"abstains below {least:.4g}"
    return Row(
        name,
        tuple(classes[k] for k in order_K),
        tuple(float(shares_K[k]) for k in order_K),
        sure,
        note,
    )


def unread(name: str, reason: str) -> Row:
    """Return the row of an image that could not be read."""
    return Row(name, (), (), False, " ".join(reason.split()))


def columns(top: int) -> list[str]:
    """Return the names of the columns of a CSV file with the ``top`` best classes."""
    further = [f"{what}_{i}" for i in range(2, top + 1) for what in ("class", "probability")]
    return ["file", "class", "probability", *further, "note"]


def in_csv(rows: Iterable[Row], top: int, header: bool = False) -> str:
    """Return rows as lines of CSV. The class is empty where none is given."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(columns(top))
    for one in rows:
        cells: list[str] = []
        for name, share in zip(one.classes[:top], one.probabilities, strict=False):
            cells += [name, f"{share:.{_DIGITS}f}"]
        if cells and not one.given:
            cells[0] = ""
        cells += [""] * (2 * top - len(cells))
        writer.writerow([printable(one.file), *cells, printable(one.note)])
    return text.getvalue()


def in_jsonl(rows: Iterable[Row], top: int) -> str:
    """Return rows as lines of JSON. ``class`` is null where none is given; ``top`` has the best classes."""
    return "".join(in_json(json.dumps(_plain(one, top), ensure_ascii=False)) + "\n" for one in rows)


def _plain(one: Row, top: int) -> dict[str, Any]:
    shares = [round(share, _DIGITS) for share in one.probabilities]
    best = zip(one.classes[:top], shares, strict=False)
    return {
        "file": printable(one.file),
        "class": one.classes[0] if one.given else None,
        "probability": shares[0] if shares else None,
        "top": [{"class": name, "probability": share} for name, share in best],
        "note": printable(one.note),
    }
