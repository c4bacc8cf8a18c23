"""Signals that ask a command to end: Ctrl-C, SIGTERM of a scheduler, SIGHUP of a terminal that closes."""

from __future__ import annotations

import signal
import threading

from bench.cli import streams
from bench.cli.codes import Code

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def heed() -> None:
    """Let the first of them raise KeyboardInterrupt, and a second one meanwhile end the process at once.

    What the process was told to ignore, as by nohup, stays ignored.
    """
    heard: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        heard.append(number)
        if len(heard) > 1:
            streams.leave(Code.INTERRUPTED)
        raise KeyboardInterrupt

    _handle(interrupt)


def let_go() -> None:
    """Let them end the process without a word: nothing is left to do but to end."""
    _handle(signal.SIG_DFL)


def _handle(handler: signal._HANDLER) -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # of a program that calls a command: its signals are its own
    for number in _ENDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
