"""Child processes that end when their parent ends, in whatever way, and that leave nothing behind.

A child and its parent talk through a pair of sockets. There is no queue, lock or shared memory, because a
killed process would leave its name in the system. This module knows nothing of what the children do; it
imports nothing of bench.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

_PARENTS = (signal.SIGINT, signal.SIGHUP)  # a terminal sends them to all processes; only the parent acts
_LOOK = 1.0  # seconds between two checks whether a silent child is alive
_REAP = 5.0  # seconds until a child that has closed its connection must have ended
_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # a container's share (cgroup v2): "quota period" in microseconds


def cores() -> int:
    """Return how many processors this process may use, by its affinity and by its container's share."""
    some = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # there is no such file, or no quota is set ("max")
        quota, period = map(int, _QUOTA.read_text().split())
        some = min(some, max(1, quota // max(1, period)))
    return some


class Died(Exception):
    """The error for a child that ended without an answer.

    ``code``: its exit code, or the negative number of the signal that ended it.
    """

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code

    def __str__(self) -> str:
        if self.code is None or self.code >= 0:
            return f"exit code {self.code}"
        with suppress(ValueError):
            name = signal.Signals(-self.code).name
            return f"{name}: out of memory?" if name == "SIGKILL" else name
        return f"signal {-self.code}"


class Child:
    """A process that runs ``target(connection, *arguments)``, with the parent's end of the connection.

    A child is a new interpreter, because threads and a CUDA context of the parent would not survive a fork.
    ``target`` and the arguments are therefore sent pickled.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        self.line: Connection[Any, Any] = here
        self.process = context.Process(target=_begin, args=(there, target, arguments))
        resource_tracker.ensure_running()  # now, because its start unblocks signals
        try:
            with _blocked():
                self.process.start()
        except BaseException:  # a signal that was blocked arrives here
            if self.process.pid:
                self.end()
            raise
        there.close()

    def send(self, what: Any) -> None:
        """Send something to the child. If the child is dead, the next ``recv`` raises Died."""
        with suppress(OSError):
            self.line.send(what)

    def recv(self) -> Any:
        """Return what the child sends next. Raises Died if it has ended."""
        with self._living():
            self._wait()
            return self.line.recv()

    def read_into(self, buffer: memoryview) -> None:
        """Fill ``buffer`` (unsigned bytes) with what the child sends by ``send_bytes``, or raise Died.

        It is for large arrays, which pickling would copy several times at both ends.
        """
        with self._living():
            while buffer:
                self._wait()
                count = os.readv(self.line.fileno(), [buffer])
                if not count:
                    raise EOFError
                buffer = buffer[count:]

    def end(self) -> None:
        """Kill the child and wait until it has ended."""
        self.process.kill()
        self.process.join()

    def _wait(self) -> None:
        """Wait until there is something to read. Raises EOFError if the child has ended.

        The connection alone does not tell, because a process that the child started may hold it open.
        """
        while not self.line.poll(_LOOK):
            if self.process.exitcode is not None and not self.line.poll():
                raise EOFError

    @contextmanager
    def _living(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError):
            self.process.join(_REAP)
            self.end()
            raise Died(self.process.exitcode) from None


def send_bytes(line: Connection[Any, Any], buffer: memoryview) -> None:
    """Send ``buffer`` (unsigned bytes) to the parent, which knows its length (``Child.read_into``)."""
    while buffer:
        buffer = buffer[os.write(line.fileno(), buffer) :]


def portable(error: Exception) -> Exception:
    """Return an error that can be sent to another process, with its traceback as a note."""
    try:
        sent: Exception = ForkingPickler.loads(ForkingPickler.dumps(error))  # as the connection would
    except Exception:  # an exception class may do anything when it is copied
        sent = RuntimeError(f"{type(error).__name__}: {error}")
    sent.add_note("in a child process:\n" + "".join(traceback.format_exception(error)))
    return sent


@contextmanager
def _blocked() -> Iterator[None]:
    """Block the signals that only the parent handles; a child that starts inside blocks them too."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PARENTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(line: Connection[Any, Any], target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    for number in _PARENTS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PARENTS)
    _end_with_parent()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has closed the connection
        target(line, *arguments)


def _end_with_parent() -> None:
    """End this process when its parent ends: the system then closes a pipe between them.

    A thread watches the pipe. It cannot run while C code holds the interpreter's lock; in that case the
    system's signal for the pipe, SIGIO, ends the process.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    pipe = parent.sentinel
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)

    def look() -> None:
        wait([pipe])
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
