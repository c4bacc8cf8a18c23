"""What was read from somebody's own folder, in one line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench.data.reading import HIDDEN
from bench.names import by_reason, few, shown

if TYPE_CHECKING:
    from bench.data.dataset import Dataset
    from bench.data.reading import LeftOut

SHOWN = 6  # class names on the line
_EXAMPLES = 5  # things left out for one reason, up to which the first of them is named


def line(dataset: Dataset) -> str:
    """The line; empty for datasets that come with the program or have its description."""
    if dataset.spec.base is None:
        return ""
    reading = dataset.reading
    sizes = []
    for part in ("train", "val", "test"):
        folder = reading.parts.get(part, part) if reading else part
        sizes.append(
            f"{part} {len(getattr(dataset, part))}{f' ({shown(folder)}/)' if folder != part else ''}"
        )
    inside = f" in {shown(reading.inside)}/" if reading and reading.inside else ""
    names = few(dataset.classnames, SHOWN)
    said = (
        f"read {shown(dataset.name)} from {shown(_near(dataset.spec.place))}{inside}: "
        f"{len(dataset.classnames)} classes ({names}); "
        f"{', '.join(sizes)} images"
    )
    if reading and reading.outside:
        said += f", {len(reading.outside)} of them outside it, behind links ({few(reading.outside)})"
    if reading and reading.left_out:
        said += "; left out: " + ", ".join(map(_left_out, reading.left_out))
    if reading and reading.skipped:
        said += f"; skipped: {by_reason(reading.skipped)}"
    return said


def _near(place: str) -> str:
    """A path from where the user stands, if it lies below."""
    here = f"{os.getcwd()}{os.sep}"
    return place.removeprefix(here)


def _left_out(left: LeftOut) -> str:
    """A count and its reason; of what is rare, and not plain by its name, the first example too."""
    plain = left.reason.startswith(".") or left.reason == HIDDEN or left.count > _EXAMPLES
    return f"{left.count} {left.reason}{'' if plain else f' ({shown(left.example)})'}"
