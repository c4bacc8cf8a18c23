"""Which features a set of fits reads: every image x view x tap once, for all methods, shots and seeds. No
torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from bench.data.dataset import Dataset
from bench.features.wanted import Wanted
from bench.interface import DENSE, EVAL, LAYER3, PIXELS, POOLED, SUPPORT, TOKENS
from bench.plan.cells import Evaluation, Planned

# Per image these are hundreds of kilobytes: random crops of them are made on the fly, never stored
# (architecture 5).
HEAVY = frozenset({DENSE, TOKENS, LAYER3})
_PLAIN = frozenset({EVAL, "flip"})

Need = tuple[Dataset, str, tuple[str, ...], str, str]  # dataset, part, paths, view, tap


def stored(tap: str, view: str) -> bool:
    """Whether features are kept in the store; the others are streamed."""
    return tap != PIXELS and (tap not in HEAVY or view in _PLAIN)


def support_needs(fit: Planned) -> Iterator[tuple[str, str]]:
    """(tap, view) of the support images that a fit reads."""
    for stream in fit.recipe.streams.values():
        if stream.source == SUPPORT:
            for view in stream.views:
                yield stream.tap, view
    for tap, views in fit.recipe.support.items():
        for view in views:
            yield tap, view


def scores_validation(fit: Planned) -> bool:
    """Whether the recipe leaves anything for validation to choose."""
    recipe = fit.recipe
    several = any(
        len(values) > 1 for axes in (recipe.grid, recipe.static, recipe.search) for values in axes.values()
    )
    return several or (recipe.optim is not None and recipe.select == "best")


def of_fit(fit: Planned, oracle: bool) -> Iterator[Need]:
    """What fitting reads; ``oracle``: selection looks at the test images instead of validation."""
    if fit.draw.train.paths:
        for tap, view in support_needs(fit):
            yield fit.dataset, "support", fit.draw.train.paths, view, tap
    if fit.prompts.select:
        yield fit.dataset, "val", fit.draw.val.paths, EVAL, POOLED
    if scores_validation(fit):
        part, paths = ("test", fit.dataset.test.paths) if oracle else ("val", fit.draw.val.paths)
        for tap in fit.method.taps:
            yield fit.dataset, part, paths, EVAL, tap


def of_evaluation(fit: Planned, evaluation: Evaluation, dense_cache: bool = True) -> Iterator[Need]:
    """What evaluating reads from the store: the test images' features, unless dense ones are streamed
    instead.
    """
    if not dense_cache and HEAVY.intersection(fit.method.taps):
        return
    for tap in fit.method.taps:
        yield evaluation.target, "test", evaluation.target.test.paths, EVAL, tap


def taps_by_view(needs: Iterable[Need]) -> dict[tuple[str, str, str], set[str]]:
    """(dataset, part, view) -> all taps that any of the needs wants, so that one pass serves them all."""
    found: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for dataset, part, _, view, tap in needs:
        if stored(tap, view):
            found[dataset.name, part, view].add(tap)
    return found


def requests(
    needs: Iterable[Need], taps: dict[tuple[str, str, str], set[str]]
) -> dict[str, tuple[Dataset, list[Wanted]]]:
    """Encode requests by dataset name; each image x view is asked for with all taps of the whole run."""
    wanted: dict[tuple[str, str], tuple[Dataset, dict[str, None], set[str]]] = {}
    for dataset, part, paths, view, tap in needs:
        if stored(tap, view):
            _, known, views = wanted.setdefault((dataset.name, part), (dataset, {}, set()))
            known.update(dict.fromkeys(paths))
            views.add(view)
    found: dict[str, tuple[Dataset, list[Wanted]]] = {}
    for (name, part), (dataset, known, views) in wanted.items():
        request = Wanted(tuple(known), {view: frozenset(taps[name, part, view]) for view in sorted(views)})
        found.setdefault(name, (dataset, []))[1].append(request)
    return found
