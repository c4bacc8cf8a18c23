"""The rules that every method must keep.

Each rule is one function. It gets a method that was measured in the lab, and it returns what is wrong or an
empty string. docs/adding-a-method.md explains the rules to authors of methods.

Legend: B images, K classes, R replicas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.contract.lab import (
    PAIR,
    Failed,
    Lab,
    Measured,
    in_pieces,
    measure,
    open_lab,
    shortened,
    swept,
)
from bench.contract.purity import first_batch, purity, starts
from bench.contract.snapshot import differs
from bench.errors import BenchError, said
from bench.interface import Lines, Method, Params, Values, points
from bench.names import PROTOCOLS
from bench.plan.needs import calibrates
from bench.plan.protocols import apply
from bench.plan.todo import recorded
from bench.registry import Registry, with_plugins
from bench.run import fit as fitting
from bench.run.task import pools
from bench.train import loop, rng
from bench.train.keep import Trained

CLOSE = 1e-3  # of the largest magnitude: products of other shapes round otherwise in single precision


@dataclass(frozen=True)
class Finding:
    """The finding of one rule on one tower; ``problem`` is empty if the method keeps the rule."""

    rule: str
    tower: str
    problem: str = ""


def problems(target: str | Path) -> list[str]:
    """Check a named method, or all methods of a Python file, and return what is wrong.

    The test of a method asserts that the list is empty.
    """
    registry, methods = find(str(target))
    with open_lab() as lab:
        findings = [f for method in methods for f in check(method, registry, lab)]
    return [f"{f.rule} ({f.tower}): {f.problem}" for f in findings if f.problem]


def find(target: str) -> tuple[Registry, list[Method]]:
    """Return a registry and the methods in it that ``target`` means: a method's name, or a Python file.

    Raises BenchError for an unknown name, or a file that is missing or does not load.
    """
    path = Path(target)
    if path.suffix != ".py":
        registry = with_plugins()
        return registry, [registry.get(target)]
    if not path.is_file():
        raise BenchError(f"{path}: no such file; name a Python file with methods, or a method by its name")
    registry = with_plugins((path,))
    return registry, [
        method for key, method in registry.methods.items() if registry.sources[key] == str(path)
    ]


def check(method: Method, registry: Registry, lab: Lab) -> Iterator[Finding]:
    """Yield the finding of each rule on each tower that the method works on."""
    towers = [family for family in method.towers if family in lab.towers]
    if not towers:
        yield Finding(
            "runs", "", f"works on none of {', '.join(lab.towers)}: there is nothing to check it on"
        )
    for family in towers:
        yield from _on_tower(method, registry, lab, family)


def _on_tower(method: Method, registry: Registry, lab: Lab, family: str) -> Iterator[Finding]:
    rules: dict[str, Callable[[], str]] = {
        "output shapes": lambda: shapes(measured),
        "pure functions": lambda: purity(measured),
        "images do not see each other": lambda: independence(measured),
        "test labels change nothing": lambda: canary(
            measured, measure(lab, method, registry, family, "relabelled")
        ),
        "logits of validation images": lambda: calibrated(measured),
        "state survives the disk": lambda: saved(measured),
        "replicas together as alone": lambda: replicas(measured),
        "batches in pieces as whole": lambda: pieces(measured),
        "sweep as logits": lambda: sweeps(measured),
        "inference values leave the fit alone": lambda: inference(lab, method, registry, family),
        "other protocols": lambda: protocols(measured),
        "two classes": lambda: shapes(measure(lab, method, registry, family, "pair", PAIR["train"][0])),
        "two images": lambda: shapes(measure(lab, method, registry, family, "pair", 1)),
    }
    lab = lab.fresh()
    try:
        measured = measure(lab, method, registry, family, "uneven")
    except (Failed, BenchError) as error:
        yield Finding("runs", family, str(error))
        return
    yield Finding("runs", family)
    for rule, holds in rules.items():
        try:
            problem = holds()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may fail in any way; it is reported, and the rules go on
            problem = said(error)
        yield Finding(rule, family, problem)


def shapes(m: Measured) -> str:
    """Check that logits are (B, K), finite and floating for one image and for several, and states tensors."""
    K, consts, whole = len(m.fit.dataset.classnames), m.method.prepare(m.task()), m.test()
    for B in (1, len(m.fit.dataset.test)):
        logits = m.logits({tap: x[:B] for tap, x in whole.items()}, consts)
        if tuple(logits.shape) != (B, K):
            return f"logits of {B} images and {K} classes have shape {tuple(logits.shape)}, not {(B, K)}"
        if not logits.is_floating_point() or not bool(logits.isfinite().all()):
            return "logits are not finite floating numbers"
    odd = [name for name, p in m.state.params.items() if not isinstance(p, Tensor)]
    return f"params['{odd[0]}'] is not a tensor" if odd else ""


def independence(m: Measured) -> str:
    """Check that an image's logits depend neither on the other images of a call nor on their order."""
    test, consts = m.test(), m.method.prepare(m.task())
    whole = m.logits(test, consts)
    order = torch.arange(len(whole)).flip(0)
    shuffled = m.logits({tap: x[order] for tap, x in test.items()}, consts)[order]
    single = torch.cat(
        [m.logits({tap: x[i : i + 1] for tap, x in test.items()}, consts) for i in range(len(whole))]
    )
    for logits, how in ((shuffled, "in another order"), (single, "one by one")):
        if off := _far(logits, whole):
            return f"logits of images {how} differ by {off:.1e} of the largest"
    return ""


