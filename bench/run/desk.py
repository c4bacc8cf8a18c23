"""Do cells one after the other in one process.

A desk holds everything that the process needs for this: an encoder, the fitted states, a recorder and the
evaluations that wait for a pass over their images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from bench.data import seen
from bench.data.dataset import Dataset
from bench.interface import Consts, Params
from bench.plan.cells import label
from bench.plan.todo import Fresh, Todo
from bench.records.store import Clock
from bench.registry import Registry
from bench.run import evaluate, onepass, stages
from bench.run.encoder import Encoder
from bench.run.outcome import Ended, Now, Outcome
from bench.run.recorder import Recorder, keeper
from bench.run.session import Session
from bench.run.states import States
from bench.run.task import own
from bench.run.waiting import Waiting


class Desk:
    """The doer of cells in one process: it fits or loads a cell's state, evaluates it and writes records.

    A cell that fails does not affect the others.

    ``keep_states``: ``needed``, ``all`` or ``none``. ``fresh``: which records do not count (``todo.Fresh``).
    ``join``: whether seeds and shots with equal steps train together. ``clock``: the results folder's clock,
    if it was read already. ``home``: as for ``Recorder``.
    """

    def __init__(
        self,
        session: Session,
        registry: Registry,
        results: Path,
        keep_states: str = "needed",
        fresh: Fresh = False,
        join: bool = False,
        clock: Clock | None = None,
        home: Path | None = None,
    ) -> None:
        clock = replace(clock) if clock else Clock.of(results)
        self.session, self.join = session, join
        self.recorder = Recorder(session, results, keeper(registry, keep_states), clock, fresh, home)
        self.encoder = Encoder(session, fresh)
        self.states = States(session, self.recorder, join)
        self.waiting = Waiting(session, self.recorder)
        self.noted: dict[str, set[str]] = {}  # dataset's digest -> images whose stamps are kept
        self.warm = False  # whether this process did a cell before
        self.at: tuple[Todo, ...] = ()  # the cells that are being done
        self.begins: Callable[[frozenset[str]], None] = lambda keys: None  # called with cells' fit keys first

    @property
    def outcome(self) -> Outcome:
        """Return the outcome of all that was done so far."""
        return self.recorder.outcome

    def note(self, portion: Iterable[Todo]) -> None:
        """Write into the results folder the stamps of the image files that a portion reads.

        An image that could not be encoded gets no stamp. So the dataset counts as unchanged after that image
        is mended.
        """
        reads: dict[str, tuple[Dataset, dict[str, None]]] = {}
        for t in portion:
            pairs = [(t.fit.dataset, items) for items in (t.fit.draw.train, t.fit.draw.val)]
            pairs += [(e.target, e.target.test) for e in t.evaluations]
            for dataset, items in pairs:
                reads.setdefault(dataset.digest, (dataset, {}))[1].update(dict.fromkeys(items.paths))
        for digest, (dataset, paths) in reads.items():
            fresh = paths.keys() - self.noted.setdefault(digest, set()) - self.encoder.unreadable(dataset)
            seen.note(self.recorder.results, dataset, sorted(fresh), [self.session.store.root])
            self.noted[digest] |= fresh

    def do(self, t: Todo) -> Ended:
        """Do one cell and return how it ended."""
        if self.waiting.full():
            self.evaluate()
        self._begin((t,))
        began, failures = time.perf_counter(), len(self.outcome.failures)
        try:
            with self.session.threads(t.fit.backbone):
                said = self._fit_and_evaluate(t)
        except Exception as error:
            said = self.recorder.failure(t, error)
        self.states.release(t)
        spent = time.perf_counter() - began if self.warm else None
        self.warm, self.at = True, ()
        return Ended(t.fit.key, said, spent, failed=len(self.outcome.failures) > failures)

    def evaluate(self) -> None:
        """Make the evaluations that wait for one pass over their test images."""
        if cells := self.waiting.cells():
            self._begin(tuple(cells.values()))
            self.waiting.evaluate()
            self.at = ()

    def _begin(self, cells: tuple[Todo, ...]) -> None:
        """Note the cells that are done now, and call ``begins`` with their keys."""
        self.at = cells
        self.begins(frozenset(t.fit.key for t in cells))

    def _fit_and_evaluate(self, t: Todo) -> str:
        """Fit or load the cell's state, make its evaluations, and return one line about the cell."""
        fit, said = t.fit, label(t.fit)
        if t.stored is None:
            self.session.watch(Now(f"fitting {said}"))
        state = self.states.of(fit)
        T = self.states.temperature(fit)
        if not t.evaluations:
            return said
        self.session.watch(Now(f"evaluating {said}"))
        facts = self.recorder.facts(fit)
        consts: Consts | None = self.states.constants(fit)  # None: to be made again
        waiting: tuple[Params, Consts] | None = None  # shared by the evaluations that wait for a pass
        for e in t.evaluations:  # if one fails, the others are made all the same
            try:
                if unread := self.encoder.unread(fit, e):
                    raise unread
                if waiting is not None and onepass.waits(self.session, fit, e):
                    self.waiting.add(t, onepass.Job(fit, e, *waiting, state.values, T), facts)
                    continue
                if consts is None:
                    consts = self.states.constants(fit)
                params = own(state).params  # a copy, because other cells and evaluations read the state
                if onepass.waits(self.session, fit, e):
                    waiting, consts = (params, consts), None
                    self.waiting.add(t, onepass.Job(fit, e, *waiting, state.values, T), facts)
                    continue
                with stages.stage("evaluate"):
                    result = evaluate.evaluate(self.session, fit, e, params, consts, state.values, T)
                self.recorder.evaluation(fit, e, facts, result)
            except Exception as error:
                consts = None  # the failed evaluation may have written into them
                said = self.recorder.failure(replace(t, evaluations=(e,)), error)
        return said
