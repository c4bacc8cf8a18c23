"""Find the classes on which one of two methods gains most, and those on which it loses most.

Legend: S seeds, n test images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.metrics import Metric
from bench.names import counted
from bench.report import classnames
from bench.report.measures import ACCURACY, gap, span
from bench.report.outputs import outputs_of
from bench.report.pairs import Averaged
from bench.stats import Interval, difference_interval

_WIDEST = 1.0  # the width of an interval that still says something: half of all possible differences
MOST = 3  # classes that are named on each side unless --classes says otherwise


@dataclass(frozen=True)
class Moved:
    """A class and the difference in accuracy on its test images, first - second, as a fraction.

    ``label``: the number of the class; ``name``: its name, or ``class 12`` where names are not at hand.
    """

    dataset: str
    label: int
    name: str
    images: int
    difference: Interval


@dataclass(frozen=True)
class Moves:
    """The classes on which the first method gains most and loses most, and among how many they were found.

    ``why``: why classes are numbered, one sentence for each dataset whose class names are not at hand.
    """

    gains: tuple[Moved, ...]
    losses: tuple[Moved, ...]
    classes: int
    why: tuple[str, ...] = ()


def moves(
    cells: Sequence[Averaged],
    paths: Mapping[str, str],
    most: int = MOST,
    written: Mapping[str, str] | None = None,
    data_root: Path | None = None,
) -> Moves:
    """Return the classes that move most between two methods, ``most`` on each side, over all datasets.

    ``cells``: the differences of right answers by seed and test image, one of each dataset. ``paths``: the
    record of an evaluation by dataset, for the labels. ``written`` and ``data_root`` say where the class
    names of datasets lie that are not in the catalog (``classnames.of``).

    The interval of a class is that of its images (S, n of the class), so an image that several seeds saw
    counts once. Classes with fewer than two test images are left out, because one image shows no spread.
    """
    found: list[tuple[float, str, int]] = []
    labels_of: dict[str, NDArray[np.int64]] = {}
    gaps_of: dict[str, NDArray[np.float64]] = {}
    for cell in cells:
        labels = labels_of[cell.dataset] = np.asarray(outputs_of(paths[cell.dataset]).labels, np.int64)
        gaps_of[cell.dataset] = cell.gaps
        images = np.bincount(labels)
        sums = np.bincount(labels, cell.gaps.mean(0))
        several = np.flatnonzero(images > 1)
        found += [(float(sums[k] / images[k]), cell.dataset, int(k)) for k in several]
    ordered = sorted(found, key=lambda one: -one[0])  # equal classes keep the order of datasets and numbers
    picked = (
        [one for one in ordered if one[0] > 1e-12][:most],
        [one for one in reversed(ordered) if one[0] < -1e-12][:most],
    )
    names = {
        name: _names(name, paths[name], labels_of[name], (written or {}).get(name), data_root)
        for name in dict.fromkeys(name for side in picked for _, name, _ in side)
    }

    def moved(dataset: str, label: int) -> Moved:
        mine = labels_of[dataset] == label
        gaps = gaps_of[dataset][:, mine]
        interval = difference_interval(gaps, np.zeros_like(gaps))
        return Moved(dataset, label, names[dataset][label], int(mine.sum()), interval)

    gains, losses = (tuple(moved(name, label) for _, name, label in side) for side in picked)
    return Moves(gains, losses, len(found), tuple(one.why for one in names.values() if one.why))


def notes(names: tuple[str, str], found: Moves, metric: Metric = ACCURACY) -> list[str]:
    """Say which classes move most, and what their intervals do not say.

    ``metric``: what the comparison is by. Where it is not accuracy, the sentences say that they are.
    """
    by = "" if metric is ACCURACY else "By accuracy: "
    sides = [("gains", found.gains), ("loses", found.losses)]
    said = [
        f"{by}{names[0]} {verb} most accuracy against {names[1]} on {', '.join(map(_text, some))}."
        for verb, some in sides
        if some
    ]
    if not said:
        return []
    return [
        *said,
        "Differences and 95 % intervals of classes are in points. These classes were picked as the extremes "
        f"of {counted(found.classes, 'class', 'classes')}, so part of each difference is luck, and each "
        "interval is that of one class alone. An image counts once, however many seeds saw it.",
        *found.why,
    ]


def _text(one: Moved) -> str:
    wide = one.difference.high - one.difference.low > _WIDEST
    says = "too few seeds or images for an interval" if wide else span(ACCURACY, one.difference)
    about = f"{says}; {counted(one.images, 'image')} of {one.dataset}"
    return f"{one.name} {gap(ACCURACY, one.difference.estimate)} ({about})"


def _names(
    dataset: str, path: str, labels: NDArray[np.int64], written: str | None, data_root: Path | None
) -> classnames.ClassNames:
    digest = classnames.digest_of(path)
    return classnames.of(dataset, digest, labels, written=written, data_root=data_root)
