"""The series of a figure: their titles, which have a colour, and which are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from bench.names import canonical
from bench.report.marks import most_common
from bench.report.select import Choice
from bench.report.wording import cells_text, listed, seeds_list, shots_list

# Methods with colours of their own where none are asked for by name: the best lie close together.
COLOURED = 6


def titles(frame: pd.DataFrame) -> dict[str, str]:
    """Methods' titles by name; names where two methods share a title."""
    by_method = dict(zip(frame["method"], frame["title"], strict=True))
    return {m: t if list(by_method.values()).count(t) == 1 else m for m, t in by_method.items()}


def coloured(own: pd.DataFrame, choice: Choice) -> tuple[list[str], list[str]]:
    """Methods with labels that a figure tells apart by colour, and the others: context, in one grey.

    All where they were asked for by name or are few; else those of ``choice.first``, then the best on average
    at the most shots. ``own``: rows as from ``own_tests``.
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
    """The note on methods in grey."""
    return [f"in grey: {', '.join(names)}; `--methods` chooses which to colour"] if names else []


def of_other_seeds(seeds: Mapping[tuple[str, int], tuple[int, ...]]) -> list[tuple[str, int]]:
    """The (series, shots) whose seeds are not those that most series have at these shots."""
    blocks: dict[int, dict[str, tuple[int, ...]]] = {}
    for (name, shots), some in seeds.items():
        blocks.setdefault(shots, {})[name] = some
    return [(name, shots) for shots, block in blocks.items() for name in most_common(block)[1]]


def other_seeds(seeds: Mapping[tuple[str, int], tuple[int, ...]]) -> list[str]:
    """The note on points of other seeds than most at their shots, with the seeds of each drawn point."""
    apart: dict[tuple[int, ...], list[tuple[str, int]]] = {}
    for point in of_other_seeds(seeds):
        apart.setdefault(seeds[point], []).append(point)
    said = [f"{cells_text(points)} ({seeds_list(some)})" for some, points in apart.items()]
    return [f"of other seeds than most at the same shots: {'; '.join(said)}"] if said else []


def gaps(points: Mapping[tuple[str, int], Sequence[str]], panels: Sequence[str] = ()) -> list[str]:
    """Notes on points that are not drawn: which of several ``panels`` each (series, shots) is left out of.

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
            f"{listed(series)}, {shots_list(shots_there)}: left out{where}, "
            "seeds or datasets are missing or failed"
        )
    return notes
