"""Choose the series of a figure: their titles, which of them have a colour, and which are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from bench.names import canonical
from bench.report.marks import ONE_SEED, drawn_once, most_common
from bench.report.select import Choice
from bench.report.wording import cells_text, listed, seeds_list, shots_list

# How many methods have colours if none are asked for by name. The best lie too close together for more.
COLOURED = 6


def titles(frame: pd.DataFrame) -> dict[str, str]:
    """Return methods' titles by name, or the name if two methods share a title."""
    by_method = dict(zip(frame["method"], frame["title"], strict=True))
    return {m: t if list(by_method.values()).count(t) == 1 else m for m, t in by_method.items()}


def coloured(own: pd.DataFrame, choice: Choice) -> tuple[list[str], list[str]]:
    """Split methods with labels into those with a colour and the others, which are drawn in one grey.

    All methods have a colour if they were asked for by name or are few. Otherwise those of ``choice.first``
    do, then the best on average at the most shots. ``own``: rows as ``own_tests`` returns them.
    """
    few = own[own["shots"] > 0]
    names = sorted(few["method"].unique())
    if choice.methods or len(names) <= COLOURED:
        return names, []
    means = few[few["shots"] == few["shots"].max()].groupby("method")["accuracy"].mean()
    first = {canonical(m) for m in choice.first}
    order = sorted(names, key=lambda m: (canonical(m) not in first, -means.get(m, 0.0), m))
    return sorted(order[:COLOURED]), sorted(order[COLOURED:])


def others(names: Sequence[str]) -> list[str]:
    """Return the note on methods in grey."""
    return [f"In grey: {', '.join(names)}; --methods chooses which methods have colours."] if names else []


def of_other_seeds(seeds: Mapping[tuple[str, int], tuple[int, ...]]) -> list[tuple[str, int]]:
    """List (series, shots) whose seeds differ from those that most series have at these shots."""
    blocks: dict[int, dict[str, tuple[int, ...]]] = {}
    for (name, shots), some in seeds.items():
        blocks.setdefault(shots, {})[name] = some
    return [(name, shots) for shots, block in blocks.items() for name in most_common(block)[1]]


def other_seeds(seeds: Mapping[tuple[str, int], tuple[int, ...]]) -> list[str]:
    """Return the note on points whose seeds differ from those of most points at their shots.

    ``seeds`` has the seeds of each drawn point.
    """
    which = with_seeds(seeds, of_other_seeds(seeds))
    return [f"These have other seeds than most at the same shots: {which}."] if which else []


def with_seeds(seeds: Mapping[tuple[str, int], tuple[int, ...]], points: Sequence[tuple[str, int]]) -> str:
    """Name points with their seeds: ``safe at 1 shot (seed 1)``."""
    apart: dict[tuple[int, ...], list[tuple[str, int]]] = {}
    for point in points:
        apart.setdefault(seeds[point], []).append(point)
    return "; ".join(f"{cells_text(some)} ({seeds_list(numbers)})" for numbers, some in apart.items())


def one_seed(seeds: Mapping[tuple[str, int], tuple[int, ...]]) -> list[str]:
    """Return the note on points whose intervals say nothing about other draws, because of one seed.

    ``seeds`` has the seeds of each drawn point. A method with 0 shots draws nothing.
    """
    drawn = [point for point in seeds if point[1]]
    once = [(name, shots) for name, shots in drawn if drawn_once(shots, seeds[name, shots])]
    which = "" if len(once) == len(drawn) else f" of {cells_text(once)}"
    return [f"The intervals{which} cover other test images alone: {ONE_SEED}"] if once else []


def gaps(points: Mapping[tuple[str, int], Sequence[str]], panels: Sequence[str] = ()) -> list[str]:
    """Return notes on points that are not drawn, with those of several ``panels`` that lack them.

    Series and numbers of shots that lack the same panels share a note.
    """
    names: dict[tuple[int, tuple[str, ...]], list[str]] = {}
    for (name, shots), lacking in points.items():
        names.setdefault((shots, tuple(lacking)), []).append(name)
    numbers: dict[tuple[tuple[str, ...], tuple[str, ...]], list[int]] = {}
    for (shots, some), lacking_there in names.items():
        numbers.setdefault((tuple(lacking_there), some), []).append(shots)
    notes = []
    for (series, some), shots_there in numbers.items():
        kept = [panel for panel in panels if panel not in some]
        where = f" of {listed(some, len(some))}" if kept else ""
        where = f" everywhere but on {listed(kept)}" if 0 < len(kept) < len(some) else where
        notes.append(
            f"Left out{where}, because seeds or datasets are missing or failed: "
            f"{listed(series)} at {shots_list(shots_there)}."
        )
    return notes
