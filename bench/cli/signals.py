"""Heed signals that ask a command to end: Ctrl-C, a scheduler's SIGTERM, a closing terminal's SIGHUP."""

from __future__ import annotations

import signal
import threading

from bench.cli import streams
from bench.cli.codes import Code

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def heed() -> None:
    """Let the first such signal raise KeyboardInterrupt, and a second one end the process at once.

    A signal that the process was told to ignore, for example by nohup, stays ignored.
    """
    heard: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        heard.append(number)
        if len(heard) > 1:
            streams.leave(Code.INTERRUPTED)
        raise KeyboardInterrupt

    _handle(interrupt)


def let_go() -> None:
    """Let these signals end the process silently from now on, because no work is left."""
    _handle(signal.SIG_DFL)


def _handle(handler: signal._HANDLER) -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # a program that calls a command in a thread handles its signals itself
    for number in _ENDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