def canary(m: Measured, relabelled: Measured) -> str:
    """Check that a fit with other labels on the test images predicts the same class for each image."""
    K, each = len(m.fit.dataset.classnames), len(m.top1) // len(m.fit.dataset.classnames)
    moved = np.roll(m.top1.reshape(K, each), 1, axis=0).ravel()
    hits = int((moved == relabelled.top1).sum())
    return (
        ""
        if hits == len(moved)
        else f"{len(moved) - hits} of {len(moved)} predictions changed with the test labels"
    )


def calibrated(m: Measured) -> str:
    """Check that the fit has a temperature, for which ``logits`` is called with validation images."""
    stored = recorded(m.fit)
    if stored is None or stored.temperature is not None or not calibrates(m.fit):
        return ""
    return next((note for note in stored.notes if "temperature" in note), "no temperature was fitted")


def saved(m: Measured) -> str:
    """Check that the state, read back from its file, gives the same logits."""
    stored = recorded(m.fit)
    state = fitting.load_state(m.results, m.fit, stored, "cpu", m.lab.session.report) if stored else None
    if state is None:
        return "no state was kept"
    consts, test = m.method.prepare(m.task()), m.test()
    off = _far(m.logits(test, consts, state), m.logits(test, consts))
    return f"logits differ by {off:.1e} of the largest after reading the state" if off else ""


def replicas(m: Measured) -> str:
    """Check that two replicas trained together have the gradients and the final logits of each alone."""
    recipe = m.fit.recipe
    if recipe.optim is None:
        return ""
    task = m.task()
    consts = m.method.prepare(task)
    values, made = starts(m, task, consts, 2)
    first = [_moved(start, r) for r, start in enumerate(made)]
    rows = pools(m.lab.session, m.fit, task, recipe, consts)

    def train(starts: list[Params], values: list[Values]) -> Trained:
        return loop.train(m.method, recipe, consts, starts, values, task.settings, rows, 1, None)

    alone = [train([start], [value]) for start, value in zip(first, values, strict=True)]
    try:
        both = train(first, values)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        return (
            f"does not map over replicas ({reason}): avoid data-dependent control flow, or set fuse = False"
        )
    batch, axes = first_batch(m, task, consts), loop.axes_of(values, recipe, task.W_KC.device)
    _, together = loop.gradients(m.method, consts, loop.stack(first), batch, task.settings, axes)
    for r, (start, value) in enumerate(zip(first, values, strict=True)):
        axis = loop.axes_of([value], recipe, task.W_KC.device)
        _, single = loop.gradients(
            m.method, consts, loop.stack([start]), first_batch(m, task, consts), task.settings, axis
        )
        whole = max(float(g.abs().max()) for g in single.values())
        for name, g in single.items():
            if float((g[0] - together[name][r]).abs().max()) > CLOSE * whole:
                return f"the gradient of '{name}' differs between a replica in a group and alone"
        features = m.test()
        pair = [
            m.method.logits(loop.replica(t.params, i), consts, features, {**m.values(), **value})
            for t, i in ((both, r), (alone[r], 0))
        ]
        if off := _far(pair[0].detach(), pair[1].detach()):
            return f"logits differ by {off:.1e} of the largest between a replica in a group and alone"
    return ""


