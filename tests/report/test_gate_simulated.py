"""The gate on simulated reruns of the committed baseline: how often it fails, and what it finds.

The generator (tests/stats/simulated.py) is independent of the code that is tested. On another machine
rounding flips 0.1 to 0.5 % of the predictions. SAFE's training with 4 shots amplifies this, and SAFE-A builds
on it: each cell of these two groups moves by 2 points (standard deviation) in either direction.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bench.report.gate import baseline as baselines
from bench.report.gate.check import LEVEL, MARGIN
from bench.report.gate.verdict import Group, Verdict, finding
from bench.stats import non_inferiority
from tests.stats.simulated import REGIMES, Change, Regime, Rerun, rerun

# The sizes of results/baselines/pocket.json; a test compares them.
DATASETS, IMAGES, SEEDS = 4, 760, 5
GROUPS = (
    *("zero-shot coop", "zero-shot hand"),
    *("tip-adapter-f 1", "tip-adapter-f 4", "gda 1", "gda 4", "safe 1", "safe 4", "safe-a 1", "safe-a 4"),
)
CHAOTIC = (GROUPS.index("safe 4"), GROUPS.index("safe-a 4"))
REGIME = Regime(REGIMES["typical"].shares, accuracy=0.45, images=IMAGES)


def verdict(runs: list[list[Rerun]]) -> Verdict:
    """Return the verdict on reruns of every group, on another kind of machine."""
    groups = []
    for name, cells in zip(GROUPS, runs, strict=True):
        seeds = slice(1 if name.startswith("zero-shot") else None)
        pairs = [((c.new == c.labels)[seeds], (c.old == c.labels)[seeds]) for c in cells]
        test = non_inferiority(pairs, MARGIN, LEVEL, groups=len(GROUPS), sources=range(len(pairs)))
        agreement = min(float((c.new == c.old)[seeds].mean(1).min()) for c in cells)
        groups.append(Group(name, 1, finding(test, agreement, None), False, agreement, test, ""))
    return Verdict(tuple(groups), ())


def verdicts(change: Change, repetitions: int, seed: int) -> list[Verdict]:
    rng = np.random.default_rng(seed)
    sizes = {"methods": len(GROUPS), "datasets": DATASETS, "seeds": SEEDS}
    return [verdict(rerun(rng, REGIME, change, **sizes)) for _ in range(repetitions)]


@pytest.mark.slow
@pytest.mark.parametrize(("flips", "repetitions"), [(0.001, 100), (0.005, 300)])
def test_unchanged_code_on_another_machine_fails_in_fewer_than_1_of_100_runs(
    flips: float, repetitions: int
) -> None:
    found = verdicts(Change(flips=flips, chaotic=CHAOTIC, chaos=0.02), repetitions, seed=1)
    shares = {name: n / len(found) for name, n in Counter(v.finding for v in found).items()}
    print(f"{flips:.1%} flipped: {shares}")
    assert shares.get("worse", 0.0) < 0.01
    steady = [g.finding for v in found for g in v.groups if GROUPS.index(g.name) not in CHAOTIC]
    assert set(steady) == {"held"}, "only a group that moves may be undecided"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["tip-adapter-f", "safe", "safe-a"])
def test_a_drop_of_3_points_in_one_method_is_caught(method: str) -> None:
    dropped = {i: 0.03 for i, name in enumerate(GROUPS) if name.split()[0] == method}
    found = verdicts(Change(flips=0.003, chaotic=CHAOTIC, chaos=0.02, drops=dropped), 100, seed=2)
    caught = np.mean([any(v.groups[i].finding == "worse" for i in dropped) for v in found])
    others = np.mean(
        [any(g.finding == "worse" for g in v.groups if g.name.split()[0] != method) for v in found]
    )
    print(f"{method}: caught in {caught:.1%}, another method blamed in {others:.1%}")
    assert caught >= 0.95 and others < 0.05


def test_the_baseline_has_the_sizes_that_are_simulated() -> None:
    kept = baselines.load(Path(__file__).resolve().parents[2] / "results" / "baselines" / "pocket.json").kept
    assert len({(k.cell["method"], k.cell["shots"], k.cell["prompts"]) for k in kept}) == len(GROUPS)
    assert {len({k.cell["seed"] for k in kept if k.cell["shots"]})} == {SEEDS}
    images = {k.cell["dataset"]: len(k.top1) for k in kept}
    assert len(images) == DATASETS
    assert 1 / np.mean([1 / n for n in images.values()]) == pytest.approx(IMAGES, rel=0.02)
