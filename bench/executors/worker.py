"""The inside of a worker process: a plan and a desk of its own, made from the command's request."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bench.errors import BenchError
from bench.executors import serial
from bench.executors.loop import Done
from bench.names import counted
from bench.plan import planner
from bench.plan.cells import Plan, label
from bench.plan.request import Request
from bench.plan.todo import Fresh, left
from bench.records.store import Clock
from bench.registry import with_plugins
from bench.run.desk import Desk
from bench.run.outcome import Ended, Now, Outcome, Watch, unwatched
from bench.run.session import Session, repeatable


@dataclass(frozen=True)
class Setup:
    """The things that a worker needs to make the plan again and to do parts of it.

    ``clock``: the results folder's, as the parent found it. ``card``: the GPU on which the driver of a
    cluster encodes.
    """

    request: Request
    plugins: tuple[Path, ...]
    device: str
    cache: Path | None
    keep_states: str
    fresh: Fresh
    dense_cache: bool = True
    join: bool = False
    clock: Clock | None = None
    card: str | None = None


class Worker:
    """A doer of portions of a plan. It makes the plan itself, as a function of the request.

    Messages for the user go back with results. ``watch`` is told what it is doing, in words; ``begins`` is
    told the keys of cells before they begin. ``sharers``: how many processes are on its device.
    """

    def __init__(
        self,
        setup: Setup,
        device: str,
        results: Path,
        watch: Watch = unwatched,
        begins: Callable[[frozenset[str]], None] = lambda keys: None,
        sharers: int = 1,
    ) -> None:
        self.fresh, self.messages = setup.fresh, list[str]()
        repeatable()  # before the threads of a plugin begin
        registry = with_plugins(setup.plugins)
        session = Session(
            device,
            setup.cache,
            self.messages.append,
            workers=0,
            dense_cache=setup.dense_cache,
            sharers=sharers,
        )
        session.watch = watch
        home = setup.request.results  # on a node of a cluster ``results`` is a temporary folder
        self.desk = Desk(
            session, registry, results, setup.keep_states, setup.fresh, setup.join, setup.clock, home
        )
        self.desk.begins = begins
        self.plan = planner.make(replace(setup.request, results=results), registry)

    def load(self, key: str) -> None:
        """Load the backbone of a fit before its cells come."""
        for fit in self.plan.fits:
            if fit.key == key:
                with suppress(Exception):  # its cells meet it again, and record it
                    self.desk.session.backbone(fit.backbone)
                return

    def do(
        self,
        keys: frozenset[str],
        deadline: float | None,
        say: Callable[[Done], None],
        stop: float | None = None,
    ) -> None:
        """Do the cells with these fit keys. ``say`` is told of each as it ends, and of those recorded before.

        ``deadline`` and ``stop``: as in ``loop.run``. Raises BenchError if the plan lacks one of the cells.
        """
        check_plan(self.plan, keys)
        asked = [left(fit, self.fresh) for fit in self.plan.fits if fit.key in keys]
        todo = [t for t in asked if not t.done]
        before = [Ended(t.fit.key, label(t.fit)) for t in asked if t.done]
        self.desk.recorder.outcome = outcome = Outcome()

        def ended(*cells: Ended) -> None:
            say(Done([*cells], outcome.take(), list(self.messages)))
            self.messages.clear()

        plan = Plan([t.fit for t in todo], [])
        serial.run(self.desk, plan, todo, lambda cell, *_: ended(cell), deadline, stop)
        self.desk.session.watch(Now(""))
        ended(*before)


def check_plan(plan: Plan, keys: frozenset[str]) -> None:
    """Raise BenchError if a worker's plan lacks cells that the parent asks for.

    Then something in their keys has changed since the parent made its plan.
    """
    if lost := keys - {fit.key for fit in plan.fits}:
        raise BenchError(
            f"the keys of {counted(len(lost), 'cell')} have changed: "
            "a plugin or a dataset was changed during the run; run the same command again"
        )
