"""``--join-seeds``: seeds that train together give the tables that they give alone, and records say who trained with whom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.run import execute
from bench.train import waves
from tests.run.conftest import Bench

SEEDS = ("--seeds", "1,2,3", "--set", "cross-modal-linear.steps=6", "--set", "cross-modal-linear.check_every=2")
METHODS = "zero-shot,safe-a,tip-adapter-f,cross-modal-linear"


def fits(results: Path) -> dict[tuple[str, int], dict[str, Any]]:
    found = [json.loads(p.read_text()) for p in (results / "runs").rglob("*.json")]
    return {(r["cell"]["method"], r["cell"]["seed"]): r for r in found if r["kind"] == "fit"}


def same(one: Path, other: Path) -> None:
    """The same choices and the same predictions of every test image."""
    a, b = fits(one), fits(other)
    assert a.keys() == b.keys() and a
    for cell, fit in a.items():
        assert all(fit[k] == b[cell][k] for k in ("values", "step", "key", "val_accuracy")), cell
    found, wanted = ({p.name: p for p in results.rglob("*.npz")} for results in (one, other))
    assert found.keys() == wanted.keys()
    for name, path in found.items():
        with np.load(path) as x, np.load(wanted[name]) as y:
            assert all(np.array_equal(x[k][..., :1], y[k][..., :1]) for k in x.files), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alone")


def test_the_same_table_with_and_without(bench: Bench, tmp_path: Path, alone: Path) -> None:
    shown = []
    for results, flag in ((alone, "--no-join-seeds"), (tmp_path, "--join-seeds")):
        done = bench("run", *SEEDS, "--methods", METHODS, flag, "--results", results, "--jobs", "1")
        assert done.exit_code == 0, done.output
        shown.append(bench("table", "--results", results, "--format", "csv").output)
    assert shown[0] == shown[1] and "safe-a" in shown[0]
    same(alone, tmp_path)
    records = fits(tmp_path)
    for method in ("safe", "tip-adapter-f", "cross-modal-linear"):  # safe: only read, not asked for
        mine = [records[method, seed] for seed in (1, 2, 3)]
        assert [r["budget"]["joined"] for r in mine] == [[r["key"] for r in mine]] * 3
        assert len({r["seconds"]["fit"] for r in mine}) == 1, "seconds are shared equally"
    assert not any("joined" in r["budget"] for (m, _), r in records.items() if m in ("zero-shot", "safe-a"))
    assert not any("joined" in r["budget"] for r in fits(alone).values())


def test_only_what_is_left_joins_also_in_other_processes(bench: Bench, tmp_path: Path, alone: Path) -> None:
    arguments = (*SEEDS, "--methods", METHODS, "--join-seeds", "--results", tmp_path)
    assert bench("run", *arguments, "--seeds", "2", "--jobs", "1").exit_code == 0
    done = bench("run", *arguments, "--jobs", "2")
    assert done.exit_code == 0, done.output
    records = fits(tmp_path)
    assert "joined" not in records["tip-adapter-f", 2]["budget"]
    assert records["tip-adapter-f", 1]["budget"]["joined"] == [records["tip-adapter-f", s]["key"] for s in (1, 3)]
    same(alone, tmp_path)


PLUGIN = """
from bench.methods.{module} import {base}

class Mark:
    pass

class Own({base}):
    name = 'own'
    title = 'Own'

    def prepare(self, task):
        {do}
        return {{**super().prepare(task), 'mark': Mark()}}
"""


def plugin(tmp_path: Path, do: str = "pass") -> tuple[Any, ...]:
    file = tmp_path / "own.py"
    file.write_text(PLUGIN.format(module="tip_adapter", base="TipAdapterF", do=do))
    return "--plugin", file, "--set", "own.epochs=2", "--methods", "own", "--seeds", "1,2,3", "--jobs", "1"


def test_what_cannot_join_is_fitted_alone_and_says_so(bench: Bench, tmp_path: Path) -> None:
    arguments = (*plugin(tmp_path), "--shots", "1,2")
    done = bench("run", *arguments, "--join-seeds", "--results", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert done.output.count("own shapes: seeds are fitted one by one") == 1, "what holds for a method is tried once"
    why = {r["budget"]["apart"] for r in fits(tmp_path / "a").values()}
    assert why == {"the constants 'mark' are not tensors and differ"}
    assert bench("run", *arguments, "--results", tmp_path / "b").exit_code == 0
    same(tmp_path / "a", tmp_path / "b")


def test_a_failing_seed_costs_only_its_cell(bench: Bench, tmp_path: Path) -> None:
    done = bench("run", *plugin(tmp_path, "1 / (task.seed - 2)"), "--join-seeds", "--results", tmp_path / "r")
    assert done.exit_code == 1
    records = fits(tmp_path / "r")
    assert {seed: r["status"] for (_, seed), r in records.items()} == {1: "ok", 2: "failed", 3: "ok"}
    assert "division by zero" in records["own", 1]["budget"]["apart"] and "division" in records["own", 2]["error"]


@pytest.mark.parametrize(("room", "sizes"), [(1.5, [2, 2, 0]), (0.5, [0, 0, 0])])
def test_features_of_as_many_seeds_as_memory_holds(
    room: float, sizes: list[int], bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.run import fit as fitting

    monkeypatch.setattr(fitting, "held", lambda case: 1 << 30)
    monkeypatch.setattr(waves, "free_bytes", lambda device: int(room * (1 << 30) / waves.SHARE))
    done = bench("run", *SEEDS, "--methods", "tip-adapter-f", "--join-seeds", "--results", tmp_path, "--jobs", "1")
    assert done.exit_code == 0, done.output
    records = fits(tmp_path)
    assert [len(records["tip-adapter-f", seed]["budget"].get("joined", [])) for seed in (1, 2, 3)] == sizes
    if not sizes[0]:
        assert "memory holds" in records["tip-adapter-f", 1]["budget"]["apart"]


def test_joining_rounds_hold_all_seeds_of_a_dataset_and_shots() -> None:
    from bench.run.plan import Cell

    def todo(name: str, shots: int, seed: int, method: str) -> Any:
        cell = Cell(method, name, shots, seed, "rn", "hand", "recipe", "quick")
        fit = type("Fit", (), {"cell": cell, "dataset": type("D", (), {"name": name})})
        return type("Todo", (), {"fit": fit})

    plan = [todo(d, k, s, m) for s in (1, 2) for d in ("x", "y") for k in (1, 4) for m in ("a", "b")]

    def shown(groups: Any) -> list[str]:
        return [" ".join(f"{t.fit.cell.method}{t.fit.cell.seed}" for t in group) for group in groups]

    rounds = list(execute.rounds(plan, join=True))
    assert [key for key, _ in rounds] == [(1, "x"), (4, "x"), (1, "y"), (4, "y")]
    assert shown(group for _, group in rounds) == ["a1 a2 b1 b2"] * 4
    assert shown(execute.portions(plan, False, 2, join=True)) == ["a1 a2 b1 b2"] * 4
