"""Divide what is left to do into portions that share their work, for one worker or several. No torch."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping

from bench.plan.cells import chain, kind
from bench.plan.todo import Todo
from bench.records.keys import Shots

Seconds = Mapping[str, float]  # expected seconds by fit key; a cell that is not in it counts for one second
UNKNOWN: Seconds = {}
_AHEAD = 2  # shares into which each worker's part of the rest is cut: smaller ones wait less at the end
_NEAR = 1.05  # how many times the least possible duration a run in plan order may take


def rounds(
    todo: list[Todo], by_dataset: bool = False, join: bool = False
) -> Iterator[tuple[str, list[Todo]]]:
    """Yield the cells in rounds of one (dataset, seed), each with the dataset's digest.

    The cells of a round share features and states. Cells that failed or were stopped before are in rounds of
    their own, which come last, so that all others are done if they fail or hang again.

    ``by_dataset``: put the rounds of a dataset one after the other, so that one pass over its test images
    serves all of them. ``join``: make one round of a dataset, whatever the seed, in which cells that read a
    state follow the fit that makes it, so that few states are held at a time.
    """
    groups: dict[tuple[str, int, bool], list[Todo]] = defaultdict(list)
    for t in todo:
        groups[t.fit.dataset.digest, 0 if join else t.fit.cell.seed, t.late].append(t)
    digests = list(dict.fromkeys(digest for digest, *_ in groups))
    for key in sorted(groups, key=lambda key: (key[2], digests.index(key[0]) if by_dataset else 0)):
        group = groups[key]
        if join:
            first = list(dict.fromkeys(kind(next(chain(t.fit))) for t in group))
            shots = list(dict.fromkeys(t.fit.cell.shots for t in group))
            group.sort(key=lambda t: (first.index(kind(next(chain(t.fit)))), shots.index(t.fit.cell.shots)))
        yield key[0], group


def portions(
    todo: list[Todo], streamed: bool, jobs: int, join: bool = False, seconds: Seconds = UNKNOWN
) -> list[list[Todo]]:
    """Return the portions that one of ``jobs`` workers gets at a time.

    A portion is a round, or several rounds if test features are ``streamed``. Rounds are cut if workers would
    otherwise wait for each other. With ``join`` a portion is a dataset, or as many of its shots as leave work
    for every worker.
    """
    groups = _groups(todo, join)
    return list(gathered(groups, jobs, join, seconds)) if streamed or join else shared(groups, jobs, seconds)


def apart(todo: list[Todo], streamed: bool, join: bool, seconds: Seconds = UNKNOWN) -> list[float]:
    """Return the seconds of each part that may run beside the others; more workers would have no work.

    If test features are ``streamed``, a round counts as one part: cutting it takes another pass over them.
    """
    groups = _groups(todo, join)
    parts = groups if streamed else [unit for group in groups for unit in units(group, join)]
    return [weight(part, seconds) for part in parts]


def _groups(todo: list[Todo], join: bool) -> list[list[Todo]]:
    """Return the rounds, with ``join`` cut by shots."""
    groups = [group for _, group in rounds(todo, join=join)]
    return [part for group in groups for part in by_shots(group)] if join else groups


def weight(cells: Iterable[Todo], seconds: Seconds) -> float:
    """Return the seconds that cells are expected to take one after the other."""
    return sum(seconds.get(t.fit.key, 1.0) for t in cells)


def units(group: list[Todo], join: bool = False) -> list[list[Todo]]:
    """Divide the cells of a group into parts, so that none reads a state that another part reads or makes.

    With ``join`` no two parts hold fits that may train together, either.
    """
    if len(group) < 2:
        return [group]
    part_of: dict[Hashable, int] = {}  # what a part holds -> the position of the part's first cell
    parts: dict[int, list[int]] = {}
    for i, t in enumerate(group):
        holds = {kind(fit) if join else fit.key for fit in chain(t.fit)}
        met = {part_of[x] for x in holds if x in part_of}
        first = min(met, default=i)
        parts[first] = sorted([i, *(j for part in met for j in parts.pop(part))])
        if len(met) > 1:
            part_of |= {x: first for x, part in part_of.items() if part in met}
        part_of |= dict.fromkeys(holds, first)
    return [[group[i] for i in parts[first]] for first in sorted(parts)]


def shared(groups: list[list[Todo]], jobs: int, seconds: Seconds) -> list[list[Todo]]:
    """Divide groups into portions for ``jobs`` workers, so that none waits long at the end.

    A worker takes the next portion when it is idle. The portions keep the order of the groups unless a large
    one near the end would keep the other workers waiting. Then the largest come first, except for cells that
    are tried again: these stay last.
    """
    if jobs < 2:
        return groups
    ordered = _cut(groups, jobs, seconds)
    parts = [weight(unit, seconds) for group in groups for unit in units(group)]
    if _wall(ordered, jobs, seconds) <= _NEAR * max(sum(parts) / jobs, max(parts, default=0.0)):
        return ordered

    def place(group: list[Todo]) -> tuple[bool, float]:
        return group[0].late, -max(weight(unit, seconds) for unit in units(group))

    largest = _cut(sorted(groups, key=place), jobs, seconds)
    return min(ordered, largest, key=lambda found: _wall(found, jobs, seconds))


def _cut(groups: list[list[Todo]], jobs: int, seconds: Seconds) -> list[list[Todo]]:
    """Cut each group into portions of at most a share of all that is left, the largest units first."""
    left, found = sum(weight(group, seconds) for group in groups), list[list[Todo]]()
    for group in groups:
        if weight(group, seconds) <= left / (_AHEAD * jobs):
            found.append(group)
            left -= weight(group, seconds)
            continue
        portion, size = list[Todo](), 0.0
        for unit in sorted(units(group), key=lambda unit: -weight(unit, seconds)):
            more = weight(unit, seconds)
            if portion and size + more > left / (_AHEAD * jobs):
                found.append(portion)
                left -= size
                portion, size = [], 0.0
            portion, size = [*portion, *unit], size + more
        found.append(portion)
        left -= size
    return found


def _wall(found: list[list[Todo]], jobs: int, seconds: Seconds) -> float:
    """Return when the last portion ends if an idle worker always takes the next one."""
    ends = [0.0] * jobs
    for portion in found:
        heapq.heapreplace(ends, ends[0] + weight(portion, seconds))
    return max(ends)


def by_shots(group: list[Todo]) -> list[list[Todo]]:
    """Divide the cells of a group by their number of shots."""
    parts: dict[Shots, list[Todo]] = defaultdict(list)
    for t in group:
        parts[t.fit.cell.shots].append(t)
    return list(parts.values())


def gathered(
    groups: Iterable[list[Todo]], jobs: int, join: bool = False, seconds: Seconds = UNKNOWN
) -> Iterator[list[Todo]]:
    """Yield groups of one dataset together, as many as leave work for all; they share passes, and may join.

    If a dataset has fewer groups than workers, the largest are cut in two.
    """
    by_dataset: dict[str, list[list[Todo]]] = defaultdict(list)
    for group in groups:
        by_dataset[group[0].fit.dataset.digest].append(group)
    share = math.ceil(jobs / max(1, len(by_dataset)))
    for parts in by_dataset.values():
        halved(parts, share, join, seconds)
        step = math.ceil(len(parts) / share)
        for i in range(0, len(parts), step):
            yield [t for part in parts[i : i + step] for t in part]


def halved(parts: list[list[Todo]], least: int, join: bool, seconds: Seconds) -> None:
    """Cut the largest part in two, in place, until there are ``least`` parts or none can be cut."""
    while len(parts) < least:
        can = [(weight(part, seconds), i) for i, part in enumerate(parts) if len(units(part, join)) > 1]
        if not can:
            return
        _, i = max(can)
        halves: tuple[list[Todo], list[Todo]] = [], []
        for unit in sorted(units(parts[i], join), key=lambda unit: -weight(unit, seconds)):
            min(halves, key=lambda half: weight(half, seconds)).extend(unit)
        keys = [{t.fit.key for t in half} for half in halves]
        parts[i : i + 1] = [[t for t in parts[i] if t.fit.key in half] for half in keys]