def pieces(m: Measured) -> str:
    """Check that, with ``micro``, the first batch in pieces has the loss and gradients of the whole batch.

    Pieces of equal and of unequal sizes are tried. Losses that are not means over rows fail with both.
    """
    recipe, method = m.fit.recipe, m.method
    if recipe.optim is None or method.micro is None:
        return ""
    task = m.task()
    consts = method.prepare(task)
    values, (start,) = starts(m, task, consts, 1)
    params, axes = loop.stack([_moved(start, 0)]), loop.axes_of(values, recipe, task.W_KC.device)

    def at(micro: int | None) -> tuple[Tensor, Params]:
        return loop.gradients(in_pieces(method, micro), consts, params, batch, task.settings, axes)

    batch = first_batch(m, task, consts)
    B = max(len(rows.y) for rows in batch.rows.values())
    loss, whole = at(None)
    most = max(float(g.abs().max()) for g in whole.values())
    for micro in sorted({1, B // 2 + 1, B - 1} - {0}):
        its_loss, parts = at(micro)
        where = f"of {B} rows in pieces of {micro}"
        if off := _far(its_loss, loss):
            return f"the loss {where} differs by {off:.1e}: with micro, losses are means over a batch's rows"
        for name, g in whole.items():
            if not float((g - parts[name]).abs().max()) <= CLOSE * most:
                return f"the gradient of '{name}' {where} differs: with micro, losses are means over its rows"
    return ""


def sweeps(m: Measured) -> str:
    """Check that ``sweep`` covers every search point once, with the logits that ``logits`` gives there."""
    axes = {name: (values[0], values[-1]) for name, values in m.fit.recipe.search.items()}
    grid = points(axes)
    consts, test, values = m.method.prepare(m.task()), m.test(), m.values()
    swept_at: dict[int, Tensor] = {}
    with torch.no_grad():
        for positions, piece in m.method.sweep(m.state.params, consts, test, values, grid):
            logits_GBK = piece.logits() if isinstance(piece, Lines) else piece
            swept_at |= dict(zip(positions, logits_GBK, strict=True))
        if sorted(swept_at) != list(range(len(grid))):
            return f"sweep covers points {sorted(swept_at)} of {len(grid)}"
        for i, point in enumerate(grid):
            wanted = m.method.logits(m.state.params, consts, test, {**values, **point})
            if off := _far(swept_at[i], wanted):
                return f"sweep at {point} differs from logits by {off:.1e} of the largest"
    return ""


def inference(lab: Lab, method: Method, registry: Registry, family: str) -> str:
    """Check that sweeps over the values of ``Method.inference`` in opposite orders leave the same fit."""
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    for name in method.inference:
        default = method.settings[name]
        if default is None:
            low[name], high[name] = 0.5, 1.0
        elif isinstance(default, int | float) and not isinstance(default, bool):
            low[name], high[name] = default, default + 1
    if not low:
        return ""
    # All sweeps use one instance: what a sweep leaves on it (at its last point, high or low) meets the next.
    short = shortened(method, registry)
    fits = [
        swept(lab, short, method.name, family, order) for order in ((low, high), (high, low), (low, high))
    ]
    changed = next((name for other in fits[1:] if (name := differs(fits[0], other))), "")
    return (
        f"the fit ({changed}) changes with the order in which {', '.join(low)} are swept: "
        "what acts at inference only (Method.inference) reaches it, perhaps kept on self by logits or recipe"
        if changed
        else ""
    )


def protocols(m: Measured) -> str:
    """Check that ``fixed`` has a value for each axis, for protocols that may choose nothing."""
    recipe = m.fit.recipe
    missing = [
        axis
        for axes in (recipe.grid, recipe.static, recipe.search)
        for axis in axes
        if axis not in recipe.fixed
    ]
    if missing:
        return f"Recipe.fixed has no value for {', '.join(missing)}"
    for name in PROTOCOLS:
        apply(name, recipe)
    return ""


def _moved(start: Params, r: int) -> Params:
    """Return parameters moved away from their start, where gradients can be zero up to rounding."""
    noise = rng.generator(r, "moved")
    return {
        name: p + 0.1 * max(float(p.abs().max()), 0.1) * torch.randn(p.shape, generator=noise).to(p)
        for name, p in start.items()
    }


def _far(logits: Tensor, wanted: Tensor) -> float:
    """Return the largest difference in units of the largest logit, or 0 if rounding explains it."""
    off = float((logits - wanted).abs().max()) / max(float(wanted.abs().max()), 1e-6)
    return off if not off <= CLOSE else 0.0
