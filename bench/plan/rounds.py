"""What is left to do, in portions that share their work, for one worker or several. No torch."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping

from bench.plan.cells import chain, kind
from bench.plan.todo import Todo
from bench.records.keys import Shots

Seconds = Mapping[str, float]  # by fit key: what a cell is expected to take; others count for a second
UNKNOWN: Seconds = {}
_AHEAD = 2  # shares in which each worker gets what is left: those that are smaller wait less at the end
_NEAR = 1.05  # how much longer than it must a run in plan order may take


def rounds(
    todo: list[Todo], by_dataset: bool = False, join: bool = False
) -> Iterator[tuple[str, list[Todo]]]:
    """The cells by (seed, dataset), in order, with the dataset's digest; a round shares features and states.

    What failed or was stopped before is in rounds of its own, which come last: whatever it does again, the
    others are done by then.
    ``by_dataset``: the rounds of a dataset one after the other, so that one pass over its test images serves
    them all. ``join``: one round for a dataset, ordered for few states at a time: what reads a state follows
    the fit that made it.
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
    """What one of ``jobs`` workers gets at a time: a round, or several where test features are ``streamed``.

    Rounds are cut where workers would wait for each other otherwise. ``join``: a dataset, or of its shots as
    many as leave work for every worker.
    """
    groups = _groups(todo, join)
    return list(gathered(groups, jobs, join, seconds)) if streamed or join else shared(groups, jobs, seconds)


def apart(todo: list[Todo], streamed: bool, join: bool, seconds: Seconds = UNKNOWN) -> list[float]:
    """The seconds of each part that may go beside the others: more workers than these would have no work.

    Where test features are ``streamed`` a round counts as one, since to cut it takes another pass over them.
    """
    groups = _groups(todo, join)
    parts = groups if streamed else [unit for group in groups for unit in units(group, join)]
    return [weight(part, seconds) for part in parts]


def _groups(todo: list[Todo], join: bool) -> list[list[Todo]]:
    groups = [group for _, group in rounds(todo, join=join)]
    return [part for group in groups for part in by_shots(group)] if join else groups


def weight(cells: Iterable[Todo], seconds: Seconds) -> float:
    """The seconds that cells are expected to take one after the other."""
    return sum(seconds.get(t.fit.key, 1.0) for t in cells)


def units(group: list[Todo], join: bool = False) -> list[list[Todo]]:
    """The cells of a group in parts of which none reads a state that another reads or makes.

    ``join``: nor holds fits that may train together with those of another.
    """
    if len(group) < 2:
        return [group]
    part_of: dict[Hashable, int] = {}  # by what a part holds: the place of the part's first cell
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
    """Groups for ``jobs`` workers that take one when they are idle, cut so that none waits long at the end.

    In their order, unless a large one near the end would keep all others waiting: then the largest first, but
    for what is tried again, which stays last.
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
    """Each group in portions of at most a share of all that is left, the largest units first."""
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
    """When the last of the portions ends, of which an idle worker always takes the next."""
    ends = [0.0] * jobs
    for portion in found:
        heapq.heapreplace(ends, ends[0] + weight(portion, seconds))
    return max(ends)


def by_shots(group: list[Todo]) -> list[list[Todo]]:
    """The cells of each number of shots."""
    parts: dict[Shots, list[Todo]] = defaultdict(list)
    for t in group:
        parts[t.fit.cell.shots].append(t)
    return list(parts.values())


def gathered(
    groups: Iterable[list[Todo]], jobs: int, join: bool = False, seconds: Seconds = UNKNOWN
) -> Iterator[list[Todo]]:
    """As many groups of a dataset together as leave work for all: they share passes, and may join.

    Where a dataset has fewer groups than that, the largest are cut in two.
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
    """Cut the largest of the parts in two, in place, until there are ``least`` or none can be cut."""
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
