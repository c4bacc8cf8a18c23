"""Cells of many kinds of methods on a tiny folder, recorded once, and the classifiers made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from bench.records import store
from bench.records.types import EvaluationRecord
from bench.registry import builtin
from tests.classifier.embedded import fitted  # noqa: F401  # a fixture of this folder
from tests.run.conftest import draw_images

COUNTS = {"train": 4, "val": 3, "test": 8}
# How each kind is kept short: gradients, closed forms, learned prompts, states of other methods.
SETTINGS = {
    "zero-shot": (),
    "tip-adapter-f": ("tip-adapter-f.epochs=2",),
    "gda": (),
    "linear-probe": (),
    "safe": ("safe.steps=6", "safe.check_every=2"),
    "safe-a": ("safe.steps=6", "safe.check_every=2"),
    "coop": ("coop.max_steps=4",),
    "cross-modal": ("cross-modal.steps=6", "cross-modal.check_every=2", "cross-modal.warmup=1"),
    "cross-modal-wise": ("cross-modal.steps=6", "cross-modal.check_every=2", "cross-modal.warmup=1"),
    "prolip": (),
}


@dataclass(frozen=True)
class World:
    """A folder of images, and the results and features of cells on it."""

    root: Path
    images: Path
    done: set[str] = field(default_factory=set)

    def call(self, *words: object) -> Result:
        """Run a command in this process."""
        from bench.cli.app import app

        return CliRunner().invoke(app, [*map(str, words)])

    def options(self, method: str) -> list[str]:
        """The options that name a method's cell, the same in ``run`` and in ``keep``."""
        sets = [word for item in SETTINGS[method] for word in ("--set", item)]
        places = ["--results", str(self.root / "results"), "--cache", str(self.root / "features")]
        prompts = ["--prompts", "hand"] if builtin().get(method).uses_prompts else []
        return [*sets, *places, "--backbone", "pocket-rn", "--shots", "2", *prompts]

    def run(self, method: str) -> None:
        """Record a method's cell of 2 shots and seed 1, if it is not recorded yet."""
        if method not in self.done:
            words = ["--datasets", str(self.images), "--seeds", "1", "--jobs", "1", *self.options(method)]
            done = self.call("run", "--methods", method, *words)
            assert done.exit_code == 0, done.output
            self.done.add(method)

    def keep(self, method: str, out: Path, *more: object) -> Result:
        """Keep the cell as a classifier."""
        words = ["--dataset", self.images, "--out", out, *self.options(method), *more]
        return self.call("keep", "--method", method, *words)

    def recorded(self, method: str) -> tuple[list[str], NDArray[np.integer], tuple[str, ...]]:
        """The paths of the test images, their recorded predictions, and the class names."""
        from bench.data import catalog

        self.run(method)
        dataset = catalog.find(str(self.images), None)
        (path,) = (
            path
            for path, r in store.every(self.root / "results")
            if isinstance(r, EvaluationRecord) and r.cell.method == method
        )
        with np.load(path.with_suffix(".npz")) as arrays:
            predicted = arrays["top1"]
        return [str(self.images / p) for p in dataset.test.paths], predicted, dataset.classnames


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The images; nothing is recorded yet."""
    root = tmp_path_factory.mktemp("classifier")
    return World(root, draw_images(root / "shapes", COUNTS))


@pytest.fixture(scope="session")
def kept(world: World) -> Callable[[str], Path]:
    """The classifier of a method's cell, recorded and kept at the first call."""
    known: dict[str, Path] = {}

    def of(method: str) -> Path:
        if method not in known:
            world.run(method)
            out = world.root / f"{method}.clf"
            done = world.keep(method, out)
            assert done.exit_code == 0, done.output
            known[method] = out
        return known[method]

    return of
