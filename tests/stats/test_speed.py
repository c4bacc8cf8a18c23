"""The comparison of speed errs as rarely as it claims on a machine that swings, and finds slow methods."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from bench.stats.speed import ERROR, Ratio, Repeat, ratio

LIMIT = 1.5


def run(
    rng: np.random.Generator, cells: int, turns: int, seconds: np.ndarray, load: float, bursts: float
) -> list[list[Repeat]]:
    """The repeats of every cell in one run, as rounds over all cells between runs of the reference.

    ``seconds``: the work's true seconds, by cell. Time goes on in slots: reference, work, reference, ...
    The log of the machine's load wanders: its standard deviation is ``load``, and the next slot keeps 80 % of
    it. In a share ``bursts`` of the slots another job doubles or quadruples what this one takes. Each
    slot has a noise of 3 % of its own, and a whole run one of 4 % for each cell.
    """
    slots = turns * cells * 2 + 1
    steps = rng.normal(0, load * math.sqrt(1 - 0.8**2), slots)
    wander = np.empty(slots)
    level = rng.normal(0, load)
    for i in range(slots):
        level = 0.8 * level + steps[i]
        wander[i] = level
    wander += rng.normal(0, 0.03, slots)
    wander += np.where(rng.random(slots) < bursts, np.log(rng.uniform(2, 4, slots)), 0)
    spent = np.exp(wander)
    own = np.exp(rng.normal(0, 0.04, cells))
    repeats: list[list[Repeat]] = [[] for _ in range(cells)]
    for i in range(turns * cells):
        before, work, after = spent[2 * i : 2 * i + 3]
        cell = i % cells
        repeats[cell].append(Repeat(float(work * seconds[cell] * own[cell]), 0.02 * before, 0.02 * after))
    return repeats


def found(
    rng: np.random.Generator, slower: float, load: float, bursts: float, cells: int = 7, turns: int = 5
) -> list[Ratio]:
    """The ratios of a check in which the first cell takes ``slower`` times as long, by both clocks."""
    seconds = np.exp(rng.uniform(math.log(0.01), math.log(10), cells))
    slow = seconds * np.where(np.arange(cells) == 0, slower, 1)
    clocks = []
    for share in (0.5, 1.0):  # the processor's seconds swing less than the clock's
        old = run(rng, cells, turns, seconds, share * load, share * bursts)
        new = run(rng, cells, turns, slow, share * load, share * bursts)
        clocks += [ratio(n, o, LIMIT, 2 * cells) for n, o in zip(new, old, strict=True)]
    return clocks


def rates(slower: float, load: float, bursts: float, checks: int) -> Counter[str]:
    """How many checks call a cell slower that is not ('false'), and the first one slower ('caught')."""
    rng = np.random.default_rng(17)
    counts: Counter[str] = Counter()
    for _ in range(checks):
        ratios = found(rng, slower, load, bursts)
        mine = {one.finding for one in ratios[::7]}
        others = {one.finding for i, one in enumerate(ratios) if i % 7}
        counts["caught"] += "slower" in mine
        counts["false"] += "slower" in others
        counts["cleared"] += others == {"not slower"}
    return counts


# How much the machine swings and how often it bursts, and the least share of checks that find a method which
# takes 10 times as long, and one which takes twice as long. The second row is like two cores that ten or
# more busy jobs share.
SWINGS = [(0.05, 0.0, 1.0, 0.9), (0.3, 0.02, 1.0, 0.5), (0.6, 0.1, 1.0, 0.0), (1.0, 0.3, 0.8, 0.0)]


@pytest.mark.slow
@pytest.mark.parametrize(("load", "bursts", "tenfold", "twofold"), SWINGS)
def test_rates_on_a_machine_that_swings(load: float, bursts: float, tenfold: float, twofold: float) -> None:
    """Unchanged code fails in fewer than 1 of 100 checks, and a method that takes 10 times as long fails."""
    same, ten, two = (rates(slower, load, bursts, n) for slower, n in ((1, 800), (10, 100), (2, 150)))
    print(f"load {load}, bursts {bursts}: same {dict(same)}, tenfold {dict(ten)}, twofold {dict(two)}")
    assert same["caught"] + same["false"] < 0.01 * 800
    assert ten["caught"] >= tenfold * 100 and two["caught"] >= twofold * 150
    assert ten["false"] <= 1 and two["false"] <= 1


def steady(seconds: float, n: int = 5, noise: float = 0.0) -> list[Repeat]:
    rng = np.random.default_rng(n)
    return [Repeat(float(seconds * np.exp(rng.normal(0, noise))), 0.5, 0.5) for _ in range(n)]


def test_a_slower_machine_is_no_slower_method() -> None:
    """Only the work's seconds over the reference's count."""
    new = [Repeat(3 * r.work, 3 * r.before, 3 * r.after) for r in steady(2)]
    assert ratio(new, steady(2), LIMIT).estimate == pytest.approx(1)
    drifting = [Repeat(2.0 * 2**i, 0.5 * 2**i / math.sqrt(2), 0.5 * 2**i * math.sqrt(2)) for i in range(5)]
    level = ratio(drifting, steady(2), LIMIT)
    assert level.estimate == pytest.approx(1) and level.finding == "not slower"


@pytest.mark.parametrize(
    ("seconds", "noise", "says"),
    [(2, 0.05, "not slower"), (20, 0.05, "slower"), (20, 0.3, "slower"), (2, 1.0, "cannot be said")],
)
def test_the_three_findings(seconds: float, noise: float, says: str) -> None:
    one = ratio(steady(seconds, 5, noise), steady(2, 6, noise), LIMIT)
    assert one.finding == says and one.low < one.estimate < one.high


def test_both_runs_vary() -> None:
    """A wide baseline makes a wide interval, and so do more comparisons and fewer repeats."""
    narrow = ratio(steady(2), steady(2), LIMIT)
    for wider in (
        ratio(steady(2), steady(2, noise=0.2), LIMIT),
        ratio(steady(2, noise=0.2), steady(2), LIMIT),
        ratio(steady(2), steady(2), LIMIT, comparisons=20),
    ):
        assert wider.high / wider.low > 1.1 * narrow.high / narrow.low
    few, many = (ratio(steady(2, n, 0.1), steady(2, n, 0.1), LIMIT) for n in (3, 20))
    assert few.high / few.low > 1.5 * many.high / many.low
    assert narrow.low < 1 < narrow.high, "whole runs vary too, even if repeats agree"


def test_the_error_is_that_of_all_comparisons_together() -> None:
    """At the limit itself a check with ten ratios says "slower" as often as ``ERROR`` claims, at most."""
    rng = np.random.default_rng(3)
    wrong, checks = 0, 400
    for _ in range(checks):
        of = rng.normal(0, 0.2, (10, 2, 5))
        runs = [[[Repeat(float(np.exp(x)), 1, 1) for x in one] for one in pair] for pair in of]
        slow = ([replace(r, work=LIMIT * r.work) for r in new] for new, _ in runs)
        found = [ratio(s, old, LIMIT, 10).finding for s, (_, old) in zip(slow, runs, strict=True)]
        wrong += "slower" in found
    assert 0 < wrong < 1.6 * ERROR * checks


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="two repeats"):
        ratio(steady(2, 1), steady(2), LIMIT)
    with pytest.raises(ValueError, match="limit"):
        ratio(steady(2), steady(2), 0.9)
