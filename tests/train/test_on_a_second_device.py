"""Every method works from start to end on a device other than the processor, as on a GPU.

The stages are: encode, prepare, start, train, score, search, predict. ``second_device`` says what counts as a
fault there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch

from bench.clip import checkpointing
from bench.contract import lab as labs
from bench.contract.lab import Lab, open_lab
from bench.executors import serial
from bench.interface import POOLED, Facts, Method, Recipe, State, Values
from bench.names import canonical
from bench.plan import planner, settings
from bench.plan.cells import Planned
from bench.plan.request import Request
from bench.plan.todo import recorded, remaining
from bench.records import places, store
from bench.records.types import Budget, FitRecord
from bench.registry import Registry, builtin
from bench.run import evaluate
from bench.run import fit as fitting
from bench.run import task as tasks
from bench.run.desk import Desk
from bench.train import graphs, keep, loop
from tests.train.engine_cases import OVERRIDES, on
from tests.train.second_device import NAME, WAITS, Fault, SecondDevice, Waits, no_inference_mode
from tests.train.test_join import cases, together

STEPS = 3  # one launched, then a recording that is replayed twice
CLOSE = 1e-3  # of the largest logit: on the processor optimisers have kernels of their own


@pytest.fixture(scope="module")
def device() -> SecondDevice:
    return SecondDevice()


@pytest.fixture
def there(device: SecondDevice, monkeypatch: pytest.MonkeyPatch) -> SecondDevice:
    """The device, asked for recordings as a GPU is, also of short runs."""
    monkeypatch.setattr(graphs, "capturer", lambda at: device if at.type == NAME else None)
    monkeypatch.setattr(graphs, "WORTH", 1)
    monkeypatch.setattr(graphs, "WARM", 1)
    monkeypatch.setattr(torch, "inference_mode", no_inference_mode)
    device.faults.clear()
    return device


@dataclass(frozen=True)
class Worlds:
    """One lab on the processor and its images, files and towers on the second device."""

    here: Lab
    there: Lab


@pytest.fixture(scope="module")
def worlds() -> Iterator[Worlds]:
    with open_lab() as here:
        session = labs._Session({})
        session.device = NAME
        yield Worlds(here, replace(here, session=session))


def towers(method: Method) -> list[str]:
    """Both, where a method has work of its own in them; one tower's embedding stands for the other's."""
    both = [family for family in method.towers if family in labs._VISION]
    return both if tuple(method.taps) != (POOLED,) and not method.after else both[:1]


def trains(method: Method) -> bool:
    """Whether its recipe has an optimiser."""
    facts = Facts(2, 3, 5, 3, "default", towers(method)[0], "quick")
    return method.recipe(settings.resolve(method, "quick", "default", {}), facts).optim is not None


KNOWN = builtin()
EVERY = [(name, family) for name in KNOWN.names() for family in towers(KNOWN.get(name))]
JOINING = [(name, family) for name, family in EVERY if KNOWN.get(name).fuse and trains(KNOWN.get(name))]


def cut(method: Method) -> Method:
    """The same method with a few steps, each of them checked, and a few search points."""

    def recipe(self: Method, settings: Values, facts: Facts) -> Recipe:
        whole = method.recipe(settings, facts)
        whole = replace(whole, search={axis: tuple(values[:3]) for axis, values in whole.search.items()})
        return replace(whole, steps=STEPS, epochs=None, check_every=1) if whole.optim else whole

    return type(
        type(method).__name__, (type(method),), {"recipe": recipe, "__module__": type(method).__module__}
    )()


@dataclass(frozen=True)
class Ran:
    """A method's fits by seed, their records, states and predictions."""

    lab: Lab
    fits: dict[int, Planned]
    records: dict[int, FitRecord]
    states: dict[int, State]
    after: dict[str, State]
    top1: dict[int, np.ndarray]


