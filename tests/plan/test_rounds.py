"""Portions for several workers have equal shares, keep together what shares a state, and never depend on
chance.
"""

from __future__ import annotations

import heapq
from types import SimpleNamespace
from typing import Any

import pytest

from bench.plan import rounds
from bench.records.types import Cell


def fit(dataset: str, seed: int, method: str, shots: int = 1, **after: Any) -> Any:
    cell = Cell(
        method=method,
        dataset=dataset,
        shots=shots,
        seed=seed,
        backbone="rn",
        prompts="hand",
        protocol="recipe",
        preset="quick",
    )
    key = f"{dataset} {seed} {method} {shots}"
    return SimpleNamespace(cell=cell, key=key, after=after, dataset=SimpleNamespace(digest=dataset))


def todo(*fits: Any, late: bool = False) -> list[Any]:
    return [SimpleNamespace(fit=one, late=late) for one in fits]


def grid(datasets: int, seeds: int, methods: int) -> list[Any]:
    """In plan order, seed by seed."""
    return todo(
        *(fit(f"d{d}", s, f"m{m}") for s in range(seeds) for d in range(datasets) for m in range(methods))
    )


def wall(portions: list[list[Any]], jobs: int, seconds: dict[str, float]) -> float:
    """When all is done, where an idle worker takes the next portion."""
    ends = [0.0] * jobs
    for portion in portions:
        begins = heapq.heappop(ends)
        heapq.heappush(ends, begins + sum(seconds.get(t.fit.key, 1.0) for t in portion))
    return max(ends)


def keys(portions: list[list[Any]]) -> list[list[str]]:
    return [[t.fit.key for t in portion] for portion in portions]


@pytest.mark.parametrize("jobs", [2, 4])
@pytest.mark.parametrize("sizes", [(1, 1, 24), (3, 1, 8), (1, 5, 4), (2, 2, 40), (1, 24, 1), (11, 3, 8)])
def test_equal_cells_keep_all_workers_at_work_until_the_end(jobs: int, sizes: tuple[int, ...]) -> None:
    cells = grid(*sizes)
    found = rounds.portions(cells, False, jobs)
    assert wall(found, jobs, {}) <= 1.1 * len(cells) / jobs + (len(cells) % jobs > 0)
    assert sorted(t.fit.key for part in found for t in part) == sorted(t.fit.key for t in cells)
    assert all(len({(t.fit.cell.seed, t.fit.dataset.digest) for t in part}) == 1 for part in found)


def test_whole_rounds_in_plan_order_while_there_are_many() -> None:
    cells = grid(10, 4, 3)
    whole = [group for _, group in rounds.rounds(cells)]
    assert keys(rounds.portions(cells, False, 2))[:36] == keys(whole)[:36]
    assert keys(rounds.portions(cells, False, 1)) == keys(whole), "nobody to share with"


def test_the_largest_comes_first_where_it_would_be_last() -> None:
    cells = [*grid(1, 8, 1), *todo(fit("e", 0, "large"))]
    seconds = {"e 0 large 1": 8.0}
    found = rounds.portions(cells, False, 2, seconds=seconds)
    assert keys(found)[0] == ["e 0 large 1"] and wall(found, 2, seconds) == 8
    within = rounds.portions(
        [*grid(1, 1, 8), *todo(fit("d0", 0, "large"))], False, 2, False, {"d0 0 large 1": 8.0}
    )
    assert keys(within)[0] == ["d0 0 large 1"] and wall(within, 2, {"d0 0 large 1": 8.0}) == 8
    failed = [*grid(1, 8, 1), *todo(fit("e", 0, "large"), late=True)]
    assert keys(rounds.portions(failed, False, 2, seconds=seconds))[-1] == ["e 0 large 1"], "it failed before"


def test_what_reads_one_state_stays_together() -> None:
    a, b, c = (fit("d", 1, name) for name in "abc")
    both, above = fit("d", 1, "reads a and b", a=a, b=b), fit("d", 1, "above", c=c)
    hidden = fit("d", 1, "not asked for")
    two = [fit("d", 1, name, x=hidden) for name in ("x", "y")]
    cells = todo(a, b, c, both, above, *two, fit("d", 1, "alone"))
    assert [[t.fit.cell.method for t in unit] for unit in rounds.units(cells)] == [
        ["a", "b", "reads a and b"],
        ["c", "above"],
        ["x", "y"],
        ["alone"],
    ]
    assert rounds.apart(cells, False, False, {"d 1 alone 1": 7.0}) == [3.0, 2.0, 2.0, 7.0]
    assert rounds.apart(cells, True, False) == [8.0], "a cut costs a pass over the test images"


def test_joined_fits_are_cut_by_what_joins_and_only_for_workers_without_work() -> None:
    cells = todo(*(fit("d", seed, name) for seed in (1, 2) for name in "abc"))
    assert keys(rounds.portions(cells, False, 1, join=True)) == [
        ["d 1 a 1", "d 2 a 1", "d 1 b 1", "d 2 b 1", "d 1 c 1", "d 2 c 1"]
    ]
    cut = rounds.portions(cells, False, 2, join=True)
    assert sorted(sorted({t.fit.cell.method for t in part}) for part in cut) == [["a", "c"], ["b"]]
    assert len(rounds.portions(cells, False, 4, join=True)) == 3, "seeds train together"
    streamed = rounds.portions(grid(1, 1, 4), True, 2)
    assert sorted(map(len, streamed)) == [2, 2]


def test_joining_rounds_hold_a_dataset_and_let_readers_follow() -> None:
    plan = []
    for dataset, shots, seed in [(d, k, s) for s in (1, 2) for d in ("x", "y") for k in (1, 4)]:
        a, b = (fit(dataset, seed, method, shots) for method in "ab")
        plan += todo(a, b, fit(dataset, seed, "c", shots, a=a))

    def shown(groups: Any) -> list[str]:
        return [
            " ".join(f"{t.fit.cell.method}{t.fit.cell.shots}{t.fit.cell.seed}" for t in group)
            for group in groups
        ]

    whole_rounds = list(rounds.rounds(plan, join=True))
    whole = "a11 c11 a12 c12 a41 c41 a42 c42 b11 b12 b41 b42"
    assert [name for name, _ in whole_rounds] == ["x", "y"]
    assert shown(group for _, group in whole_rounds) == [whole] * 2
    assert (
        shown(rounds.portions(plan, False, 2, join=True))
        == ["a11 c11 a12 c12 b11 b12 a41 c41 a42 c42 b41 b42"] * 2
    )
    assert (
        shown(rounds.portions(plan, False, 3, join=True))
        == ["a11 c11 a12 c12 b11 b12", "a41 c41 a42 c42 b41 b42"] * 2
    )
