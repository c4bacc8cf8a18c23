"""``--join``: seeds and shots that train together give the tables that they give alone; records say who
trained with whom.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.plan.todo import Todo
from bench.records.types import Failure, FitRecord
from bench.run.states import States
from bench.train import select, waves
from tests.run.conftest import Bench, of_type

SHORT = [
    f"{method}.{length}"
    for method in ("cross-modal-linear", "linear-probe-sgd")
    for length in ("steps=6", "check_every=2")
]
SHOTS = ("--shots", "2,3")
GRID = ("--seeds", "1,2", *SHOTS)
FASTER = tuple(word for one in SHORT for word in ("--set", one))
FOUR = (*GRID, *FASTER)
METHODS = "zero-shot,safe-a,tip-adapter-f,cross-modal-linear,linear-probe-sgd"


def fits(results: Path) -> dict[tuple[str, int, int], FitRecord]:
    """Fit records by method, shots and seed."""
    return {(r.cell.method, int(r.cell.shots), r.cell.seed): r for r in of_type(results, FitRecord)}


def company(results: Path, method: str) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """With whom each fit of a method trained: (shots, seed) of all, by its own."""
    of_key = {r.key: cell[1:] for cell, r in fits(results).items()}
    mine = {cell[1:]: r.budget.joined for cell, r in fits(results).items() if cell[0] == method}
    return {cell: [of_key[key] for key in keys] for cell, keys in mine.items()}


def same(one: Path, other: Path) -> None:
    """The same choices and predictions of every test image, and the same probabilities but for rounding."""
    a, b = fits(one), fits(other)
    assert a.keys() == b.keys() and a
    for cell, fit in a.items():
        assert all(
            getattr(fit, k) == getattr(b[cell], k) for k in ("values", "step", "key", "val_accuracy")
        ), cell
        assert fit.temperature == pytest.approx(b[cell].temperature, rel=1e-3), cell
    found, wanted = ({p.name: p for p in results.rglob("*.npz")} for results in (one, other))
    assert found.keys() == wanted.keys()
    for name, path in found.items():
        with np.load(path) as x, np.load(wanted[name]) as y:
            assert x.files == y.files and {"logp", "lse_t"} <= {*x.files}
            for k in x.files:
                if x[k].dtype.kind == "f":
                    np.testing.assert_allclose(x[k], y[k], rtol=1e-3, atol=1e-4, err_msg=f"{name} {k}")
                else:
                    np.testing.assert_array_equal(x[k][..., :1], y[k][..., :1], err_msg=f"{name} {k}")


@pytest.fixture
def alone(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of the grid where nothing joins, made once."""
    results = tmp_path_factory.getbasetemp() / "alone"
    done = bench("run", *FOUR, "--methods", METHODS, "--no-join", "--results", results, "--jobs", "1")
    assert done.exit_code == 0, done.output
    return results


def test_the_same_table_with_and_without(bench: Bench, tmp_path: Path, alone: Path) -> None:
    done = bench("run", *FOUR, "--methods", METHODS, "--join", "--results", tmp_path, "--jobs", "1")
    assert done.exit_code == 0, done.output
    shown = [bench("table", "--results", results, "--format", "csv").output for results in (alone, tmp_path)]
    assert shown[0] == shown[1] and "safe-a" in shown[0]
    same(alone, tmp_path)
    both = [(2, 1), (2, 2), (3, 1), (3, 2)]
    for method in ("safe", "cross-modal-linear"):  # safe: only read, not asked for
        assert company(tmp_path, method) == dict.fromkeys(both, both)
    for method in ("tip-adapter-f", "linear-probe-sgd"):  # their batches end with the support set
        assert company(tmp_path, method) == {(n, seed): [(n, 1), (n, 2)] for n, seed in both}
    assert len({r.seconds["fit"] for (m, *_), r in fits(tmp_path).items() if m == "safe"}) == 1, (
        "seconds are shared equally"
    )
    assert not any(r.budget.joined for (m, *_), r in fits(tmp_path).items() if m in ("zero-shot", "safe-a"))
    assert not any(r.budget.joined for r in fits(alone).values())
    firsts = [m for (m, *_), r in fits(alone).items() if r.first]
    assert sorted(firsts) == sorted({m for m, *_ in fits(alone)}), "one fit of each method was its first"
    assert all(r.first for (m, *_), r in fits(tmp_path).items() if m == "safe"), "all that warmed up together"