def run(lab: Lab, name: str, family: str, seeds: tuple[int, ...] = (1,), join: bool = False) -> Ran:
    """Plan and run a method, cut to a few steps, and the methods whose states it reads."""
    short = Registry()
    for known in labs._chain(KNOWN.get(name), KNOWN):
        short.methods[canonical(known)] = cut(KNOWN.get(known))
    results = Path(mkdtemp(dir=lab.root))
    request = Request(
        (name,),
        (str(lab.folders["uneven"]),),
        (2,),
        seeds,
        (lab.towers[family],),
        preset="quick",
        prompt_dir=lab.root / "prompts",
        results=results,
    )
    made = planner.make(request, short)
    desk = Desk(lab.session, short, results, keep_states="all", join=join)
    outcome = serial.run(desk, made, remaining(made)[0], lambda *_: None)
    assert outcome.failures == []
    fits = {f.cell.seed: f for f in made.fits if f.asked}
    records = {seed: recorded(f) for seed, f in fits.items()}
    states = {f.key: state(results, f) for f in made.fits}
    first = next(iter(fits.values()))
    after = {role: states[f.key] for role, f in first.after.items()}
    tops = {
        seed: store.predictions(places.evaluation_path(f.where, f.key, f.evaluations[0].key))["top1"]
        for seed, f in fits.items()
    }
    return Ran(lab, fits, records, {seed: states[f.key] for seed, f in fits.items()}, after, tops)


def state(results: Path, fit: Planned) -> State:
    """A fit's state as it was kept on disk."""
    stored = recorded(fit)
    assert stored is not None
    fitted = fitting.load_state(results, fit, stored, "cpu", print)
    assert fitted is not None
    return fitted


def assert_same(here: Ran, there: Ran) -> None:
    """The same choices and predictions, and states whose logits agree but for rounding."""
    for seed, fit in here.fits.items():
        one, other = here.records[seed], there.records[seed]
        assert (one.values, one.step) == (other.values, other.step)
        assert one.val_accuracy == other.val_accuracy and np.array_equal(here.top1[seed], there.top1[seed])
        session = here.lab.session
        consts = fit.method.prepare(tasks.make(session, fit, here.after))
        images = {
            tap: session.features(fit.backbone, fit.dataset, fit.dataset.test.paths, "eval", tap)
            for tap in fit.method.taps
        }
        with torch.no_grad():
            wanted, ours = (
                fit.method.logits(
                    s.params, consts, images, evaluate.values_of(fit, fit.evaluations[0], s.values)
                )
                for s in (here.states[seed], there.states[seed])
            )
        torch.testing.assert_close(ours, wanted, rtol=0.0, atol=CLOSE * float(wanted.abs().max()))


def assert_recorded(budget: Budget) -> None:
    """Steps were recorded, but for those of methods that say of themselves that they cannot be."""
    if budget.graphs:
        assert budget.eager == []
        return
    (why,) = budget.eager
    assert why.startswith("the losses read batch."), why


@pytest.mark.parametrize(("name", "family"), EVERY)
def test_a_method_runs_there_as_here(name: str, family: str, worlds: Worlds, there: SecondDevice) -> None:
    """Steps launched one by one may wait and copy, as may all that is not a step; nothing may mix the two."""
    here = run(worlds.here, name, family)
    with there:
        away = run(worlds.there, name, family)
    assert there.faults == []
    assert_same(here, away)
    for seed, fit in here.fits.items():
        if fit.recipe.optim is not None:
            assert_recorded(away.records[seed].budget)


@pytest.mark.parametrize(("name", "family"), JOINING)
def test_seeds_that_join_there_end_as_alone_here(
    name: str, family: str, worlds: Worlds, there: SecondDevice
) -> None:
    here = run(worlds.here, name, family, seeds=(1, 2))
    with there:
        away = run(worlds.there, name, family, seeds=(1, 2), join=True)
    assert there.faults == []
    for record in away.records.values():
        assert record.budget.joined == [f.key for f in away.fits.values()], record.budget
        assert_recorded(record.budget)
    assert_same(here, away)


