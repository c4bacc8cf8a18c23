"""Cut all labelled images of a dataset into stratified folds (datasets 4.7).

A few-shot draw answers how well a method learns from k images of each class. Folds answer how well it will do
with all the images that somebody has: every image is tested once, by a fit on the images of the other folds.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median_low

from bench.data.cut import NO_SPLIT, NO_VAL
from bench.data.dataset import Dataset, Draw, Items, dataset_digest, path_digest
from bench.errors import BenchError, MissingData
from bench.files import digest
from bench.names import counted, few, shown

SEED = 1  # of the folds of ``bench run --folds``: equal images are in equal folds everywhere
FEWEST = 2
MAX_VAL = 4  # validation images of a class, as in few-shot draws
_ONE_IN = 5  # of the images of a class that are not tested, one in so many validates


def everything(dataset: Dataset) -> Items:
    """Return all labelled images of a dataset: its train, val and test lists, one after the other.

    An image that several lists have stands in its first place. Raises MissingData if the dataset has no
    images here, and BenchError if two lists give an image different labels.
    """
    labels: dict[str, int] = {}
    for items in (dataset.train, dataset.val, dataset.test):
        for path, label in zip(items.paths, items.labels, strict=True):
            if labels.setdefault(path, label) != label:
                raise BenchError(
                    f"{dataset.name}: {shown(path)} is {shown(dataset.classnames[labels[path]])} in one list "
                    f"and {shown(dataset.classnames[label])} in another: give it one class"
                )
    if not labels:
        raise MissingData(
            f"{dataset.name} has no images here: {'; '.join(dataset.notes) or dataset.spec.get}"
        )
    return Items(tuple(labels), tuple(labels.values()))


def fold(dataset: Dataset, number: int, of: int = 5, seed: int = SEED) -> Dataset:
    """Return a fold of a dataset: its test list is fold ``number`` (1 to ``of``) of all labelled images.

    Each class is shuffled by ``seed`` and dealt out to the folds, so every fold has its share of every class.
    The next class is dealt on from where the last one ended, so that the folds are about equally large.
    Images of equal bytes (``Dataset.same``) come into one fold, because whoever learns one knows the other.

    Of the other images of a class, a fifth validates, but at most 4 and at least 1, as long as one is left to
    learn from; the rest is the support set. If a class has a single different image, every fold learns from
    it and none tests it: its test would ask for a class without a training image. ``notes`` name these
    classes. All lists keep the order of ``everything``.

    Raises BenchError for a number of folds below 2 or above the number of images that can be tested, and for
    a fold of a fold. Raises MissingData as ``everything`` does.
    """
    if dataset.whole is not None:
        raise BenchError(f"{dataset.name} is a fold already: cut the dataset that it is of")
    if of < FEWEST or not 1 <= number <= of:
        raise BenchError(f"fold {number} of {of}: folds are counted from 1, and there are at least {FEWEST}")
    items, places = everything(dataset), assigned(dataset, of, seed)
    if (most := len(set(places) - {0})) < of:
        raise BenchError(
            f"{dataset.name} has too few images for {of} folds: "
            + (f"--folds {most} is the most" if most >= FEWEST else "add images to its classes")
        )
    tested = [i for i, place in enumerate(places) if place == number]
    others = [i for i, place in enumerate(places) if place != number]
    draws = f"validation of fold {number} of {of}, seed {seed}"
    held_out = _validation(items, _units(dataset, items), others, draws)
    support = [i for i in others if i not in held_out]
    train, val, test = items.take(support), items.take(sorted(held_out)), items.take(tested)
    name = dataset_digest(dataset.classnames, train, val, test, dataset.digest)
    return replace(
        dataset,
        train=train,
        val=val,
        test=test,
        digest=name,
        lists=name if dataset.covers == "lists" else "",
        notes=(*_own_notes(dataset), *_untested(dataset, items, places)),
        own_split=True,
        indices=None,
        whole=dataset,
    )


def assigned(dataset: Dataset, of: int, seed: int = SEED) -> tuple[int, ...]:
    """Return the fold (1 to ``of``) of each image of ``everything(dataset)``, 0 for one that none tests."""
    items = everything(dataset)
    generator = random.Random(seed)
    places, deal = [0] * len(items), 0
    unit_of = _units(dataset, items)
    for units in _by_class(items, unit_of, range(len(items))).values():
        generator.shuffle(units)
        for unit in units:
            for position in unit:
                places[position] = deal % of + 1
            deal += 1
    for positions in _positions(items, range(len(items))).values():
        if len({places[i] for i in positions}) == 1:  # the fold that tests them could not learn the class
            for i in positions:
                for position in unit_of[i]:
                    places[position] = 0
    return tuple(places)


def draw(dataset: Dataset) -> Draw:
    """Return the draw of a fold: its whole train list to learn from, and its whole val list to choose on."""
    assert dataset.whole is not None, "only a fold gives all that it has"
    train, val = dataset.train, dataset.val
    key = digest({"train": path_digest(train.paths), "val": path_digest(val.paths)})
    return Draw(train, val, tuple(range(len(train))), tuple(range(len(val))), key)


def nothing() -> Draw:
    """Return the draw of a method that uses no labels."""
    key = digest({"train": path_digest(()), "val": path_digest(())})
    return Draw(Items(), Items(), (), (), key)


def shots(drawn: Draw) -> int:
    """Return what a method gets as its number of shots: the median of the classes' support images.

    Of an even number of classes it is the smaller of the two in the middle. It is 0 if there are no images.
    Example: classes of 3, 8 and 40 images give 8, classes of 3, 8, 20 and 40 images give 8 too.
    """
    sizes: dict[int, int] = {}
    for label in drawn.train.labels:
        sizes[label] = sizes.get(label, 0) + 1
    return median_low(sizes.values()) if sizes else 0


def _units(dataset: Dataset, items: Items) -> list[list[int]]:
    """Return for each image the positions of its unit: of all images that have its bytes, as far as known."""
    group = {path: i for i, paths in enumerate(dataset.same) for path in paths}
    known: dict[int, list[int]] = {}
    found: list[list[int]] = []
    for position, path in enumerate(items.paths):
        unit = known.setdefault(group[path], []) if path in group else []
        unit.append(position)
        found.append(unit)
    return found


def _by_class(
    items: Items, unit_of: Sequence[list[int]], positions: Iterable[int]
) -> dict[int, list[list[int]]]:
    """Return the units of some images by class; a unit of several classes counts for that of its first."""
    found: dict[int, list[list[int]]] = {}
    for position in positions:
        if position == unit_of[position][0]:
            found.setdefault(items.labels[position], []).append(unit_of[position])
    return found


def _positions(items: Items, positions: Iterable[int]) -> dict[int, list[int]]:
    """Return the positions of some images by class."""
    found: dict[int, list[int]] = {}
    for position in positions:
        found.setdefault(items.labels[position], []).append(position)
    return found


def _validation(items: Items, unit_of: Sequence[list[int]], others: Sequence[int], draws: str) -> set[int]:
    """Return which of the positions ``others`` validate; ``draws`` seeds the choice."""
    generator = random.Random(draws)
    chosen: set[int] = set()
    for units in _by_class(items, unit_of, others).values():
        most = min(MAX_VAL, max(1, sum(map(len, units)) // _ONE_IN))
        taken = 0
        for unit in generator.sample(units, len(units) - 1):
            if taken + len(unit) <= most:
                chosen.update(unit)
                taken += len(unit)
    for positions in _positions(items, others).values():
        if chosen.issuperset(positions):  # every image of the class has its equal in another class
            chosen.difference_update(*(unit_of[i] for i in positions))
    return chosen


def _own_notes(dataset: Dataset) -> tuple[str, ...]:
    """Return the notes of the whole, without those on a cut that folds do not use."""
    return tuple(note for note in dataset.notes if note not in (NO_SPLIT, NO_VAL))


def _untested(dataset: Dataset, items: Items, places: Sequence[int]) -> tuple[str, ...]:
    """Return one line on the classes whose only image is in every support set; none if there are none."""
    alone = sorted({label for label, place in zip(items.labels, places, strict=True) if not place})
    if not alone:
        return ()
    names = few(dataset.classnames[label] for label in alone)
    return (
        f"{counted(len(alone), 'class has', 'classes have')} no second different image ({names}): every fold "
        "learns from what there is and none tests it, so no accuracy speaks of it; add images",
    )
