"""Divide what is left to do into portions for one worker or several, so that cells share features and states.

Words: A unit is the smallest set of cells that can go to a worker of its own: no other unit reads a state
that it reads or makes. A round is the cells of one (dataset, seed). A group is any list of cells that one
worker could do, such as a round or a round's cells of one number of shots. A portion is the group that a
worker gets at a time; the Ray executor sends it as a task. This module imports no torch.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping

from bench.plan.cells import chain, kind
from bench.plan.todo import Todo
from bench.records.keys import Shots

Seconds = Mapping[str, float]  # expected seconds by fit key; a cell that is not in it counts as one second
UNKNOWN: Seconds = {}
# A portion takes at most 1 / _AHEAD of a worker's part of the seconds that are left. So portions become
# smaller towards the end, and no worker waits long for the last one.
_AHEAD = 2
_NEAR = 1.05  # plan order is kept if it takes at most this many times the least possible duration


def rounds(
    todo: list[Todo], by_dataset: bool = False, join: bool = False
) -> Iterator[tuple[str, list[Todo]]]:
    """Yield the rounds, each with its dataset's digest.

    The cells of a round share features and states. Cells that failed or were stopped before are in rounds of
    their own, which come last. So all other cells are done before these can fail or hang again.

    ``by_dataset``: yield all rounds of a dataset one after the other, so that one pass over its test images
    serves them all. ``join``: make one round of all seeds of a dataset. In it the cells that read a state
    follow the fit that makes it, so that few states are held at a time.
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
    """Return the portions for ``jobs`` workers.

    A portion is a round, or a part of one if workers would otherwise wait for each other. If test features
    are ``streamed``, it is as many rounds of a dataset as leave work for every worker. With ``join`` it is as
    many numbers of shots of a dataset, each for all seeds, as leave work for every worker.
    """
    groups = _groups(todo, join)
    return list(gathered(groups, jobs, join, seconds)) if streamed or join else shared(groups, jobs, seconds)


def apart(todo: list[Todo], streamed: bool, join: bool, seconds: Seconds = UNKNOWN) -> list[float]:
    """Return the seconds of each part that can run in parallel. There is no use for more workers than parts.

    A part is a unit. If test features are ``streamed``, it is a whole group, because each cut of a group
    takes one more pass over the test images.
    """
    groups = _groups(todo, join)
    parts = groups if streamed else [unit for group in groups for unit in units(group, join)]
    return [weight(part, seconds) for part in parts]


def _groups(todo: list[Todo], join: bool) -> list[list[Todo]]:
    """Return the rounds. With ``join`` each is divided by shots."""
    found = [group for _, group in rounds(todo, join=join)]
    return [group for whole in found for group in by_shots(whole)] if join else found


def weight(cells: Iterable[Todo], seconds: Seconds) -> float:
    """Return the expected seconds of cells that are done one after the other."""
    return sum(seconds.get(t.fit.key, 1.0) for t in cells)


def units(group: list[Todo], join: bool = False) -> list[list[Todo]]:
    """Divide a group into units, so that none reads a state that another unit reads or makes.

    With ``join``, fits that may train together are in one unit too.
    """
    if len(group) < 2:
        return [group]
    unit_of: dict[Hashable, int] = {}  # a fit's key, or with ``join`` its kind -> its unit's first position
    positions: dict[int, list[int]] = {}  # first position of a unit -> the positions of its cells
    for i, t in enumerate(group):
        holds = {kind(fit) if join else fit.key for fit in chain(t.fit)}
        met = {unit_of[x] for x in holds if x in unit_of}
        first = min(met, default=i)
        positions[first] = sorted([i, *(j for unit in met for j in positions.pop(unit))])
        if len(met) > 1:
            unit_of |= {x: first for x, unit in unit_of.items() if unit in met}
        unit_of |= dict.fromkeys(holds, first)
    return [[group[i] for i in positions[first]] for first in sorted(positions)]


def shared(groups: list[list[Todo]], jobs: int, seconds: Seconds) -> list[list[Todo]]:
    """Divide groups into portions for ``jobs`` workers, so that no worker waits long at the end.

    An idle worker takes the next portion. The portions keep the order of the groups, unless a large portion
    near the end would make the other workers wait. Then the groups with the largest units come first, except
    for cells that are tried again, which stay last.
    """
    if jobs < 2:
        return groups
    ordered = _cut(groups, jobs, seconds)
    each = [weight(unit, seconds) for group in groups for unit in units(group)]
    if _wall(ordered, jobs, seconds) <= _NEAR * max(sum(each) / jobs, max(each, default=0.0)):
        return ordered

    def place(group: list[Todo]) -> tuple[bool, float]:
        return group[0].late, -max(weight(unit, seconds) for unit in units(group))

    largest = _cut(sorted(groups, key=place), jobs, seconds)
    return min(ordered, largest, key=lambda found: _wall(found, jobs, seconds))


def _cut(groups: list[list[Todo]], jobs: int, seconds: Seconds) -> list[list[Todo]]:
    """Cut each group into portions of at most a share of the seconds that are left, the largest units first.

    A single unit is never cut, however long it takes.
    """
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
    """Return the seconds until the last portion ends if an idle worker always takes the next one."""
    ends = [0.0] * jobs
    for portion in found:
        heapq.heapreplace(ends, ends[0] + weight(portion, seconds))
    return max(ends)


def by_shots(group: list[Todo]) -> list[list[Todo]]:
    """Divide a group by the number of shots of its cells."""
    found: dict[Shots, list[Todo]] = defaultdict(list)
    for t in group:
        found[t.fit.cell.shots].append(t)
    return list(found.values())


def gathered(
    groups: Iterable[list[Todo]], jobs: int, join: bool = False, seconds: Seconds = UNKNOWN
) -> Iterator[list[Todo]]:
    """Yield portions of several groups of one dataset, which share passes over its images and may join.

    The workers are shared out equally among the datasets. Each dataset gets at most as many portions as it
    has workers. If it has fewer groups than workers, its largest groups are cut in two.
    """
    by_dataset: dict[str, list[list[Todo]]] = defaultdict(list)
    for group in groups:
        by_dataset[group[0].fit.dataset.digest].append(group)
    share = math.ceil(jobs / max(1, len(by_dataset)))
    for own in by_dataset.values():
        halved(own, share, join, seconds)
        step = math.ceil(len(own) / share)
        for i in range(0, len(own), step):
            yield [t for group in own[i : i + step] for t in group]


def halved(groups: list[list[Todo]], least: int, join: bool, seconds: Seconds) -> None:
    """Cut the largest group in two, in place, until there are ``least`` groups or none has two units."""
    while len(groups) < least:
        can = [(weight(group, seconds), i) for i, group in enumerate(groups) if len(units(group, join)) > 1]
        if not can:
            return
        _, i = max(can)
        halves: tuple[list[Todo], list[Todo]] = [], []
        for unit in sorted(units(groups[i], join), key=lambda unit: -weight(unit, seconds)):
            min(halves, key=lambda half: weight(half, seconds)).extend(unit)
        keys = [{t.fit.key for t in half} for half in halves]
        groups[i : i + 1] = [[t for t in groups[i] if t.fit.key in half] for half in keys]
