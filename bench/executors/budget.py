"""How a time budget ends what does not end by itself.

No cell starts after the budget's end. What still runs a grace later is stopped: by an alarm, which raises in
the main thread of the process that runs the loop, and through it by the end of the workers.
"""

from __future__ import annotations

import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE, SHARE = 30.0, 0.1  # seconds at least, and the share of the budget
LAST = 15.0  # seconds that what was stopped gets for its end
AGAIN, PATIENCE = 5.0, 2  # seconds between rings, and how many are let pass while the error is on its way


class OutOfTime(BaseException):
    """Raised in the main thread where the grace is over; no error of a cell, so that nothing records it."""


def grace(budget: float) -> float:
    """Seconds after the end of a budget of ``budget`` seconds in which a cell may still end."""
    return max(GRACE, SHARE * budget)


def ends(minutes: float | None, began: float) -> tuple[float | None, float | None]:
    """When no cell starts any more, and when what still runs is stopped, of a budget that ``began``.

    Both are times of time.monotonic; None: never.
    """
    if minutes is None:
        return None, None
    deadline = began + 60 * minutes
    return deadline, deadline + grace(60 * minutes)


class alarm:
    """Raise OutOfTime when ``stop`` (time.monotonic) comes while the block runs; None: never.

    It reaches Python code, and calls that the system interrupts; ``last_resort`` is for others. Outside of
    the main thread nothing is raised.

    A class, and no generator: what rings in its own functions raises nothing, so that the timer always ends
    with the block.
    """

    def __init__(self, stop: float | None) -> None:
        self.stop = stop if threading.current_thread() is threading.main_thread() else None
        self.over = False
        self.raised: Callable[[], OutOfTime | None] = lambda: None
        self.rings = 0  # while what was raised was on its way

    def __enter__(self) -> None:
        if self.stop is not None:
            self.before = signal.signal(signal.SIGALRM, self._ring)
            # Again and again: a method may swallow anything that is raised in it.
            signal.setitimer(signal.ITIMER_REAL, max(0.001, self.stop - time.monotonic()), AGAIN)

    def __exit__(self, *_: object) -> None:
        self.over = True
        if self.stop is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self.before)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if self.over or (frame and frame.f_code is alarm.__exit__.__code__):
            return
        if frame and frame.f_code is alarm.__enter__.__code__:  # the block has not begun
            signal.setitimer(signal.ITIMER_REAL, 0.01, AGAIN)
            return
        if self.raised() is not None and self.rings < PATIENCE:  # what puts things back is let finish
            self.rings += 1
            return
        error, self.rings = OutOfTime("it ran on after the time budget's end"), 0
        self.raised = weakref.ref(error)
        try:
            raise error
        finally:
            del error  # else this frame, which the error knows, would keep it alive


@contextmanager
def last_resort(stop: float | None, give_up: Callable[[], None]) -> Iterator[None]:
    """Call ``give_up`` in a thread where the block has not ended ``LAST`` seconds after ``stop``.

    It is for code of C that no alarm interrupts. Code that holds the interpreter's lock as well stops this
    thread too: only a worker process can be ended then.
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
