"""How a time budget ends what does not end by itself.

No cell starts after the budget's end. What still runs a grace later is stopped: by an alarm, which raises in
the main thread of the process that runs the loop, and through it by the end of the workers.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

GRACE, SHARE = 30.0, 0.1  # seconds at least, and the share of the budget
LAST = 15.0  # seconds that what was stopped gets for its end


class OutOfTime(BaseException):
    """Raised in the main thread where the grace is over; no error of a cell, so that nothing records it."""


def grace(budget: float) -> float:
    """Seconds after the end of a budget of ``budget`` seconds in which a cell may still end."""
    return max(GRACE, SHARE * budget)


@contextmanager
def alarm(stop: float | None) -> Iterator[None]:
    """Raise OutOfTime when ``stop`` (time.monotonic) comes while the block runs; None: never.

    It reaches Python code, and calls that the system interrupts; ``last_resort`` is for others. Outside of
    the main thread nothing is raised.
    """
    if stop is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    over = False

    def ring(number: int, frame: object) -> None:
        if not over:
            raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    try:
        # Again and again: a method may swallow anything that is raised in it.
        signal.setitimer(signal.ITIMER_REAL, max(0.001, stop - time.monotonic()), 5.0)
        yield
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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