@pytest.mark.slow
def test_only_what_is_left_joins_also_in_other_processes(bench: Bench, tmp_path: Path, alone: Path) -> None:
    arguments = (*FASTER, "--methods", METHODS, "--join", "--results", tmp_path)
    assert bench("run", *arguments, "--shots", "2", "--seeds", "2", "--jobs", "1").exit_code == 0
    done = bench("run", *arguments, *GRID, "--jobs", "2")
    assert done.exit_code == 0, done.output
    shared = [(3, 1), (3, 2)]
    assert company(tmp_path, "safe") == {(2, 1): [], (2, 2): [], (3, 1): shared, (3, 2): shared}
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
        return {{**super().prepare(task), 'more': {more}}}
"""


def plugin(tmp_path: Path, base: str, do: str = "pass", more: str = "0.0") -> tuple[Any, ...]:
    module, length = ("safe", "steps=4") if base == "Safe" else ("tip_adapter", "epochs=2")
    file = tmp_path / "own.py"
    file.write_text(PLUGIN.format(module=module, base=base, do=do, more=more))
    return "--plugin", file, "--set", f"own.{length}", "--methods", "own", "--jobs", "1"


@pytest.mark.slow
def test_what_cannot_join_is_fitted_alone_and_says_so(bench: Bench, tmp_path: Path) -> None:
    arguments = (*plugin(tmp_path, "TipAdapterF", more="Mark()"), "--seeds", "1,2,3", "--shots", "1,2")
    done = bench("run", *arguments, "--join", "--results", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert done.output.count("own shapes: seeds are fitted one by one") == 1, (
        "what holds for a method is tried once"
    )
    why = {r.budget.apart for r in fits(tmp_path / "a").values()}
    assert why == {"the constants 'more' are not tensors and differ"}
    assert bench("run", *arguments, "--results", tmp_path / "b").exit_code == 0
    same(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_where_shots_cannot_join_seeds_do(bench: Bench, tmp_path: Path) -> None:
    """Constants with a number for every support image."""
    arguments = (*plugin(tmp_path, "Safe", more="task.labels_N.float()"), *GRID)
    done = bench("run", *arguments, "--join", "--results", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert (
        done.output.count("fitted one by one")
        == done.output.count("own shapes: shots are fitted one by one")
        == 1
    )
    assert company(tmp_path / "a", "own") == {(n, seed): [(n, 1), (n, 2)] for n in (2, 3) for seed in (1, 2)}
    assert {r.budget.apart for r in fits(tmp_path / "a").values()} == {"the constants 'more' differ in shape"}
    assert bench("run", *arguments, "--results", tmp_path / "b").exit_code == 0
    same(tmp_path / "a", tmp_path / "b")


def test_a_failing_fit_costs_only_its_cell(bench: Bench, tmp_path: Path) -> None:
    fails = "1 / (task.seed - 2 + task.facts.shots - 2)"
    done = bench(
        "run", *plugin(tmp_path, "Safe", fails), *SHOTS, "--seeds", "2,4", "--join", "--results", tmp_path
    )
    assert done.exit_code == 1
    records = {cell[1:]: r for cell, r in fits(tmp_path).items()}
    assert set(records) == {(2, 4), (3, 2), (3, 4)}
    (failure,) = of_type(tmp_path, Failure)
    assert (failure.cell.shots, failure.cell.seed, failure.stage) == (
        2,
        2,
        "prepare",
    ) and "division" in failure.error
    assert "division by zero" in records[2, 4].budget.apart
    assert records[3, 2].budget.joined == [records[3, 2].key, records[3, 4].key]


@pytest.mark.parametrize(
    ("room", "sizes", "left"),
    [(9.0, [4] * 4, [3, 2, 1, 0]), (2.5, [2] * 4, [1, 0, 1, 0]), (0.5, [0] * 4, [0] * 4)],
)
def test_as_many_join_as_memory_holds_and_states_go_when_they_are_read(
    room: float,
    sizes: list[int],
    left: list[int],
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bench.run import fit as fitting

    monkeypatch.setattr(fitting, "held", lambda cases: len(cases) << 30)
    monkeypatch.setattr(select, "bytes_per_replica", lambda *given: 1 << 29)
    monkeypatch.setattr(waves, "free_bytes", lambda device: int(room * (1 << 30) / waves.SHARE))
    original, states = States.release, []

    def counted(held: States, t: Todo) -> None:
        original(held, t)
        assert len(held.ready) <= len(held.held)
        states.append(len(held.held))

    monkeypatch.setattr(States, "release", counted)
    done = bench("run", *GRID, "--methods", "safe-a", "--join", "--results", tmp_path, "--jobs", "1")
    assert done.exit_code == 0, done.output
    assert [len(company(tmp_path, "safe")[cell]) for cell in ((2, 1), (2, 2), (3, 1), (3, 2))] == sizes
    assert states == left, "after each cell: those that SAFE-A has yet to read"
    if not sizes[0]:
        assert "memory holds" in fits(tmp_path)["safe", 2, 1].budget.apart
