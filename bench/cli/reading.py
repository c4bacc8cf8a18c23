"""Say in one line what was read from a user's own folder of images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench.data.reading import HIDDEN
from bench.names import by_reason, counted, few, shown

if TYPE_CHECKING:
    from bench.data.dataset import Dataset
    from bench.data.reading import LeftOut

SHOWN = 6  # class names that the line holds
_EXAMPLES = 5  # the first of at most so many left-out files is named; of more, only their number is


def line(dataset: Dataset) -> str:
    """Return the line; empty for a dataset of the catalog."""
    if dataset.spec.base is None:
        return ""
    reading = dataset.reading
    sizes = []
    for part in ("train", "val", "test"):
        folder = reading.parts.get(part, part) if reading else part
        sizes.append(
            f"{part} {len(getattr(dataset, part))}{f' ({shown(folder)}/)' if folder != part else ''}"
        )
    images = f"{', '.join(sizes)} images"
    if dataset.whole is not None:
        images = f"{len(list(dataset.listed()))} labelled images in folds"
    inside = f" in {shown(reading.inside)}/" if reading and reading.inside else ""
    names = few(dataset.classnames, SHOWN)
    text = (
        f"read {shown(dataset.name)} from {shown(_near(dataset.spec.place))}{inside}: "
        f"{counted(len(dataset.classnames), 'class', 'classes')} ({names}); " + images
    )
    if reading and reading.outside:
        text += f", {len(reading.outside)} of them outside it, behind links ({few(reading.outside)})"
    if reading and reading.left_out:
        text += "; left out: " + ", ".join(map(_left_out, reading.left_out))
    if reading and reading.skipped:
        text += f"; skipped: {by_reason(reading.skipped)}"
    return text


def _near(place: str) -> str:
    """Return a path relative to the current folder if it lies in it."""
    here = f"{os.getcwd()}{os.sep}"
    return place.removeprefix(here)


def _left_out(left: LeftOut) -> str:
    """Return how many files were left out and why; name one if they are few and the reason is not plain."""
    plain = left.reason.startswith(".") or left.reason == HIDDEN or left.count > _EXAMPLES
    return f"{left.count} {left.reason}{'' if plain else f' ({shown(left.example)})'}"
