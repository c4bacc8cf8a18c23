"""Stop work that runs on after the time budget is spent.

No cell starts after the budget's end. A cell that still runs a grace later is stopped: by an alarm, which
raises in the main thread of the process that runs the loop, and through it by the end of the workers.
"""

from __future__ import annotations

import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE, SHARE = 30.0, 0.1  # the grace: at least so many seconds, or this share of the budget
LAST = 15.0  # seconds that stopped work gets to end
AGAIN, PATIENCE = 5.0, 2  # seconds between rings; rings that are ignored while the error is on its way


class OutOfTime(BaseException):
    """The error in the main thread when the grace is over. It is no Exception, so no cell records it."""


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
    """A block in which OutOfTime is raised when ``stop`` (time.monotonic) comes; None: never.

    The alarm reaches Python code, and calls that the system interrupts; ``last_resort`` is for others.
    Outside the main thread nothing is raised.

    It is a class and not a generator: an alarm that rings in the class's own functions raises nothing, so the
    timer always ends with the block.
    """

    def __init__(self, stop: float | None) -> None:
        self.stop = stop if threading.current_thread() is threading.main_thread() else None
        self.over = False
        self.raised: Callable[[], OutOfTime | None] = lambda: None
        self.rings = 0  # rings while the error was on its way

    def __enter__(self) -> None:
        if self.stop is not None:
            self.before = signal.signal(signal.SIGALRM, self._ring)
            # It rings again and again, because a method may swallow anything that is raised in it.
            signal.setitimer(signal.ITIMER_REAL, max(0.001, self.stop - time.monotonic()), AGAIN)

    def __exit__(self, *_: object) -> None:
        self.over = True
        if self.stop is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self.before)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        """Raise OutOfTime, unless the block has not begun, is over, or is already ending by one."""
        if self.over or (frame and frame.f_code is alarm.__exit__.__code__):
            return
        if frame and frame.f_code is alarm.__enter__.__code__:  # the block has not begun
            signal.setitimer(signal.ITIMER_REAL, 0.01, AGAIN)
            return
        if self.raised() is not None and self.rings < PATIENCE:  # cleaning up is allowed to finish
            self.rings += 1
            return
        error, self.rings = OutOfTime("it ran on after the time budget's end"), 0
        self.raised = weakref.ref(error)
        try:
            raise error
        finally:
            del error  # else this frame, to which the error refers, would keep it alive


@contextmanager
def last_resort(stop: float | None, give_up: Callable[[], None]) -> Iterator[None]:
    """Call ``give_up`` in a thread if the block has not ended ``LAST`` seconds after ``stop``.

    It is for C code that no alarm interrupts. C code that also holds the interpreter's lock stops this thread
    too; then only a worker process can be ended.
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
