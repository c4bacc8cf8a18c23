"""Decide which fits of a portion may train together (join), and fit them.

Seeds join, and so do shots with equal steps, as many as memory holds. If that fails, only the seeds of one
number of shots join. If that fails too, each is fitted alone.

The record of a joined fit names all fits that trained together (``budget.joined``) and has an equal share of
the seconds. The record of a fit that could not join says why (``budget.apart``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bench.interface import State, points
from bench.plan import batches
from bench.plan.cells import Planned, kind
from bench.run import fit as fitting
from bench.run import stages
from bench.run.fit import Result
from bench.run.session import Session
from bench.train import span
from bench.train.join import Apart

Results = list[tuple[Planned, Result]]
StatesOf = Callable[[Planned], dict[str, State]]


def sizes(fit: Planned) -> dict[str, span.Size]:
    """Return the sizes of the pools that the streams of a fit will have, as the plan knows them."""
    return {name: batches.size(stream, fit.facts) for name, stream in fit.recipe.streams.items()}


def alike(one: Planned, other: Planned) -> bool:
    """Return whether two fits make equal steps on different rows, and may be mapped as one stack."""
    return (
        one.recipe.optim is not None
        and one.method.fuse
        and one.method is other.method
        and kind(one) == kind(other)
        and one.recipe == other.recipe
        and dict(one.settings) == dict(other.settings)
        and not any(
            span.apart(span.with_static(one.recipe, static), [sizes(one), sizes(other)])
            for static in points(one.recipe.static)
        )
    )


class Joiner:
    """The maker of a portion's fits, which joins them if it can and reports those that cannot join.

    ``across`` says that fits of different shots may join. Otherwise only seeds of one number of shots join.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.round: dict[str, Planned] = {}
        # (fit key, across) -> why it did not join others in this way.
        self.apart: dict[tuple[str, bool], str] = {}
        # (method, across) -> why its tasks never join, in any portion.
        self.never: dict[tuple[str, bool], str] = {}

    def begin(self, fits: Iterable[Planned]) -> None:
        """Begin a portion with these fits, including the fits that they read."""
        self.round = {fit.key: fit for fit in fits}
        self.apart = {}

    def fit(self, fit: Planned, open_: Callable[[Planned], bool], states_of: StatesOf) -> Results:
        """Fit ``fit`` and the fits that join it. ``open_`` returns whether a fit has yet to be made."""
        results: Results = []
        others = [f for f in self.round.values() if f.key != fit.key and alike(fit, f) and open_(f)]
        seeds = [f for f in others if f.cell.shots == fit.cell.shots]
        for across, company in ((True, others), (False, seeds)):
            if results or (fit.key, across) in self.apart or (across and len(company) == len(seeds)):
                continue
            group = [fit, *(f for f in company if (f.key, across) not in self.apart)]
            if len(group) > 1:
                results = self._together(group, across, states_of)
        results = results or [(fit, fitting.run_fit(self.session, fit, states_of(fit)))]
        for made, (fitted, *_) in results:
            if reason := self.apart.get((made.key, False)) or self.apart.get((made.key, True)):
                fitted.budget["apart"] = reason
        return results

    def _together(self, group: list[Planned], across: bool, states_of: StatesOf) -> Results:
        """Fit a group together. If that fails, note why and return no results."""
        name = group[0].method.name
        if (name, across) not in self.never:
            try:
                return fitting.run_joined(self.session, group, states_of)
            except Apart as error:
                reason = self.never[name, across] = str(error)
            except Exception as error:  # if it comes again when each is fitted alone, only its cell fails
                reason = stages.message(error).splitlines()[0]
            what = "shots" if across else "seeds"
            self.session.report(f"{name} {group[0].dataset.name}: {what} are fitted one by one ({reason})")
        else:
            reason = self.never[name, across]
        self.apart |= {(f.key, across): reason for f in group}
        return []
