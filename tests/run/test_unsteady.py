"""The script that measures what rounding moves chooses what a run chooses, and its rules do what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.contract.lab import cut
from bench.interface import DENSE, EVAL, LR, Recipe, points
from bench.plan import planner
from bench.plan.cells import Planned
from bench.plan.request import Request
from bench.registry import Registry, builtin
from bench.run import fit as fitting
from tests.benchmarks import unsteady
from tests.run.conftest import draw_images


def planned(root: Path) -> tuple[planner.Plan, Planned]:
    """A plan of one cell of SAFE-A whose SAFE takes a few steps."""
    registry = Registry()
    registry.methods = {name: cut(builtin().get(name)) for name in ("safe", "safe-a")}
    draw_images(root / "tiny", {"train": 2, "val": 2, "test": 2})
    request = Request(
        ("safe-a",), (str(root / "tiny"),), (2,), (1,), ("pocket-rn",), results=root / "results"
    )
    plan = planner.make(request, registry)
    return plan, next(fit for fit in plan.fits if fit.asked)


def test_draw_0_chooses_what_a_run_chooses(cache: Path, tmp_path: Path) -> None:
    plan, fit = planned(tmp_path)
    session = unsteady.Noisy("cpu", cache, lambda line: None, workers=0)
    unsteady.ready(session, plan)
    below = fit.after["safe"]
    with session.threads(fit.backbone):
        cell = unsteady.measure(session, fit, 1)
        session.draw = 0
        mine = unsteady.train(session, below).state(unsteady.BY_ACCURACY)
        safe, _, _ = fitting.run_fit(session, below, {})
        state = {"safe": fitting.state_of(below, safe.params, safe.values)}
        ours, _, _ = fitting.run_fit(session, fit, state)
    assert all(torch.equal(p, mine[name]) for name, p in safe.params.items())
    found = cell.searched[unsteady.BY_ACCURACY][0]
    first = points(fit.recipe.search)[found.chosen[unsteady.RULES[0]]]
    assert first == {name: ours.values[name] for name in first}
    assert found.right.max() / found.images == ours.val_accuracy
    assert all(cell.trained[1].apart(cell.trained[0], v[LR]) > 0.0 for v in cell.trained[0].values)


def test_noise_has_the_size_of_rounding_and_is_that_of_its_draw(cache: Path, tmp_path: Path) -> None:
    plan, fit = planned(tmp_path)
    session = unsteady.Noisy("cpu", cache, lambda line: None, workers=0)
    unsteady.ready(session, plan)

    def features(draw: int) -> torch.Tensor:
        session.draw = draw
        return session.features(fit.backbone, fit.dataset, fit.dataset.test.paths, EVAL, DENSE)

    plain, first = features(0), features(1)
    moved = (first / plain - 1)[plain != 0]
    assert moved.std() == pytest.approx(unsteady.SIZE, rel=0.1)
    assert torch.equal(features(1), first) and not torch.equal(features(2), first)


def test_search_points_are_chosen_by_their_rules() -> None:
    search = {"alpha": (0.0, 1.0, 2.0), "gamma": (1.0, 4.0)}
    recipe = Recipe(search=search, fixed={"alpha": 1.0, "gamma": 1.0})

    def chosen(*right: int) -> tuple[int, ...]:
        at = unsteady.picks(np.array(right), recipe)
        return tuple(at[rule] for rule in unsteady.RULES)

    # Points in order: alpha 0, 0, 1, 1, 2, 2 with gamma 1, 4, 1, 4, 1, 4.
    assert chosen(5, 3, 3, 5, 5, 3) == (0, 4, 4, 2)
    assert chosen(5, 5, 4, 3, 3, 3) == (0, 0, 2, 2)
    assert chosen(3, 3, 3, 3, 3, 7) == (5, 5, 5, 2)


def test_checkpoints_are_chosen_by_their_rules() -> None:
    values = [{LR: 0.1}, {LR: 0.01}]
    trained = unsteady.Trained(values, {}, [])
    for accuracy, loss in (((0.5, 0.4), (3.0, 2.0)), ((0.6, 0.6), (4.0, 2.5)), ((0.4, 0.6), (5.0, 2.2))):
        trained.accuracy.append(torch.tensor(accuracy, dtype=torch.float64))
        trained.gain.append(-torch.tensor(loss, dtype=torch.float64))
    chosen = {how: trained.chosen(how) for how in unsteady.CHOICES}
    assert chosen == {
        unsteady.BY_ACCURACY: (0, 1),
        unsteady.TIES_BY_LOSS: (1, 2),
        unsteady.BY_LOSS: (1, 0),
        unsteady.LOW_RATE: (1, 1),
    }
    assert trained.ties() == 3
