"""Make a classifier of a fitted cell: of one that is recorded, or of a fit that is at hand.

The constants are made by the same code as in an evaluation, from the same support images, so that the
classifier predicts what the record says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import torch

from bench.classifier import parts
from bench.classifier.file import About, Classifier, Images, Made, Preprocessing
from bench.clip.backbone import BackboneSpec
from bench.data.dataset import Dataset
from bench.data.imagefile import FolderSource
from bench.data.opening import Opening
from bench.errors import BenchError
from bench.executors import serial
from bench.features.key import prepared
from bench.interface import EVAL, Consts, State
from bench.names import canonical
from bench.plan import planner
from bench.plan.cells import Evaluation, Plan, Planned, chain, label
from bench.plan.request import Request
from bench.plan.todo import Todo, evaluated, recorded
from bench.records import places, states, store
from bench.registry import Registry
from bench.run import evaluate, logits, provenance
from bench.run import fit as fitting
from bench.run import task as tasks
from bench.run.desk import Desk
from bench.run.session import Session

_COMPARED = 512  # most test images on which a fit that was made again is compared with its record


def of_cell(
    request: Request,
    registry: Registry,
    session: Session,
    place: Callable[[str], None] = lambda digest: None,
) -> Classifier:
    """Return the classifier of one recorded cell.

    ``request`` names one method, dataset, number of shots, seed and backbone. Fitted tensors that were not
    kept are fitted again and kept; ``session.report`` hears of it. ``place`` is called with the dataset's
    digest before any work is done, and may refuse it. Raises BenchError if the request means no
    cell or several, if the cell is not recorded, and if its method holds constants that no file can hold.
    """
    planned = planner.make(request, registry)
    fit = _only(planned)
    record = recorded(fit)
    evaluation = fit.evaluations[0]
    if record is None or not evaluated(fit, evaluation):
        raise BenchError(
            f"{request.results} has no record of {label(fit)}, preset {fit.cell.preset}; `bench run` makes "
            "it, with the same options"
        )
    place(fit.dataset.digest)
    again = _fit_missing(planned, fit, registry, session, request)
    with session.threads(fit.backbone):
        below = {role: _state(other, session, request) for role, other in fit.after.items()}
        state = _state(fit, session, request)
        consts = fitting.constants(session, fit, tasks.make(session, fit, below))
    made = recorded(fit)
    assert made is not None, "it was there, or was fitted just now"
    if again:
        _compare(fit, evaluation, state, consts, session)
    return of_fit(fit, evaluation, state, consts, made.temperature, session, registry)


def of_fit(
    fit: Planned,
    evaluation: Evaluation,
    state: State,
    consts: Consts,
    temperature: float | None,
    session: Session,
    registry: Registry,
) -> Classifier:
    """Return the classifier of a fit with its state and constants.

    ``evaluation``: whose inference-time values count. Raises BenchError for constants that no file can hold.
    """
    tree, tensors = parts.packed(consts, session.backbone(fit.backbone), fit.method)
    cell, method, spec = fit.cell, fit.method, fit.backbone
    about = About(
        classnames=fit.dataset.classnames,
        method=method.name,
        title=method.title,
        cite=method.cite,
        version=method.version,
        source=registry.digests.get(canonical(method.name), ""),
        settings=_plain(fit.settings),
        values=_plain(evaluate.values_of(fit, evaluation, state.values)),
        backbone=spec.name,
        weights=spec.digest,
        dtype=spec.dtype,
        taps=tuple(method.taps),
        preprocessing=preprocessing_of(spec),
        opening=_images(fit.dataset),
        temperature=temperature,
        constants=tree,
        made=Made(
            written=datetime.now(UTC).isoformat(timespec="seconds"),
            libraries=dict(provenance.libraries()),
            dataset=cell.dataset,
            dataset_digest=fit.dataset.digest,
            shots=cell.shots,
            seed=cell.seed,
            prompts=cell.prompts,
            protocol=cell.protocol,
            preset=cell.preset,
            # A method without labels has a draw, and reads none of it.
            images=len(fit.draw.train) if cell.shots else 0,
            chosen_on=len(fit.draw.val) if cell.shots else 0,
            fit=fit.key,
        ),
    )
    params = {name: p.detach().cpu() for name, p in state.params.items()}
    return Classifier(about, params, tensors)


def preprocessing_of(spec: BackboneSpec) -> Preprocessing:
    """Return a backbone's way from RGB images to its input."""
    how = spec.preprocess
    (r, g, b), (sr, sg, sb) = how.mean, how.std
    return Preprocessing(
        size=spec.image_size,
        mean=(r, g, b),
        std=(sr, sg, sb),
        interpolation=how.interpolation,
        resize_mode=how.resize_mode,
        name=prepared(spec),
    )


