"""Stop work that still runs after the time budget is spent.

No cell starts after the budget's end. A cell that still runs a grace period later is stopped: an alarm raises
``OutOfTime`` in the main thread of the process that runs the loop, and the loop then ends its workers.
"""

from __future__ import annotations

import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE, SHARE = 30.0, 0.1  # the grace period: the larger of these seconds and this share of the budget
LAST = 15.0  # seconds that stopped work gets to end
AGAIN, PATIENCE = 5.0, 2  # seconds between alarms; alarms that are ignored while an earlier error is handled


class OutOfTime(BaseException):
    """The error in the main thread when the grace period is over.

    It does not derive from Exception, so no cell catches it and records it as its failure.
    """


def grace(budget: float) -> float:
    """Return the seconds after the end of a budget of ``budget`` seconds in which a cell may still end."""
    return max(GRACE, SHARE * budget)


def ends(minutes: float | None, began: float) -> tuple[float | None, float | None]:
    """Return the time after which no cell starts, and the time when cells that still run are stopped.

    The budget of ``minutes`` began at ``began``. All are times of time.monotonic; None means never.
    """
    if minutes is None:
        return None, None
    deadline = began + 60 * minutes
    return deadline, deadline + grace(60 * minutes)


class alarm:
    """A block in which OutOfTime is raised at the time ``stop`` (time.monotonic; None: never).

    The alarm reaches Python code and system calls that a signal interrupts. For other code there is
    ``last_resort``. Outside the main thread nothing is raised.

    This is a class and not a generator, because an alarm that rings inside the class's own functions can then
    be told apart and raises nothing. So the timer always ends with the block.
    """

    def __init__(self, stop: float | None) -> None:
        self.stop = stop if threading.current_thread() is threading.main_thread() else None
        self.over = False
        self.raised: Callable[[], OutOfTime | None] = lambda: None
        self.rings = 0  # alarms that rang while the last error was handled

    def __enter__(self) -> None:
        if self.stop is not None:
            self.before = signal.signal(signal.SIGALRM, self._ring)
            # The alarm repeats, because a method may swallow any error that is raised in it.
            signal.setitimer(signal.ITIMER_REAL, max(0.001, self.stop - time.monotonic()), AGAIN)

    def __exit__(self, *_: object) -> None:
        self.over = True
        if self.stop is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self.before)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        """Raise OutOfTime if the block has begun, is not over, and does not handle an earlier OutOfTime."""
        if self.over or (frame and frame.f_code is alarm.__exit__.__code__):
            return
        if frame and frame.f_code is alarm.__enter__.__code__:  # the block has not begun
            signal.setitimer(signal.ITIMER_REAL, 0.01, AGAIN)
            return
        if self.raised() is not None and self.rings < PATIENCE:  # let cleaning up finish
            self.rings += 1
            return
        error, self.rings = OutOfTime("it ran on after the time budget's end"), 0
        self.raised = weakref.ref(error)
        try:
            raise error
        finally:
            del error  # the error refers to this frame, so the variable would keep it alive


@contextmanager
def last_resort(stop: float | None, give_up: Callable[[], None]) -> Iterator[None]:
    """Call ``give_up`` in a thread if the block has not ended ``LAST`` seconds after ``stop``.

    This is for C code that no alarm interrupts. C code that also holds the interpreter's lock blocks this
    thread too. Then only a worker process can be ended, by its parent.
    """
    if stop is None:
        yield
        return
    timer = threading.Timer(max(0.0, stop + LAST - time.monotonic()), give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
