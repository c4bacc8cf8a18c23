"""What is left to do, in portions that share their work, for one worker or several. No torch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

from bench.plan.cells import chain, kind
from bench.plan.todo import Todo
from bench.records.keys import Shots


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


def portions(todo: list[Todo], streamed: bool, jobs: int, join: bool = False) -> Iterator[list[Todo]]:
    """What one of ``jobs`` workers gets at a time: a round, or several where test features are ``streamed``.

    ``join``: a dataset, or of its shots as many as leave work for every worker.
    """
    if not join:
        groups = (group for _, group in rounds(todo))
        return gathered(groups, jobs) if streamed else groups
    return gathered((part for _, group in rounds(todo, join=True) for part in by_shots(group)), jobs)


def by_shots(group: list[Todo]) -> list[list[Todo]]:
    """The cells of each number of shots."""
    parts: dict[Shots, list[Todo]] = defaultdict(list)
    for t in group:
        parts[t.fit.cell.shots].append(t)
    return list(parts.values())


def gathered(groups: Iterable[list[Todo]], jobs: int) -> Iterator[list[Todo]]:
    """As many groups of a dataset together as leave work for all: they share passes, and may join."""
    by_dataset: dict[str, list[list[Todo]]] = defaultdict(list)
    for group in groups:
        by_dataset[group[0].fit.dataset.digest].append(group)
    share = math.ceil(jobs / max(1, len(by_dataset)))
    for parts in by_dataset.values():
        step = math.ceil(len(parts) / share)
        for i in range(0, len(parts), step):
            yield [t for part in parts[i : i + step] for t in part]