def _images(dataset: Dataset) -> Images | None:
    """Return how new image files are opened: as the dataset's are, or as a user's own if it has no files."""
    rule = dataset.source.opening if isinstance(dataset.source, FolderSource) else Opening()
    if rule is None:
        return None
    return Images(rule=str(rule), background=rule.background, white=rule.white)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they read back from JSON."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _only(planned: Plan) -> Planned:
    """Return the one fit of a plan that was asked for. Raises BenchError if there is none, or several."""
    fits = [fit for fit in planned.fits if fit.asked]
    if not fits:
        raise BenchError(
            "; ".join(b.reason for b in planned.blocked) or "no such cell: name its shots and seed"
        )
    if len(fits) > 1:
        some = "; ".join(label(fit) for fit in fits[:3])
        raise BenchError(
            f"{len(fits)} cells are meant ({some}): choose one, as in --prompts {fits[0].cell.prompts}"
        )
    return fits[0]


def _fit_missing(planned: Plan, fit: Planned, registry: Registry, session: Session, request: Request) -> bool:
    """Encode the support images, and fit what has no kept state, both as ``bench run`` does.

    Return whether anything with a state was fitted.
    """
    todo, again = [], False
    for other in chain(fit):
        record = recorded(other)
        kept = record is not None and states.there(request.results, record)
        if not kept:
            session.report(f"the fitted tensors of {label(other)} were not kept: fitting it again")
            again = True
        if other.recipe.support or not kept or other.key == fit.key:
            todo.append(Todo(replace(other, evaluations=()), (), record))
    store.require_present(request.results)
    desk = Desk(session, registry, request.results, keep_states="all")
    outcome = serial.run(desk, planned, todo, lambda *_: None)
    if outcome.failures:
        cell, message, where = outcome.failures[0]
        raise BenchError(f"{cell}: {message}" + (f"; its record: {where}" if where else ""))
    return again


def _compare(fit: Planned, evaluation: Evaluation, state: State, consts: Consts, session: Session) -> None:
    """Compare a fit that was made again with the record, and report test images that differ.

    On the machine of the record a fit gives equal bytes; another one rounds differently, which training
    amplifies.
    """
    target, values = evaluation.target, evaluate.values_of(fit, evaluation, state.values)
    path = places.evaluation_path(fit.where, fit.key, evaluation.key)
    known = store.predictions(path, ("top1",))["top1"]
    some = list(range(0, len(known), -(-len(known) // _COMPARED)))
    paths = [target.test.paths[i] for i in some]
    differing = 0
    with torch.no_grad():
        for start, features in session.stream(fit.backbone, target, paths, EVAL, fit.method.taps):
            logits_BK = logits.of(fit, state.params, consts, features, values)
            now = logits_BK.argsort(dim=-1, descending=True, stable=True)[:, 0].cpu().numpy()
            differing += int((now != known[some[start : start + len(now)]]).sum())
    if differing:
        session.report(
            f"the new fit classifies {differing} of {len(some)} test images otherwise than the record, which "
            "another machine or program made: the accuracy in tables is not quite that of this classifier"
        )


def _state(fit: Planned, session: Session, request: Request) -> State:
    """Return the kept state of a fit. Raises BenchError if it is gone."""
    record = recorded(fit)
    state = None
    if record is not None:
        state = fitting.load_state(request.results, fit, record, session.device, session.report)
    if state is None:
        raise BenchError(f"{request.results}: the fitted tensors of {label(fit)} cannot be read")
    return state
