"""One fit: task, constants, training, selection, state; and the state's way to disk and back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load, save

from bench.files import write_bytes
from bench.interface import EVAL, Consts, Params, State, Task
from bench.run import needs, record
from bench.run.plan import Planned
from bench.run.session import Session, pools
from bench.train import select
from bench.train.select import Fitted, Labelled

ORACLE = "test-oracle"


def selection_set(session: Session, fit: Planned) -> Labelled | None:
    """The images that selection scores: few-shot validation, or under ``test-oracle`` the test images; None if unused."""
    if not needs.scores_validation(fit):
        return None
    items = fit.dataset.test if fit.cell.protocol == ORACLE else fit.draw.val
    features = {tap: session.features(fit.backbone, fit.dataset, items.paths, EVAL, tap) for tap in fit.method.taps}
    return Labelled(features, session.labels(items))


def run_fit(session: Session, fit: Planned, states: dict[str, State]) -> tuple[Fitted, Task, Consts, dict[str, float]]:
    """Fit one planned cell; returns the outcome, the task with its constants, and seconds per phase."""
    began = time.perf_counter()
    task = session.task(fit, states)
    consts = fit.method.prepare(task)
    val = selection_set(session, fit)
    rows = pools(session, fit, task, fit.recipe, consts)
    ready = time.perf_counter()
    fitted = select.fit(fit.method, fit.recipe, task, consts, rows, val)
    return fitted, task, consts, {"prepare": ready - began, "fit": time.perf_counter() - ready}


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