def test_prompts_in_pieces_are_recorded_too(
    worlds: Worlds, there: SecondDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backward pass runs the pieces again, inside the recording."""
    here = run(worlds.here, "coop", "rn", seeds=(1, 2))
    monkeypatch.setattr(checkpointing, "budget", lambda device: 0)
    with there:
        away = run(worlds.there, "coop", "rn", seeds=(1, 2), join=True)
    assert there.faults == []
    assert all(record.budget.eager == [] for record in away.records.values())
    assert_same(here, away)


@pytest.mark.parametrize("name", sorted(OVERRIDES))
def test_whole_fits_are_the_same_there_to_the_last_choice(name: str, there: SecondDevice) -> None:
    """In double precision, over grids and batches of two sizes: alone, and two seeds that join."""
    group = cases(name, n=2)
    alone = [c.fit() for c in group]
    with there:
        away = [on(c, NAME) for c in group]
        away = [replace(c, task=replace(c.task, backbone=away[0].task.backbone)) for c in away]
        away = [replace(c, consts=c.method.prepare(c.task)) for c in away]
        fits = [away[0].fit(), *together(away)]
        moved = [{key: p.cpu() for key, p in f.params.items()} for f in fits]
    assert there.faults == []
    for fitted, params, wanted in zip(fits, moved, [alone[0], *alone], strict=True):
        assert fitted.budget["eager"] == [] and fitted.budget["graphs"] >= 1
        assert (fitted.values, fitted.step, fitted.curve) == (wanted.values, wanted.step, wanted.curve)
        for key, p in wanted.params.items():
            torch.testing.assert_close(params[key], p, rtol=1e-9, atol=1e-12)


def test_a_check_waits_for_the_device_once(there: SecondDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """From one check to the next, whatever brings numbers back or waits for them is the reading of scores."""
    met, judge, read = list[str](), SecondDevice._judge, keep.read

    def judged(self: SecondDevice, name: str, args: Any, to: Any, *more: Any) -> None:
        back = name == "_to_copy" and to is not None and torch.device(to).type != NAME
        if back or name in WAITS or (name == "copy_" and args[0].device.type != NAME):
            met.append(name)
        judge(self, name, args, to, *more)

    def checked(found: Any) -> Any:
        met.append("check")
        return read(found)

    monkeypatch.setattr(SecondDevice, "_judge", judged)
    monkeypatch.setattr(loop, "read", checked)
    with there:
        away = [on(c, NAME) for c in cases("safe", n=2)]
        away = [replace(c, task=replace(c.task, backbone=away[0].task.backbone)) for c in away]
        fitted = together([replace(c, consts=c.method.prepare(c.task)) for c in away])
    first, last = met.index("check"), len(met) - met[::-1].index("check")
    checks = len(fitted[0].curve[0]["checks"])
    assert met[first : last + 1] == ["check", "_to_copy"] * checks and checks > 3


ONE, BACK = torch.ones(3), torch.tensor([2, 0])
HARM: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "mixes": (lambda x: x + ONE, "add mixes devices"),
    "is indexed from here": (lambda x: x[BACK], "index mixes devices"),
    "writes here": (lambda x: torch.zeros(()).add_(x.sum()), "add_ mixes devices"),
    "is not repeatable": (lambda x: x.cumsum(0), "cumsum has no repeatable"),
    "scatters unrepeatably": (
        lambda x: x.scatter_reduce(0, x.argsort(), x, "mean"),
        "scatter_reduce has no repeatable",
    ),
}
SLOW: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "reads": (lambda x: float(x.sum()), "_local_scalar_dense waits"),
    "branches": (lambda x: x if x.sum() > 0 else -x, "_local_scalar_dense waits"),
    "lists": (lambda x: x.tolist(), "_to_copy copies"),
    "brings": (lambda x: x + ONE.to(x.device), "_to_copy copies"),
    "fills": (lambda x: x.copy_(ONE), "copy_ copies"),
    "makes of numbers": (lambda x: x + torch.tensor([1.0, 2.0, 3.0], device=x.device), "_to_copy copies"),
    "indexes by a list": (lambda x: x[[0, 2]], "_to_copy copies"),
    "finds": (lambda x: x.nonzero(), "nonzero waits"),
    "masks": (lambda x: x[x > 1], "index waits"),
}


@pytest.mark.parametrize("kind", HARM)
def test_harm_is_noticed(kind: str, there: SecondDevice) -> None:
    do, says = HARM[kind]
    with there:
        x = torch.arange(3.0).to(NAME)
        with pytest.raises(Fault, match=says):
            do(x)
    assert len(there.faults) == 1


@pytest.mark.parametrize("kind", SLOW)
def test_what_waits_or_copies_is_allowed_until_it_is_recorded(kind: str, there: SecondDevice) -> None:
    do, says = SLOW[kind]
    with there:
        x = torch.tensor([0.0, 1.0, 2.0], device=NAME)
        there.warm(lambda: do(x))
        with pytest.raises(Waits, match=says):
            there.capture(lambda: do(x))
        assert do(x) is not None and there.faults == []


def test_a_replay_works_on_the_recorded_tensors_and_freezes_numbers_of_the_host(there: SecondDevice) -> None:
    step = 1
    with there:
        x, total = torch.arange(3.0).to(NAME), torch.zeros(3).to(NAME)
        made = there.capture(lambda: total.add_(step * x.exp()).sum())
        assert total.tolist() == [0.0, 0.0, 0.0], "recording computes nothing"
        step = 5
        made.replay()
        x.fill_(0.0)
        made.replay()
        torch.testing.assert_close(total.cpu(), torch.arange(3.0).exp() + 1.0)
        assert made.loss_R.item() == total.sum().item()
