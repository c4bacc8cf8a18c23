"""Evaluate without stored dense features: one pass over a test set serves all fits that wait for it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.errors import BenchError, said
from bench.interface import EVAL, Consts, Params
from bench.plan import needs
from bench.plan.cells import Evaluation, Planned
from bench.run import evaluate, stages
from bench.run.session import Session
from bench.train import pure

# Memory that waiting states, and the arrays that their pass fills, may take before it is made: 34 heads of
# RN50's size.
HELD_BYTES = 2 << 30


@dataclass(frozen=True)
class Job:
    """An evaluation that waits for a pass, with its fit's tensors, constants, chosen values and temperature.

    Jobs of one fit may share tensors and constants.
    """

    fit: Planned
    evaluation: Evaluation
    params: Params
    consts: Consts
    chosen: Mapping[str, Any]
    temperature: float | None


def waits(session: Session, fit: Planned, evaluation: Evaluation) -> bool:
    """Return whether an evaluation reads features that are not in the store and will not be."""
    if session.dense_cache or not needs.HEAVY.intersection(fit.method.taps):
        return False
    return session.lacks(fit.backbone, evaluation.target, evaluation.target.test.paths, EVAL, fit.method.taps)


def run(session: Session, jobs: Sequence[Job]) -> list[evaluate.Evaluated | Exception]:
    """Return for each job the result of ``evaluate.evaluate``, or the error that ended the job.

    All jobs have one backbone and one test set. ``seconds`` of a record is an equal share of the pass. If a
    job fails after it wrote into tensors that other jobs read, these jobs fail too. Memory holds the states
    of all jobs and one batch of features. Raises whatever reading the images raises.
    """
    first = jobs[0]
    target, began = first.evaluation.target, time.perf_counter()
    taps = sorted({tap for job in jobs for tap in job.fit.method.taps})
    values = [evaluate.values_of(job.fit, job.evaluation, job.chosen) for job in jobs]
    # The arrays are made first and filled in place. Small arrays made for every batch would lie between large
    # freed ones, so that the C library could not use that memory again for the next batch.
    arrays = [evaluate.empty(session, job.evaluation, job.temperature) for job in jobs]
    errors: dict[int, Exception] = {}
    with torch.no_grad():
        for start, features in session.stream(first.fit.backbone, target, target.test.paths, EVAL, taps):
            for i, job in enumerate(jobs):
                if i in errors:
                    continue
                # a copy for this job, because the next job reads the same features
                mine = {tap: features[tap].clone() for tap in job.fit.method.taps}
                given = pure.watch(params=job.params, constants=job.consts)
                try:
                    with (
                        stages.stage("evaluate"),
                        session.guard.work(job.fit, "its evaluation"),
                    ):
                        evaluate.tell(
                            job.fit,
                            target,
                            job.params,
                            job.consts,
                            mine,
                            values[i],
                            arrays[i],
                            start,
                            job.temperature,
                        )
                except Exception as error:  # only this job fails, and the pass goes on for the others
                    errors |= dict.fromkeys(_sharing(jobs, pure.written(given)), _spoilt(error)) | {i: error}
    share = (time.perf_counter() - began) / len(jobs)
    ended: list[evaluate.Evaluated | Exception] = []
    for i, job in enumerate(jobs):
        try:
            if i in errors:
                raise errors[i]
            with stages.stage("evaluate"):
                done = evaluate.concluded(
                    job.fit, job.evaluation, values[i], arrays[i], job.temperature, share
                )
        except Exception as error:
            ended.append(error)
        else:
            ended.append(done)
    return ended


def _sharing(jobs: Sequence[Job], written: Sequence[Tensor]) -> list[int]:
    """Return the numbers of the jobs that read one of these tensors."""
    ids = {id(x) for x in written}
    return [
        i
        for i, job in enumerate(jobs)
        if any(id(x) in ids for x in (*job.params.values(), *job.consts.values()))
    ]


def _spoilt(error: Exception) -> BenchError:
    """Return the error of a job whose tensors another job wrote into."""
    return BenchError(
        f"another evaluation of the same fit wrote into what this one reads, and failed: {said(error)}"
    )
