"""Provide the fitted states of a portion, and the constants that belong to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bench.interface import Consts, State
from bench.plan.cells import Planned, chain
from bench.plan.todo import Todo, recorded
from bench.run import fit as fitting
from bench.run import stages
from bench.run import task as tasks
from bench.run.recorder import Recorder
from bench.run.session import Session
from bench.run.together import Joiner


class States:
    """The source of fitted states: each is held already, loaded from disk, or fitted now.

    A state is held until its last reader is done. ``join``: whether seeds and shots with equal steps train
    together. The states of fits that did are held at the same time.
    """

    def __init__(self, session: Session, recorder: Recorder, join: bool) -> None:
        self.session, self.recorder, self.join = session, recorder, join
        self.joiner = Joiner(session)
        self.warm: set[str] = set()  # names of the methods with which this process has fitted something
        self.held: dict[str, State] = {}  # by fit key
        self.temperatures: dict[str, float | None] = {}  # of the states that are held
        self.ready: dict[str, Consts] = {}  # constants of fits that were just made, by fit key
        self.readers: Counter[str] = Counter()  # fit key -> cells that have yet to read it

    def begin(self, group: Iterable[Todo]) -> None:
        """Begin a portion, and drop the states of the last one."""
        group = list(group)
        self.held.clear()
        self.ready.clear()
        self.readers = Counter(key for t in group for key in _read(t))
        self.joiner.begin(fit for t in group for fit in chain(t.fit) if self.join)

    def of(self, fit: Planned) -> State:
        """Return the state of a fit: held, loaded or fitted now."""
        if fit.key in self.held:
            return self.held[fit.key]
        stored = recorded(fit, fresh=self.recorder.fresh)
        kept = None
        if stored:
            session = self.session
            kept = fitting.load_state(self.recorder.results, fit, stored, session.device, session.report)
        if stored is not None and kept is not None:
            self.held[fit.key] = kept
            self.temperatures[fit.key] = stored.temperature
            return kept
        name = fit.method.name
        for made, (fitted, consts, seconds) in self.joiner.fit(fit, self._open, self.below):
            self.recorder.fit(made, fitted, seconds, name not in self.warm)
            self.held[made.key] = fitting.state_of(made, fitted.params, fitted.values)
            self.temperatures[made.key] = fitted.temperature
            if made.asked:
                self.ready[made.key] = consts
        self.warm.add(name)
        return self.held[fit.key]

    def temperature(self, fit: Planned) -> float | None:
        """Return the temperature of a fit whose state is held.

        It is None if the fit's record is older than temperatures. Its evaluations then tell no metric that
        needs one, until the cell is run again.
        """
        return self.temperatures[fit.key]

    def below(self, fit: Planned) -> dict[str, State]:
        """Return the states that a fit reads, by role."""
        return {role: self.of(other) for role, other in fit.after.items()}

    def constants(self, fit: Planned) -> Consts:
        """Return what the method prepared for the fit's task.

        The first call after the fit returns the constants of the fit. Every other call prepares them again.
        """
        consts = self.ready.pop(fit.key, None)
        if consts is None:
            with stages.stage("prepare"):
                task = tasks.make(self.session, fit, self.below(fit))
                consts = fitting.constants(self.session, fit, task)
        return consts

    def release(self, t: Todo) -> None:
        """Drop the states and constants that no cell but this one, which is done, had yet to read."""
        read = _read(t)
        self.readers.subtract(read)
        for key in read:
            if not self.readers[key]:
                self.held.pop(key, None)
                self.ready.pop(key, None)

    def _open(self, fit: Planned) -> bool:
        """Return whether a fit has yet to be made for a cell of this portion."""
        if fit.key in self.held or not self.readers[fit.key]:
            return False
        return recorded(fit, fresh=self.recorder.fresh) is None


def _read(t: Todo) -> set[str]:
    """Return the keys of the fits whose states a cell reads, its own included."""
    return {fit.key for fit in chain(t.fit)}
