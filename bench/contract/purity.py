"""The check that every function of a method is pure: equal calls give the same result and change nothing.

The contents of the arguments are compared before and after a call, so that every write counts, however it is
made. The state of the process (generators, modes) counts too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, is_dataclass
from typing import Any

import torch
from torch import Tensor

from bench import process
from bench.contract.lab import Measured
from bench.contract.snapshot import differs, snapshot
from bench.interface import LR, Batch, Consts, Params, Task, Values, fit_values, points
from bench.run.task import pools
from bench.train import loop, rng


def purity(m: Measured) -> str:
    """Return what is impure about the first impure function of a method, or an empty string."""
    return next(filter(None, _problems(m)), "")


def _problems(m: Measured) -> Iterator[str]:
    method, recipe, task = m.method, m.fit.recipe, m.task()
    settings = deepcopy(dict(m.fit.settings))
    yield _problem("recipe", lambda: method.recipe(settings, m.fit.facts), {"settings": settings})
    yield _problem("learned_text", lambda: method.learned_text(settings, m.fit.facts), {"settings": settings})
    known = [task.features(tap, view) for tap, views in recipe.support.items() for view in views]
    early = fit_values(method, task.settings).with_({**points(recipe.grid)[0], **points(recipe.static)[0]})
    given: dict[str, Any] = {
        "task": {name: getattr(task, name) for name in ("W_KC", "labels_N", "text", "settings", "states")},
        "support features": known,
        "backbone": [task.backbone.model, task.head.params if task.backbone.family != "other" else {}],
        "values": early,
    }
    yield _problem("prepare", lambda: method.prepare(task), given)
    consts = method.prepare(task)
    given["constants"] = consts
    if recipe.optim is None:
        yield _problem("solve", lambda: method.solve(task, consts, early), given)
    else:
        yield from _trained(m, task, consts, given)
    test, late = m.test(), m.values()
    given |= {"features": test, "params": m.state.params, "values": late}
    grid = points({name: (values[0], values[-1]) for name, values in recipe.search.items()})
    with torch.no_grad():
        yield _problem("logits", lambda: method.logits(m.state.params, consts, test, late), given)
        yield _problem(
            "sweep",
            lambda: list(method.sweep(m.state.params, consts, test, late, grid)),
            {**given, "grid": grid},
        )


def _trained(m: Measured, task: Task, consts: Consts, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems of the functions that only a trained method has."""
    method, (values, (params,)) = m.method, starts(m, task, consts, 1)
    early = fit_values(method, task.settings).with_(values[0])
    given = {**given, "values": early}
    yield _problem("init", lambda: method.init(task, consts, early, rng.generator(0, "init")), given)
    rows = first_batch(m, task, consts).rows
    given |= {"params": params, "batch": {name: [r.x, r.y, r.index] for name, r in rows.items()}}

    def drawn() -> Batch:
        return Batch(rows, 0, rng.generator(1, "noise", 0))

    yield _problem("losses", lambda: method.losses(params, consts, drawn(), early), given)
    leaves = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
    grads = {
        name: dict(zip(leaves, _gradients(loss, leaves), strict=True))
        for name, loss in method.losses(leaves, consts, drawn(), early).items()
    }
    yield _problem("combine", lambda: method.combine(grads, early), {"grads": grads, "values": early})


def _gradients(loss: Tensor, leaves: Params) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, list(leaves.values()), retain_graph=True, materialize_grads=True)


def _problem(function: str, call: Callable[[], Any], given: Mapping[str, Any]) -> str:
    """Return what two equal calls show that a pure function would not, and put the process back."""
    before, held = snapshot(given), process.held()
    made = _result(call())
    if name := differs(before, snapshot(given)):
        process.put_back(held)
        return f"{function} changed its argument: {name}"
    again = _result(call())
    changed = process.put_back(held)
    if name := differs(made, again):
        return f"{function} returns another {name} the second time"
    return f"{function} changed {' and '.join(changed)}" if changed else ""


def _result(made: Any) -> dict[str, Any]:
    if is_dataclass(made) and not isinstance(made, type):
        made = asdict(made)
    return snapshot(made if isinstance(made, Mapping) else {"result": made})


def starts(m: Measured, task: Task, consts: Consts, R: int) -> tuple[list[Values], list[Params]]:
    """Return the grid points and the initial tensors of R different replicas.

    If the grid has fewer than R points, the replicas differ in the learning rate and the random start.
    """
    recipe = m.fit.recipe
    static = points(recipe.static)[0]
    grid = (points(recipe.grid) * R)[:R]
    values: list[Values] = [{**v, **static} for v in grid]
    if len(points(recipe.grid)) < R and LR in recipe.grid:
        values = [{**v, LR: v[LR] / (r + 1)} for r, v in enumerate(values)]
    known = fit_values(m.method, task.settings)
    made = [
        m.method.init(task, consts, known.with_(v), rng.generator(r, "init")) for r, v in enumerate(values)
    ]
    return values, made


def first_batch(m: Measured, task: Task, consts: Consts) -> Batch:
    """Return the first batch of a fit."""
    recipe = m.fit.recipe
    rows = pools(m.lab.session, m.fit, task, recipe, consts)
    _, sequence = loop.orders(recipe.streams, rows, 1, 1)
    drawn = {
        name: loop.gather(rows[name], positions, task.W_KC.device, task.W_KC.dtype)
        for name, positions in next(iter(sequence)).items()
    }
    return Batch(drawn, 0, rng.generator(1, "noise", 0))
