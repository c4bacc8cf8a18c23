"""Write the records of fits, evaluations and failures as soon as they are known, and count them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace as with_fields

from bench.data import seen
from bench.errors import BenchError, UnreadableImage
from bench.files import write_bytes
from bench.names import KEEP_STATES
from bench.plan import needs
from bench.plan.cells import Evaluation, Planned, label
from bench.plan.todo import Fresh, Todo, evaluated, recorded
from bench.records import places, store
from bench.records.codec import SCHEMA
from bench.records.conditions import conditions
from bench.records.store import Clock
from bench.records.types import Failure, Provenance
from bench.registry import Registry
from bench.run import fit as fitting
from bench.run import provenance, stages
from bench.run.evaluate import Evaluated
from bench.run.outcome import Failed, Outcome
from bench.run.session import Session
from bench.train.select import Fitted


class Recorder:
    """The writer of records into one results folder.

    ``keep``: returns whether a fit's state goes to disk (``keeper``). ``fresh``: which records do not count,
    among those that this recorder did not write itself. ``home``: the user's results folder, if ``results``
    is a temporary one.
    """

    def __init__(
        self,
        session: Session,
        results: Path,
        keep: Callable[[Planned], bool],
        clock: Clock,
        fresh: Fresh,
        home: Path | None = None,
    ) -> None:
        self.session, self.results, self.keep, self.home = session, results, keep, home
        self.clock, self.fresh = clock, fresh
        self.made: set[str] = set()  # keys of the fits and evaluations that were recorded here
        self.outcome = Outcome()

    def facts(self, fit: Planned) -> Provenance:
        """Return the provenance of a number that is made now, and add its conditions to the outcome."""
        streamed = not self.session.dense_cache and bool(needs.HEAVY.intersection(fit.method.taps))
        facts = provenance.of_run(self.session.device, fit.method, streamed)
        self.outcome.conditions.add((fit.backbone.name, conditions(facts)))
        return facts

    def fit(self, fit: Planned, fitted: Fitted, seconds: dict[str, float], first: bool) -> None:
        """Write a fit's state, if it is kept, and then its record. ``first``: as in the record."""
        state = fitting.state_bytes(fitted) if self.keep(fit) else b""
        if state:
            write_bytes(places.state_path(self.results, fit.key), state)
        peak = fitting.peak_memory(self.session.device)
        record = fitting.fit_record(fit, fitted, seconds, first, self.facts(fit), state, peak)
        store.write(places.fit_path(fit.where, fit.key), record, self.clock)
        self._ended(fit)
        self.made.add(fit.key)
        self.outcome.fits += 1
        self.outcome.steps += fitted.budget["steps"]

    def evaluation(self, fit: Planned, evaluation: Evaluation, facts: Provenance, result: Evaluated) -> None:
        """Write an evaluation's predictions, and then its record."""
        path = places.evaluation_path(fit.where, fit.key, evaluation.key)
        record, arrays = result
        checksums = store.write_predictions(path, arrays)
        store.write(path, with_fields(record, predictions=checksums, provenance=facts), self.clock)
        self._ended(fit)
        self.made.add(evaluation.key)
        self.outcome.evaluations += 1

    def stopped(self, fit: Planned) -> None:
        """Mark a fit, or an evaluation of it, as stopped, so that the next run does all other cells first."""
        write_bytes(places.stopped_path(fit.where, fit.key), b"")

    def failure(self, t: Todo, error: Exception) -> str:
        """Record a failed cell and return one line about it, with the path of its record.

        One record is written for the fit, or else one for each evaluation that the cell lacks. Tables print
        ERR for it. The record of a success is overwritten only if ``fresh`` does not count it.
        """
        fit, message = t.fit, stages.message(error)
        written: list[Path] = []

        def write(path: Path, record: Failure) -> None:
            store.write(path, record, self.clock)
            written.append(self._at_home(path))

        head = Failure(
            schema=SCHEMA,
            key=fit.key,
            of="fit",
            fit=fit.key,
            cell=fit.cell,
            stage=stages.of(error),
            error=message,
            traceback=stages.trace(error),
            title=fit.method.title,
            parts=fit.parts,
            changed=dict(fit.changed),
            dataset_identity=fit.dataset.spec.identity,
            provenance=provenance.of_run(self.session.device, fit.method),
        )
        if recorded(fit, fresh=self._fresh(fit.key)) is None:
            write(places.fit_path(fit.where, fit.key), head)
        else:
            for e in t.evaluations:
                if not evaluated(fit, e, fresh=self._fresh(e.key)):
                    record = with_fields(
                        head,
                        key=e.key,
                        of="evaluation",
                        parts=None,
                        target=e.target.name,
                        values=dict(e.values),
                        changed=dict(e.changed),
                    )
                    write(places.evaluation_path(fit.where, fit.key, e.key), record)
        if isinstance(error, UnreadableImage):
            for dataset in (fit.dataset, *(e.target for e in t.evaluations)):
                seen.forget(self.results, dataset, [error.path])
        self.outcome.failures.append(Failed(label(fit), message, written[0] if written else None))
        where = f"; its record: {written[0]}" if written else ""
        return f"FAILED {label(fit)} ({head.stage}){where}"

    def _at_home(self, path: Path) -> Path:
        """Return the path in the user's results folder of a record that is written to ``path``."""
        return self.home / path.relative_to(self.results) if self.home else path

    def _ended(self, fit: Planned) -> None:
        """Remove the mark that the fit was stopped."""
        places.stopped_path(fit.where, fit.key).unlink(missing_ok=True)

    def _fresh(self, key: str) -> Fresh:
        """Return which records of that key do not count. A record that was written here always counts."""
        return False if key in self.made else self.fresh


def keeper(registry: Registry, rule: str) -> Callable[[Planned], bool]:
    """Return the rule of ``--keep-states``: ``all``, ``none``, or ``needed``.

    ``needed`` keeps states that other methods read, or that later evaluations can reuse. Raises BenchError
    for another rule.
    """
    read = {name for method in registry.methods.values() for name in method.after}
    rules: dict[str, Callable[[Planned], bool]] = {
        "all": lambda fit: True,
        "none": lambda fit: False,
        "needed": lambda fit: fit.method.name in read or bool(fit.method.inference),
    }
    assert set(rules) == set(KEEP_STATES)
    if rule not in rules:
        raise BenchError(f"--keep-states {rule}: choose {', '.join(KEEP_STATES[:-1])} or {KEEP_STATES[-1]}")
    return rules[rule]
