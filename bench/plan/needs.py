"""Work out which features cells read, and combine what all cells of a run read into few encoding passes.

Every image x view x tap is encoded once for all methods, shots and seeds. This module imports no torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from bench.data.dataset import Dataset
from bench.features.wanted import Wanted
from bench.interface import DENSE, EVAL, LAYER3, PIXELS, POOLED, SUPPORT, TOKENS
from bench.names import TEST_ORACLE
from bench.plan import protocols
from bench.plan.cells import Evaluation, Planned, chain
from bench.plan.todo import Fresh, Todo, has_state

# An image's features take hundreds of kilobytes at these taps, so those of random crops are never stored.
HEAVY = frozenset({DENSE, TOKENS, LAYER3})
_PLAIN = frozenset({EVAL, "flip"})

Need = tuple[Dataset, str, tuple[str, ...], str, str]  # dataset, part, paths, view, tap
Taps = dict[tuple[str, str, str], set[str]]  # (name of the stored features, part, view) -> taps


def stored(tap: str, view: str) -> bool:
    """Return whether features are kept in the store; all others are streamed."""
    return tap != PIXELS and (tap not in HEAVY or view in _PLAIN)


def support_needs(fit: Planned) -> Iterator[tuple[str, str]]:
    """Yield the (tap, view) pairs of the support images that a fit reads."""
    for stream in fit.recipe.streams.values():
        if stream.source == SUPPORT:
            for view in stream.views:
                yield stream.tap, view
    for tap, views in fit.recipe.support.items():
        for view in views:
            yield tap, view


def scores_validation(fit: Planned) -> bool:
    """Return whether the recipe leaves anything for validation to choose."""
    recipe = fit.recipe
    several = any(
        len(values) > 1 for axes in (recipe.grid, recipe.static, recipe.search) for values in axes.values()
    )
    return several or (recipe.optim is not None and recipe.select == "best")


def calibrates(fit: Planned) -> bool:
    """Return whether a temperature is fitted on the validation images of a fit (protocol 24.6).

    It is not, and the temperature is 1, without labels, without validation images, under ``no-val``, and
    under ``test-oracle``, which selects on test images: a temperature never comes from those. A fit that
    leaves nothing to choose gets one all the same.
    """
    cell = fit.cell
    validates = protocols.validates(cell.protocol) and cell.protocol != TEST_ORACLE
    return validates and fit.facts.shots > 0 and len(fit.draw.val) > 0


def unvalidated(fit: Planned) -> str:
    """Return one line that says why a fit lacks validation images to choose on, or "" if it lacks none."""
    if not fit.facts.shots or len(fit.draw.val):
        return ""
    if fit.prompts.select:
        return f"{fit.prompts.name} chooses templates on validation images, and there are none: leave it out"
    if scores_validation(fit) and fit.cell.protocol != TEST_ORACLE:
        return (
            "its recipe chooses on validation images, and there are none: add some, or use --protocol no-val"
        )
    return ""


def of_fit(fit: Planned) -> Iterator[Need]:
    """Yield the features that a fit reads.

    Under protocol ``test-oracle``, selection reads the test images in place of validation images.
    """
    oracle = fit.cell.protocol == TEST_ORACLE
    if fit.draw.train.paths:
        for tap, view in support_needs(fit):
            yield fit.dataset, "support", fit.draw.train.paths, view, tap
    if fit.prompts.select:
        yield fit.dataset, "val", fit.draw.val.paths, EVAL, POOLED
    if scores_validation(fit) or calibrates(fit):
        part, paths = ("test", fit.dataset.test.paths) if oracle else ("val", fit.draw.val.paths)
        for tap in fit.method.taps:
            yield fit.dataset, part, paths, EVAL, tap


def of_evaluation(fit: Planned, evaluation: Evaluation, dense_cache: bool = True) -> Iterator[Need]:
    """Yield the test features that an evaluation reads from the store, except those that are streamed."""
    if not dense_cache and HEAVY.intersection(fit.method.taps):
        return
    for tap in fit.method.taps:
        yield evaluation.target, "test", evaluation.target.test.paths, EVAL, tap


def of_fitting(t: Todo, fresh: Fresh = False) -> Iterator[Need]:
    """Yield what the fit of a cell reads, and what the fits below it read if they are yet to be made.

    A fit is made again if its state is gone, or is not the one that its record names. ``fresh``: which
    records do not count (``todo.Fresh``).
    """
    for fit in chain(t.fit):
        if fit is t.fit or not has_state(fit, fresh):
            yield from of_fit(fit)


def of_cell(t: Todo, fresh: Fresh = False, dense_cache: bool = True) -> Iterator[Need]:
    """Yield everything that a cell still reads: for its fit and for the evaluations that it lacks."""
    yield from of_fitting(t, fresh)
    for evaluation in t.evaluations:
        yield from of_evaluation(t.fit, evaluation, dense_cache)


def pool(dataset: Dataset, part: str) -> tuple[str, str]:
    """Return the name of a dataset's stored features, and the part whose images are encoded together.

    The folds of a dataset share its features, and every image of theirs is at one time a support image and at
    another time a test image. So their images are one part.
    """
    return dataset.stored_as, "all" if dataset.whole is not None else part


def taps_by_view(needs: Iterable[Need]) -> Taps:
    """Return by (name of the features, part, view) all taps that are needed, so that one pass serves them."""
    taps: Taps = defaultdict(set)
    for dataset, part, _, view, tap in needs:
        if stored(tap, view):
            taps[*pool(dataset, part), view].add(tap)
    return taps


def wanted(needs: Iterable[Need], taps: Taps) -> dict[str, tuple[Dataset, list[Wanted]]]:
    """Return what to encode, by the name of its features: each image x view, with all taps of the run."""
    parts: dict[tuple[str, str], tuple[Dataset, dict[str, None], set[str]]] = {}
    for dataset, part, paths, view, tap in needs:
        if stored(tap, view):
            _, known, views = parts.setdefault(pool(dataset, part), (dataset, {}, set()))
            known.update(dict.fromkeys(paths))
            views.add(view)
    by_dataset: dict[str, tuple[Dataset, list[Wanted]]] = {}
    for (name, part), (dataset, known, views) in parts.items():
        images = Wanted(tuple(known), {view: frozenset(taps[name, part, view]) for view in sorted(views)})
        by_dataset.setdefault(name, (dataset, []))[1].append(images)
    return by_dataset
