"""``--no-dense-cache`` streams dense features of test images, once for all states of a dataset, and changes
no number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.features import encode
from bench.interface import DENSE
from bench.plan import rounds
from bench.run import evaluate, fit, onepass
from bench.run.session import Session
from tests.run.conftest import Bench, same_arrays

METHODS = (
    "--methods",
    "zero-shot,safe,cross-modal",
    "--set",
    "cross-modal.steps=4",
    "--set",
    "cross-modal.check_every=2",
)


def evaluations(results: Path) -> dict[str, dict[str, Any]]:
    """Evaluation records and predictions, by key."""
    found = {}
    for path in sorted((results / "runs").rglob("*.npz")):
        record = json.loads(path.with_suffix(".json").read_text())
        with np.load(path) as arrays:
            found[record["key"]] = {
                "top1": record["top1"],
                "n": record["n"],
                **{k: arrays[k] for k in arrays.files},
            }
    return found


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, tuple[str, ...]]]:
    """Every streamed pass over images: how many, and the taps."""
    seen: list[tuple[int, tuple[str, ...]]] = []
    original = Session.stream

    def counted(self: Session, spec: Any, dataset: Any, paths: Any, view: str, taps: Any) -> Iterator[Any]:
        seen.append((len(paths), tuple(taps)))
        return original(self, spec, dataset, paths, view, taps)

    monkeypatch.setattr(Session, "stream", counted)
    return seen


def test_same_numbers_in_one_pass(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: list[tuple[int, tuple[str, ...]]]
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "a"))
    done = bench("run", *METHODS, "--results", tmp_path / "stored")
    assert done.exit_code == 0 and not passes, done.output
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "b"))
    done = bench("run", *METHODS, "--results", tmp_path / "streamed", "--no-dense-cache")
    assert done.exit_code == 0, done.output
    assert passes == [(15, ("dense", "pooled"))], "one pass for all the states"
    stored, streamed = evaluations(tmp_path / "stored"), evaluations(tmp_path / "streamed")
    assert len(stored) == 3 and stored.keys() == streamed.keys()
    for key, one in stored.items():
        for name, value in one.items():
            same_arrays(np.asarray(value), np.asarray(streamed[key][name]), name)
    again = bench("run", *METHODS, "--results", tmp_path / "streamed", "--no-dense-cache")
    assert again.exit_code == 0 and "0 encodes, 0 steps" in again.output and len(passes) == 1


SEEDS = ("--methods", "zero-shot,safe", "--seeds", "1,2,3", "--shots", "2,3", "--no-dense-cache")


@pytest.mark.slow
def test_seeds_and_shots_of_a_dataset_share_a_pass(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: list[tuple[int, tuple[str, ...]]]
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "f"))
    done = bench("run", *SEEDS, "--results", tmp_path / "one")
    assert done.exit_code == 0, done.output
    assert [n for n, _ in passes] == [15], "three seeds, two shots, zero-shot: one pass"
    found = evaluations(tmp_path / "one")
    assert len(found) == 7
    monkeypatch.setattr(onepass, "HELD_BYTES", 0)
    passes.clear()
    assert bench("run", *SEEDS, "--results", tmp_path / "short").exit_code == 0
    assert [n for n, _ in passes] == [15] * 6, "where memory is short each state has its own"
    for key, one in evaluations(tmp_path / "short").items():
        np.testing.assert_array_equal(one["classes"], found[key]["classes"])


@pytest.mark.slow
def test_interrupted_evaluations_are_made_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: list[tuple[int, tuple[str, ...]]]
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "g"))
    original, seeds = fit.run_fit, []

    def interrupted(session: Session, planned: Any, states: Any) -> Any:
        seeds.append(planned.cell.seed)
        if planned.cell.seed == 2:
            raise KeyboardInterrupt
        return original(session, planned, states)

    with monkeypatch.context() as patched:
        patched.setattr(fit, "run_fit", interrupted)
        done = bench("run", *SEEDS, "--results", tmp_path)
    assert done.exit_code == 130 and not passes and len(evaluations(tmp_path)) == 1, (
        "zero-shot reads stored features"
    )
    monkeypatch.setattr(
        fit, "run_fit", lambda s, p, states: seeds.append(p.cell.seed) or original(s, p, states)
    )
    seeds.clear()
    done = bench("run", *SEEDS, "--results", tmp_path)
    assert done.exit_code == 0, done.output
    assert seeds == [2, 2, 3, 3], "the states of what was fitted are read, not trained again"
    assert len(evaluations(tmp_path)) == 7 and len(passes) == 1


def test_datasets_are_shared_out_whole_unless_workers_would_idle() -> None:
    def todo(datasets: int, seeds: int) -> list[Any]:
        """In plan order: seed by seed."""
        made = [(f"d{d}", seed) for seed in range(seeds) for d in range(datasets)]
        fits = [
            SimpleNamespace(
                cell=SimpleNamespace(seed=seed), dataset=SimpleNamespace(name=name, digest=name), key=str(i)
            )
            for i, (name, seed) in enumerate(made)
        ]
        return [SimpleNamespace(fit=one, late=False) for one in fits]

    def shares(datasets: int, seeds: int, streamed: bool, jobs: int) -> list[str]:
        found = rounds.portions(todo(datasets, seeds), streamed, jobs)
        return [" ".join(f"{t.fit.dataset.name}.{t.fit.cell.seed}" for t in group) for group in found]

    assert shares(2, 2, False, 2) == ["d0.0", "d1.0", "d0.1", "d1.1"]
    assert shares(2, 2, True, 2) == ["d0.0 d0.1", "d1.0 d1.1"]
    assert shares(2, 3, True, 4) == ["d0.0 d0.1", "d0.2", "d1.0 d1.1", "d1.2"]
    assert shares(1, 3, True, 4) == ["d0.0", "d0.1", "d0.2"]


def test_no_dense_rows_of_test_images_are_stored(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []
    original = encode.encode

    def counted(tower: Any, dataset: Any, requests: Any, *rest: Any, **more: Any) -> Any:
        asked.extend((tap, len(r.paths)) for r in requests for taps in r.views.values() for tap in taps)
        return original(tower, dataset, requests, *rest, **more)

    monkeypatch.setattr("bench.run.session.encode", counted)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "c"))
    assert bench("run", *METHODS, "--results", tmp_path / "r", "--no-dense-cache").exit_code == 0
    assert (DENSE, 6) in asked, "support and validation images are stored as ever"
    assert (DENSE, 15) not in asked and any(n == 15 for tap, n in asked if tap == "pooled"), asked


def test_a_failing_state_costs_only_itself(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = evaluate.tell

    def broken(planned: Any, *rest: Any) -> Any:
        if planned.cell.method == "safe":
            raise RuntimeError("no logits today")
        return original(planned, *rest)

    monkeypatch.setattr(evaluate, "tell", broken)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "d"))
    done = bench("run", *METHODS, "--results", tmp_path / "r", "--no-dense-cache")
    assert done.exit_code == 1 and "no logits today" in done.output
    assert len(evaluations(tmp_path / "r")) == 2


@pytest.mark.slow
def test_peak_memory_holds_one_batch(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features arrive in batches of the encoder and none is kept: what is alive at once does not grow with
    the test set.
    """
    import gc
    import weakref

    alive: list[int] = []
    original = Session.stream

    def watched(self: Session, *arguments: Any) -> Iterator[Any]:
        kept: list[Any] = []
        for start, features in original(self, *arguments):
            kept.append(weakref.ref(features[DENSE]))
            yield start, features
            del features
            gc.collect()
            alive.append(sum(ref() is not None for ref in kept))

    def small(*arguments: Any, **more: Any) -> Any:
        return original_stream(*arguments, **{**more, "batch": 2})

    from bench.run import session

    original_stream = session.stream
    monkeypatch.setattr(session, "stream", small)
    monkeypatch.setattr(Session, "stream", watched)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "e"))
    assert bench("run", *METHODS, "--results", tmp_path / "r", "--no-dense-cache").exit_code == 0
    assert len(alive) == 8 and max(alive) <= 2, alive
