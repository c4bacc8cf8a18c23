"""Run the cells that are left in a plan: the second half of ``bench run``, which loads torch."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.cli import streams
from bench.cli.codes import Code

if TYPE_CHECKING:
    from bench.cli.progress import Board
    from bench.cli.run_way import How, Work
    from bench.run.desk import Desk


def do(work: Work, how: How) -> Code:
    """Run the cells that are left, print the outcome, and return the exit code."""
    from bench.cli import plan_view, run_way
    from bench.cli.pace import Pace
    from bench.cli.progress import Board
    from bench.executors import budget
    from bench.plan import why
    from bench.run.outcome import Now

    stop = how.stop
    if (
        how.deadline is not None and time.monotonic() > how.deadline
    ):  # planning took all the time, so no cell starts
        stop = time.monotonic() + budget.LAST
    with Board(len(work.todo), Pace(work.guesses, work.expected), deadline=how.deadline) as board:
        board.watch(Now("loading PyTorch"))
        from bench.executors import loop

        desk = _desk(work, how, board)
        before = why.before(work.plan, work.earlier, how.anew)
        try:
            way, at_a_time = run_way.of(desk, work, replace(how, stop=stop), board)
            with budget.last_resort(stop, lambda: _give_up(desk, board)):
                outcome = loop.run(
                    desk,
                    work.plan,
                    work.todo,
                    way,
                    board.advance,
                    how.deadline,
                    lambda n: board.pace.begin(n, at_a_time),
                    stop,
                )
        except KeyboardInterrupt:
            board.say("bench: interrupted; what was finished is kept, and the same command goes on from here")
            return Code.INTERRUPTED
        finally:
            desk.session.close()
    return plan_view.show_outcome(outcome, before, work.plan)


def _desk(work: Work, how: How, board: Board) -> Desk:
    """Return the desk of this process, after clearing away what processes that died left in both folders."""
    from bench.records import store
    from bench.run.desk import Desk
    from bench.run.session import Session

    results = work.request.results
    session = Session(
        how.device, how.cache, board.say, how.workers, how.dense_cache, keep_logits=how.keep_logits
    )
    session.watch = board.watch
    join = session.device.startswith("cuda") if how.join is None else how.join
    session.store.tidy()
    store.tidy(results)
    clock = store.Clock.of(results, work.earlier.last)
    return Desk(session, work.registry, results, how.keep_states, how.anew, join, clock)


def _give_up(desk: Desk, board: Board) -> None:
    """End this process, and with it its children, because nothing else stops the cell that it runs."""
    from bench.plan.cells import label

    for t in desk.at:
        desk.recorder.stopped(t.fit)
    at = ", ".join(label(t.fit) for t in desk.at) or "something"
    board.say(
        f"bench: {at} cannot be stopped after the time budget's end, so the process ends here; "
        "what was finished is kept, and the same command goes on from here"
    )
    streams.leave(Code.INCOMPLETE)
