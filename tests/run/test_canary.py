"""Leak canaries: no method sees test labels, no prediction depends on other test images (protocol 21.13).

With every test label permuted all predictions stay the same; with the test set shuffled, and fed one image at
a time, too. The positive control: a fit under ``test-oracle``, which selects on the test images, does change.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.data import catalog
from bench.data.dataset import Dataset, Items
from bench.executors import serial
from bench.plan import planner
from bench.plan.request import Request
from bench.plan.todo import remaining
from bench.records import places, store
from bench.records.types import FitRecord
from bench.registry import builtin
from bench.run.desk import Desk
from bench.run.session import Session

METHODS = ("zero-shot", "tip-adapter", "tip-adapter-f", "safe", "safe-a")
FAST = {
    "safe": {"steps": 6, "check_every": 2},
    "tip-adapter": {"beta_steps": 8, "alpha_steps": 4},
    "tip-adapter-f": {"epochs": 2, "beta_steps": 8, "alpha_steps": 4},
    "safe-a": {"gamma_steps": 8, "alpha_steps": 4},
}


def measure(
    dataset: Dataset, results: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, protocol: str = "recipe"
) -> dict[str, np.ndarray]:
    """Top-1 predictions by method, after fits on ``dataset``."""
    monkeypatch.setattr(catalog, "find", lambda *_, **__: dataset)
    grid = (METHODS, (dataset.name,), (2,), (1,), ("pocket-rn",), ("hand",))
    request = Request(*grid, protocol=protocol, overrides=FAST, results=results)
    planned = planner.make(request, builtin())
    todo, _ = remaining(planned)
    outcome = serial.run(
        Desk(Session("cpu", cache, print, 0), builtin(), results), planned, todo, lambda *_: None
    )
    assert not outcome.failures, outcome.failures
    return {
        fit.cell.method: store.predictions(places.evaluation_path(fit.where, fit.key, e.key))["top1"]
        for fit in planned.fits
        for e in fit.evaluations
    }


def temperatures(results: Path) -> dict[str, float | None]:
    """Temperatures by method."""
    fits = (record for _, record in store.every(results) if isinstance(record, FitRecord))
    return {record.cell.method: record.temperature for record in fits}


@pytest.fixture(scope="module")
def shapes(images: Path) -> Dataset:
    return catalog.find(str(images), None)


@pytest.fixture
def plain(
    shapes: Dataset, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, np.ndarray]:
    return measure(shapes, tmp_path / "plain", cache, monkeypatch)


def relabelled(dataset: Dataset) -> Dataset:
    """The same images with every test label moved to the next class; the digest is kept, so fits look the
    same.
    """
    K = len(dataset.classnames)
    return replace(dataset, test=Items(dataset.test.paths, tuple((y + 1) % K for y in dataset.test.labels)))


def test_permuted_test_labels_change_nothing(
    plain: dict[str, np.ndarray],
    shapes: Dataset,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    permuted = measure(relabelled(shapes), tmp_path / "permuted", cache, monkeypatch)
    assert set(permuted) == set(METHODS)
    before, after = temperatures(tmp_path / "plain"), temperatures(tmp_path / "permuted")
    assert before == after and before["zero-shot"] == 1.0
    for method, top1 in plain.items():
        np.testing.assert_array_equal(permuted[method], top1, err_msg=method)


def test_wrong_validation_labels_do_change_temperatures(
    plain: dict[str, np.ndarray],
    shapes: Dataset,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The positive control of the temperatures."""
    labels = tuple((y + 1) % len(shapes.classnames) for y in shapes.val.labels)
    wrong = replace(shapes, val=Items(shapes.val.paths, labels))
    measure(wrong, tmp_path / "wrong", cache, monkeypatch)
    before, after = temperatures(tmp_path / "plain"), temperatures(tmp_path / "wrong")
    assert {method for method in METHODS if before[method] != after[method]} == {*METHODS} - {"zero-shot"}


def test_shuffled_and_single_test_images_change_nothing(
    plain: dict[str, np.ndarray],
    shapes: Dataset,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order = np.random.default_rng(3).permutation(len(shapes.test))
    monkeypatch.setattr("bench.run.evaluate.ROWS", 1)
    shuffled = measure(
        replace(shapes, test=shapes.test.take(order)), tmp_path / "shuffled", cache, monkeypatch
    )
    for method, top1 in plain.items():
        np.testing.assert_array_equal(shuffled[method], top1[order], err_msg=method)


def test_the_oracle_does_change(
    shapes: Dataset, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = measure(shapes, tmp_path / "true", cache, monkeypatch, protocol="test-oracle")
    permuted = measure(relabelled(shapes), tmp_path / "permuted", cache, monkeypatch, protocol="test-oracle")
    changed = [method for method in METHODS if not np.array_equal(true[method], permuted[method])]
    assert "zero-shot" not in changed
    assert set(temperatures(tmp_path / "true").values()) == {1.0}, "no temperature comes from test images"
    assert changed, "no method noticed that its selection labels were wrong: the canary cannot fail"
