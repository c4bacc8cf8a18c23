"""Fit one cell, or several that join: make its task and constants, train, and select.

Fitted states are also turned into bytes for the disk, and read back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from bench.errors import BenchError
from bench.interface import EVAL, Consts, Params, State, Task, fit_values
from bench.names import TEST_ORACLE
from bench.plan import needs
from bench.plan.cells import Planned, label
from bench.prompts import same
from bench.records import codec, places, states
from bench.records.codec import SCHEMA
from bench.records.types import Budget, Curve, FitRecord, Provenance
from bench.run import stages, temperature
from bench.run import task as tasks
from bench.run.session import Session
from bench.train import pure, select, waves
from bench.train.keep import Labelled
from bench.train.select import Fitted

Result = tuple[Fitted, Consts, dict[str, float]]


def selection_set(session: Session, fit: Planned) -> Labelled | None:
    """Return the images that selection scores, or None if it scores none.

    These are the validation images, or under ``test-oracle`` the test images.
    """
    if not needs.scores_validation(fit):
        return None
    items = fit.dataset.test if fit.cell.protocol == TEST_ORACLE else fit.draw.val
    features = {
        tap: session.features(fit.backbone, fit.dataset, items.paths, EVAL, tap) for tap in fit.method.taps
    }
    return Labelled(features, session.labels(items))


def prepared(session: Session, fit: Planned, states: dict[str, State]) -> tuple[select.Case, float]:
    """Return the data that a cell is fitted from, and the seconds that it took to prepare them.

    The seconds count no encoding of prompts or images, because all methods share both.
    """
    with stages.stage("prepare"):
        session.encoded_text(fit.backbone, fit.prompts, fit.dataset.classnames)
        began = time.perf_counter()
        return _prepared(session, fit, states), time.perf_counter() - began


def _prepared(session: Session, fit: Planned, states: dict[str, State]) -> select.Case:
    """Return the task, constants, rows and selection set of a cell."""
    task = tasks.make(session, fit, states)
    consts = constants(session, fit, task)
    val = selection_set(session, fit)
    return select.Case(task, consts, tasks.pools(session, fit, task, fit.recipe, consts), val)


def constants(session: Session, fit: Planned, task: Task) -> Consts:
    """Return the constants that a method prepares for its task. Raises BenchError if it changed the task."""
    with session.guard.work(fit, "prepare"), pure.call(fit.method, "prepare", task=task):
        consts = fit.method.prepare(task)
    if not isinstance(consts, Mapping):
        raise BenchError(f"prepare of {fit.method.name} gives {type(consts).__name__}, not a dictionary")
    return consts


def run_fit(session: Session, fit: Planned, states: dict[str, State]) -> Result:
    """Fit one cell and return the result, the task's constants, and the seconds of each phase."""
    forget_peak(session.device)
    case, before = prepared(session, fit, states)
    began = time.perf_counter()
    with stages.stage("fit"), session.guard.work(fit, "its fit"):
        fitted = select.fit(
            fit.method, fit.recipe, case.task, case.consts, case.pools, case.val, session.sharers
        )
    spent = {"prepare": before, "fit": time.perf_counter() - began}
    return fitted, case.consts, {**spent, **_calibrated(session, fit, fitted, case)}


def _calibrated(session: Session, fit: Planned, fitted: Fitted, case: select.Case) -> dict[str, float]:
    """Give a fit its temperature, and return the seconds of that; {} if the protocol has none for it."""
    began = time.perf_counter()
    fitted.temperature, fitted.note = temperature.of_fit(session, fit, fitted, case)
    return {"temperature": time.perf_counter() - began} if needs.calibrates(fit) else {}


def run_joined(
    session: Session, fits: Sequence[Planned], states_of: Callable[[Planned], dict[str, State]]
) -> list[tuple[Planned, Result]]:
    """Fit the first of these cells of one recipe together, as many as memory holds.

    ``states_of`` returns the states that a fit reads, and makes them if needed. Each fit gets an equal share
    of the seconds, and its ``budget.joined`` names all fits that trained together. Raises ``join.Apart`` if
    the cells cannot train together, MemoryError if memory holds only one, and whatever ``run_fit`` raises.
    """
    cases = _side_by_side(session, fits, states_of)
    forget_peak(session.device)  # after the states that these cells read, which other fits may have made
    if len(cases) == 1:
        raise MemoryError("memory holds one at a time")
    began = time.perf_counter()
    with stages.stage("fit"), session.guard.work(fits[0], "its fit"):
        side_by_side = [case for case, _ in cases]
        fitted_all = select.fit_joined(fits[0].method, fits[0].recipe, side_by_side, session.sharers)
    share = (time.perf_counter() - began) / len(cases)
    names = [fit.key for fit in fits[: len(cases)]]
    done = []
    for fit, (case, before), fitted in zip(fits, cases, fitted_all, strict=False):
        fitted.budget["joined"] = names
        calibrated = _calibrated(session, fit, fitted, case)
        done.append((fit, (fitted, case.consts, {"prepare": before, "fit": share, **calibrated})))
    return done


