"""One fit: task, constants, training, selection, state; and the state's way to disk and back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load, save

from bench.files import write_bytes
from bench.interface import EVAL, Consts, Params, State, Task
from bench.prompts import same
from bench.run import needs, record
from bench.run.plan import Planned
from bench.run.session import Session, pools
from bench.train import select, waves
from bench.train.select import Fitted, Labelled

ORACLE = "test-oracle"


def selection_set(session: Session, fit: Planned) -> Labelled | None:
    """The images that selection scores: few-shot validation, or under ``test-oracle`` the test images; None if unused."""
    if not needs.scores_validation(fit):
        return None
    items = fit.dataset.test if fit.cell.protocol == ORACLE else fit.draw.val
    features = {tap: session.features(fit.backbone, fit.dataset, items.paths, EVAL, tap) for tap in fit.method.taps}
    return Labelled(features, session.labels(items))


def prepared(session: Session, fit: Planned, states: dict[str, State]) -> tuple[select.Case, float]:
    """What a planned cell is fitted from, and the seconds that it took to bring together."""
    began = time.perf_counter()
    task = session.task(fit, states)
    consts = fit.method.prepare(task)
    val = selection_set(session, fit)
    case = select.Case(task, consts, pools(session, fit, task, fit.recipe, consts), val)
    return case, time.perf_counter() - began


def run_fit(session: Session, fit: Planned, states: dict[str, State]) -> tuple[Fitted, Task, Consts, dict[str, float]]:
    """Fit one planned cell; returns the outcome, the task with its constants, and seconds per phase."""
    case, before = prepared(session, fit, states)
    began = time.perf_counter()
    fitted = select.fit(fit.method, fit.recipe, case.task, case.consts, case.pools, case.val)
    return fitted, case.task, case.consts, {"prepare": before, "fit": time.perf_counter() - began}


def run_joined(
    session: Session, fits: Sequence[Planned], states: Sequence[dict[str, State]]
) -> list[tuple[Planned, tuple[Fitted, Task, Consts, dict[str, float]]]]:
    """Fit cells of one recipe together, the first ones whose features fit in memory side by side.

    Each gets an equal share of the seconds; ``budget.joined`` names them all. Raises ``join.Apart`` where they cannot train
    together and MemoryError where only one fits, besides what ``run_fit`` raises.
    """
    cases: list[tuple[select.Case, float]] = []
    most = len(fits)
    for fit, known in zip(fits, states, strict=True):
        if len(cases) < most:
            cases.append(prepared(session, fit, known))
            free = waves.free_bytes(torch.device(session.device))
            if len(cases) == 1 and free is not None:
                most = min(most, 1 + int(waves.SHARE * free) // max(1, held(cases[0][0])))
    if len(cases) == 1:
        raise MemoryError("memory holds the features of one at a time")
    began = time.perf_counter()
    found = select.fit_joined(fits[0].method, fits[0].recipe, [case for case, _ in cases])
    share = (time.perf_counter() - began) / len(cases)
    names = [fit.key for fit in fits[: len(cases)]]
    done = []
    for fit, (case, before), fitted in zip(fits, cases, found, strict=False):
        fitted.budget["joined"] = names
        done.append((fit, (fitted, case.task, case.consts, {"prepare": before, "fit": share})))
    return done


def held(case: select.Case) -> int:
    """Bytes of the features and constants that a case keeps while it trains."""
    pooled = [t for pool in case.pools.values() for t in (pool.x, pool.y)]
    scored = case.val.features.values() if case.val else ()
    kept = [c for c in case.consts.values() if isinstance(c, torch.Tensor)]
    return sum(t.numel() * t.element_size() for t in (*pooled, *scored, *kept))


def fit_record(fit: Planned, fitted: Fitted, seconds: Mapping[str, float], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a fit that succeeded."""
    from dataclasses import asdict

    return {
        "kind": "fit",
        "status": "ok",
        "key": fit.key,
        "cell": asdict(fit.cell),
        "title": fit.method.title,
        "changed": dict(fit.changed),
        "parts": fit.parts,
        "values": fitted.values,
        "step": fitted.step,
        "val_accuracy": fitted.val_accuracy,
        "curve": fitted.curve,
        "budget": fitted.budget,
        "seconds": dict(seconds),
        "peak_memory": _peak(),
        "notes": [note for note in (*fit.dataset.notes, fit.draw.note, fit.method.note) if note],
        "prompts_use_labels": fit.prompts.uses_labels,
        "prompts_also": list(same(fit.prompts.name, fit.dataset.spec)),
        "has_state": bool(fitted.params),
        "provenance": dict(provenance),
    }


def _peak() -> int:
    """Largest resident memory of this process so far, bytes; on CUDA the allocator's peak."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource
    import sys

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def save_state(results: Any, fit: Planned, fitted: Fitted) -> None:
    """Write the fitted tensors (safetensors)."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in fitted.params.items()}
    write_bytes(record.state_path(results, fit.key), save(tensors))


def load_state(results: Any, fit: Planned, stored: Mapping[str, Any], device: str) -> State | None:
    """The state of a recorded fit, or None if its tensors were not kept."""
    if not stored["has_state"]:
        return state_of(fit, {}, stored["values"])
    path = record.state_path(results, fit.key)
    if not path.is_file():
        return None
    return state_of(fit, {name: p.to(device) for name, p in load(path.read_bytes()).items()}, stored["values"])


def state_of(fit: Planned, params: Params, chosen: Mapping[str, Any]) -> State:
    """A fit's state: its tensors, and its settings with the values chosen for it."""
    return State(params, {**fit.settings, **chosen})
