"""The gate speaks about all groups together, calls no improvement worse, and says what it cannot see."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.errors import BenchError
from bench.report.frame import load_results
from bench.report.gate import cells, view
from bench.report.gate import check as gate
from bench.report.gate.baseline import Baseline
from tests.report import made
from tests.report.test_gate import N, changed, of, old, results

__all__ = ["old", "results"]  # fixtures


def test_an_improvement_is_never_worse(results: Path, old: Baseline) -> None:
    """On the same kind of machine the predictions have changed; on another one the accuracy decides."""
    for machine, finding in ((None, "changed"), ("Another CPU", "held")):
        before = changed(old, "safe", 0.1, machine=machine)
        group = of(gate.check(before, load_results(results)), "safe 4")
        assert group.test is not None and group.test.interval.estimate > 0.01 and group.agreement < 0.95
        assert group.finding == finding
    assert view.text(gate.check(changed(old, "safe", 0.1), load_results(results))).startswith("changed")


def test_the_family_is_as_large_as_the_baseline(results: Path, old: Baseline) -> None:
    frame, before = load_results(results), changed(old, "safe", 0.02, machine="Another CPU")
    chosen = {"method": ["safe"], "shots": [4], "dataset": [], "seed": []}
    alone = gate.check(cells.narrow(before, chosen), frame).groups
    among = of(gate.check(before, frame), "safe 4")
    assert len(alone) == 1 and alone[0].test is not None and among.test is not None
    assert among.test.interval.low < alone[0].test.interval.low
    assert "all intervals hold together with 95 % confidence" in view.text(gate.check(before, frame))


def test_it_says_what_one_seed_and_one_dataset_do_not_show(results: Path, old: Baseline) -> None:
    frame = load_results(results)
    several = gate.check(old, frame).notes
    assert len(several) == 1, "several seeds and datasets, so there is nothing to warn of"
    one = {"method": [], "shots": [4], "dataset": ["birds"], "seed": [1]}
    notes = gate.check(cells.narrow(old, one), frame).notes
    assert "safe 4 shots (pocket-rn, hand) and 1 more: with one seed the interval covers other" in notes[1]
    assert notes[2] == "birds is the only dataset, so changes that show on others are not seen"
    assert not any("zero-shot" in note for note in notes), "it has no draw of support images"


def test_two_noisy_seeds_of_a_few_images_prove_no_drop(tmp_path: Path) -> None:
    made.grid(tmp_path, ["safe"], ["birds"], (1,), seeds=(1, 2), n=40)
    old = Baseline(tuple(cells.collect(load_results(tmp_path))))
    moved = [replace(k, top1=np.roll(k.top1, k.cell["seed"])) for k in old.kept]
    said = view.headline(gate.check(replace(old, kept=tuple(moved)), load_results(tmp_path), margin=0.9))
    assert "in some groups these data can prove no drop" in said


def test_targets_of_one_fit_share_their_seeds(tmp_path: Path) -> None:
    """Two test sets of one fit whose seeds move together: their average is known less well."""
    for seed in (1, 2, 3):
        where = made.cell("safe", "birds", 4, seed)
        made.one(tmp_path, where, n=N)
        made.one(tmp_path, where, target="birds-sketch", n=N)
    old = Baseline(tuple(cells.collect(load_results(tmp_path))))
    rng = np.random.default_rng(0)
    moved = []
    for k in old.kept:  # seed 1 loses, seed 3 gains, on both test sets
        top1, lost = k.top1.copy(), rng.random(N) < 0.1
        assert k.labels is not None
        top1[lost] = {1: (k.labels + 1) % made.CLASSES, 2: top1, 3: k.labels}[k.cell["seed"]][lost]
        moved.append(replace(k, top1=top1))
    frame = load_results(tmp_path)
    (together,) = gate.check(replace(old, kept=tuple(moved)), frame).groups
    assert together.test is not None and together.test.interval.parts.seeds_df == pytest.approx(2)
    fewer = tuple(k for k in moved if (k.target, k.cell["seed"]) != ("birds-sketch", 2))
    with pytest.raises(BenchError, match=r"other seeds on some test sets of birds.*--seeds 1,3"):
        gate.check(replace(old, kept=fewer), frame)


@pytest.mark.parametrize("file", [".ci/run", ".github/workflows/ci.yml"])
@pytest.mark.parametrize(
    ("code", "passes"), [(0, True), (1, False), (2, False), (3, False), (4, True), (5, True)]
)
def test_ci_takes_each_exit_code_as_documented(file: str, code: int, passes: bool) -> None:
    """It passes with one plain line what is undecided or changed, and it fails the rest."""
    text = (Path(__file__).resolve().parents[2] / file).read_text(encoding="utf-8")
    (step,) = re.findall(r"status=0\n.*?\besac\b", text, re.S)
    script = f"bench() {{ return {code}; }}\n" + step.replace('"$VENV/bin/bench"', "bench")
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True)
    assert done.returncode == (0 if passes else code), done.stderr
    words = {0: "held", 4: "undecided", 5: "changed"}.get(code)
    assert (done.stdout.count("\n") == 1 and words in done.stdout) if words else not done.stdout
