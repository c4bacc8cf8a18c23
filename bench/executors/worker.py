"""Do portions of a plan inside a worker process, which has a plan and a desk of its own.

The worker makes its plan again from the command's request, so only the keys of cells travel between the
processes.
"""

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
    """What a worker needs to make the plan again and to do portions of it.

    ``clock``: the results folder's clock, as the parent read it. ``card``: the GPU on which the driver of a
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
    keep_logits: bool = False


class Worker:
    """A worker that makes the plan from the request and does the cells that it is asked for.

    Messages for the user are sent with the results. ``watch`` is called with what the worker is doing, in
    words. ``begins`` is called with the keys of cells before they begin. ``sharers``: how many processes use
    its device.
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
            keep_logits=setup.keep_logits,
        )
        session.watch = watch
        home = setup.request.results  # on a node of a cluster ``results`` is a temporary folder
        self.desk = Desk(
            session, registry, results, setup.keep_states, setup.fresh, setup.join, setup.clock, home
        )
        self.desk.begins = begins
        self.plan = planner.make(replace(setup.request, results=results), registry)

    def load(self, key: str) -> None:
        """Load the backbone of the fit with this key, so that its cells need not wait for it."""
        for fit in self.plan.fits:
            if fit.key == key:
                with suppress(Exception):  # its cells raise the error again, and record it
                    self.desk.session.backbone(fit.backbone)
                return

    def do(
        self,
        keys: frozenset[str],
        deadline: float | None,
        say: Callable[[Done], None],
        stop: float | None = None,
    ) -> None:
        """Do the cells with these fit keys.

        ``say`` is called with each cell as it ends, and at the end with the cells that were recorded before.
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

    A cell is lacking if something in its key has changed since the parent made its plan.
    """
    if lost := keys - {fit.key for fit in plan.fits}:
        raise BenchError(
            f"the keys of {counted(len(lost), 'cell')} have changed: "
            "a plugin or a dataset was changed during the run; run the same command again"
        )
