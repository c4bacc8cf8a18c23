"""Hold evaluations whose dense features are not stored, and make them with few passes over the test sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from bench.names import counted
from bench.plan.todo import Todo
from bench.records.types import Provenance
from bench.run import evaluate, onepass, stages
from bench.run.evaluate import Evaluated
from bench.run.onepass import Job
from bench.run.outcome import Now
from bench.run.recorder import Recorder
from bench.run.session import Session
from bench.train import waves


class Waiting:
    """A queue of evaluations that wait for a pass over their test images."""

    def __init__(self, session: Session, recorder: Recorder) -> None:
        self.session, self.recorder = session, recorder
        self.jobs: list[tuple[Todo, Job, Provenance]] = []

    def add(self, t: Todo, job: Job, facts: Provenance) -> None:
        """Add one evaluation; ``facts``: the provenance of its number."""
        self.jobs.append((t, job, facts))

    def cells(self) -> dict[str, Todo]:
        """Return the cells that have evaluations here, by fit key."""
        return {t.fit.key: t for t, _, _ in self.jobs}

    def full(self) -> bool:
        """Return whether waiting states and the arrays of their pass exceed ``onepass.HELD_BYTES``."""
        kept = [x for _, job, _ in self.jobs for x in (*job.params.values(), *job.consts.values())]
        arrays = sum(evaluate.size(self.session, job.evaluation) for _, job, _ in self.jobs)
        return (waves.held(kept) if kept else 0) + arrays > onepass.HELD_BYTES

    def evaluate(self) -> None:
        """Make all waiting evaluations, with one pass for each backbone and test set."""
        groups: dict[tuple[str, str], list[tuple[Todo, Job, Provenance]]] = defaultdict(list)
        for t, job, facts in self.jobs:
            groups[t.fit.backbone.digest, job.evaluation.target.digest].append((t, job, facts))
        for group in groups.values():
            results: Sequence[Evaluated | Exception]
            name = group[0][1].evaluation.target.name
            self.session.watch(Now(f"evaluating {counted(len(group), 'fit')} in one pass over {name}"))
            try:
                with stages.stage("evaluate"):
                    results = onepass.run(self.session, [job for _, job, _ in group])
            except Exception as error:
                results = [error] * len(group)
            for (t, job, facts), result in zip(group, results, strict=True):
                try:
                    if isinstance(result, Exception):
                        raise result
                    self.recorder.evaluation(t.fit, job.evaluation, facts, result)
                except Exception as error:  # others of the pass are recorded all the same
                    failed = replace(t, evaluations=(job.evaluation,))
                    self.session.report(self.recorder.failure(failed, error))
            made = {id(job) for _, job, _ in group}
            self.jobs = [entry for entry in self.jobs if id(entry[1]) not in made]
