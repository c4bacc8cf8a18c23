"""Seeds that train together: which fits of a round may join, and their joint fit. No torch until one is made.

Never silently: the record of a joined fit names all that trained with it (``budget.joined``) and counts an equal share of
the seconds; one that was meant to join and could not says why (``budget.apart``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.run.plan import Cell, Planned

if TYPE_CHECKING:
    from bench.interface import Consts, State, Task
    from bench.run.session import Session
    from bench.train.select import Fitted

    Result = tuple[Fitted, Task, Consts, dict[str, float]]

AfterOf = Callable[[Planned], dict[str, "State"]]


def kind(fit: Planned) -> Cell:
    """What fits have in common that may join: all coordinates but the seed."""
    return replace(fit.cell, seed=0)


def alike(one: Planned, other: Planned) -> bool:
    """Whether two fits do the same work on support sets of the same size, by gradient steps that map over replicas."""
    return (
        one.recipe.optim is not None
        and one.method.fuse
        and one.method is other.method
        and kind(one) == kind(other)
        and one.facts.n_support == other.facts.n_support
        and one.recipe == other.recipe
        and dict(one.settings) == dict(other.settings)
    )


class Joiner:
    """Makes the fits of a round, joined where they can be. ``report`` hears of those that could not."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.round: dict[str, Planned] = {}
        self.apart: dict[str, str] = {}  # by fit key: why it is fitted alone
        self.never: dict[str, str] = {}  # by method: why its tasks cannot train together, whatever the round

    def begin(self, fits: Iterable[Planned]) -> None:
        """The fits of a round, dependencies too."""
        self.round = {fit.key: fit for fit in fits}
        self.apart = {}

    def fit(self, fit: Planned, open_: Callable[[Planned], bool], after: AfterOf) -> list[tuple[Planned, Result]]:
        """``fit`` and whatever trained with it; ``open_`` says which fits of the round are still to be made."""
        found: list[tuple[Planned, Result]] = []
        if fit.key not in self.apart:
            others = (f for f in self.round.values() if f.key != fit.key and f.key not in self.apart and alike(fit, f))
            group = [fit, *(f for f in others if open_(f))]
            if len(group) > 1:
                found = self._together(group, after)
        return found or [(fit, self._alone(fit, after(fit)))]

    def _together(self, group: list[Planned], after: AfterOf) -> list[tuple[Planned, Result]]:
        from bench.run import fit as fitting
        from bench.train.join import Apart

        name = group[0].method.name
        if name not in self.never:
            try:
                return fitting.run_joined(self.session, group, [after(f) for f in group])
            except Apart as error:
                reason = self.never[name] = str(error)
            except Exception as error:  # whatever it is: alone it meets its own cell only, or goes away
                reason = (str(error).splitlines() or [type(error).__name__])[0]
            self.session.report(f"{name} {group[0].dataset.name}: seeds are fitted one by one ({reason})")
        else:
            reason = self.never[name]
        self.apart |= {f.key: reason for f in group}
        return []

    def _alone(self, fit: Planned, states: dict[str, State]) -> Result:
        from bench.run import fit as fitting

        fitted, task, consts, seconds = fitting.run_fit(self.session, fit, states)
        if fit.key in self.apart:
            fitted.budget["apart"] = self.apart[fit.key]
        return fitted, task, consts, seconds