def _side_by_side(
    session: Session, fits: Sequence[Planned], states_of: Callable[[Planned], dict[str, State]]
) -> list[tuple[select.Case, float]]:
    """Return the first cases, at least one, whose features and replicas fit into the share of memory."""
    cases: list[tuple[select.Case, float]] = []
    room: float | None = None
    for fit in fits:
        cases.append(prepared(session, fit, states_of(fit)))
        every = [case for case, _ in cases]
        if len(cases) == 1:
            free = waves.own_part(torch.device(session.device), session.sharers)
            room = None if free is None else waves.SHARE * free + held(every)
            with stages.stage("fit"), session.guard.work(fit, "its fit"):
                replica = select.bytes_per_replica(fit.method, fit.recipe, every[0])
        elif room is not None and held(every) + len(every) * replica > room:
            return cases[:-1]
    return cases


def held(cases: Sequence[select.Case]) -> int:
    """Return the bytes of features, constants and states of other fits that cases hold while they train."""
    pooled = [t for case in cases for pool in case.pools.values() for t in (pool.x, pool.y)]
    scored = [x for case in cases if case.val for x in case.val.features.values()]
    read = [p for case in cases for state in case.task.states.values() for p in state.params.values()]
    return waves.held((*pooled, *scored, *read, *(c for case in cases for c in case.consts.values())))


def fit_record(
    fit: Planned,
    fitted: Fitted,
    seconds: Mapping[str, float],
    first: bool,
    provenance: Provenance,
    state: bytes,
    peak: int,
) -> FitRecord:
    """Return the record of a fit that succeeded. ``state``: its tensors as a file (``state_bytes``).

    ``peak``: the result of ``peak_memory`` after the fit. ``first``: whether this was the first fit of its
    process with the method.
    """
    return FitRecord(
        schema=SCHEMA,
        key=fit.key,
        cell=fit.cell,
        parts=fit.parts,
        title=fit.method.title,
        reads={role: other.method.name for role, other in fit.after.items()},
        changed=dict(fit.changed),
        values=fitted.values,
        step=fitted.step,
        val_accuracy=fitted.val_accuracy,
        curve=[Curve(**line) for line in fitted.curve],
        budget=Budget(**fitted.budget),
        seconds=dict(seconds),
        first=first,
        peak_memory=peak,
        notes=[
            note
            for note in (*fit.dataset.notes, fit.draw.note, *fit.notes, fit.method.note, fitted.note)
            if note
        ],
        prompts_use_labels=fit.prompts.uses_labels,
        prompts_also=list(same(fit.prompts.name, fit.dataset.spec)),
        has_state=bool(fitted.params),
        state=codec.checksum_bytes(state) if state else "",
        temperature=fitted.temperature,
        temperature_rule=temperature.RULE,
        dataset_identity=fit.dataset.spec.identity,
        dataset_place=fit.dataset.spec.short_place,
        dataset_covers=fit.dataset.covers,
        provenance=provenance,
    )


def forget_peak(device: str) -> None:
    """Start measuring the peak memory of a fit on a GPU. On a processor the peak cannot be reset."""
    if torch.device(device).type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # resetting is an error before CUDA has started
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: str) -> int:
    """Return the peak memory of a fit on that device in bytes, as ``FitRecord.peak_memory`` defines it."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource
    import sys

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def state_bytes(fitted: Fitted) -> bytes:
    """Return the fitted tensors as a safetensors file, or no bytes if there are none."""
    return (
        save({name: p.detach().cpu().contiguous() for name, p in fitted.params.items()})
        if fitted.params
        else b""
    )


def load_state(
    results: Path, fit: Planned, stored: FitRecord, device: str, say: Callable[[str], None]
) -> State | None:
    """Return the state of a recorded fit, or None if its tensors were not kept or differ from its record.

    If they differ, ``say`` is called with a line which says that the fit is made again.
    """
    if not stored.has_state:
        return state_of(fit, {}, stored.values)
    try:
        data = states.read(results, stored)
        tensors = None if data is None else load(data)
    except (codec.Unreadable, SafetensorError) as error:
        where = "" if isinstance(error, BenchError) else f"{places.state_path(results, fit.key)}: "
        say(f"{where}{error}; {label(fit)} is fitted again")
        return None
    if tensors is None:
        return None
    return state_of(fit, {name: p.to(device) for name, p in tensors.items()}, stored.values)


def state_of(fit: Planned, params: Params, chosen: Mapping[str, Any]) -> State:
    """Return a fit's state: its tensors, and settings and chosen values without inference-time ones."""
    return State(params, fit_values(fit.method, fit.settings).with_(chosen))
