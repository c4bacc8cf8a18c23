"""Child processes that end with their parent, however it ends, and that leave nothing behind.

A child and its parent speak through a pair of sockets. There is no queue, lock or shared memory, whose name
a killed process would leave to the system.
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

_PARENTS = (signal.SIGINT, signal.SIGHUP)  # a terminal sends them to all; the parent decides what they mean
_LOOK = 1.0  # seconds between looks whether a silent child lives
_REAP = 5.0  # seconds for a child that has closed its end to end
_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container (cgroup v2): microseconds, and of how many


def cores() -> int:
    """How many processors this process may use: those it may run on, or what its container gives of them."""
    some = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no quota is there, or none is set ("max")
        quota, period = map(int, _QUOTA.read_text().split())
        some = min(some, max(1, quota // max(1, period)))
    return some


class Died(Exception):
    """A child ended without an answer. ``code``: its exit code, or the negative number of a signal."""

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
    """A process that runs ``target(connection, *arguments)``, and its parent's end of the connection.

    ``target`` and the arguments are sent pickled: a child is a new interpreter, because the parent may hold
    threads and a CUDA context, which do not survive a fork.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        self.line: Connection[Any, Any] = here
        self.process = context.Process(target=_begin, args=(there, target, arguments))
        resource_tracker.ensure_running()  # multiprocessing's own helper; its start lets all signals through
        try:
            with _blocked():
                self.process.start()
        except BaseException:  # a signal that was held back
            if self.process.pid:
                self.end()
            raise
        there.close()

    def send(self, what: Any) -> None:
        """Send something. That the child is dead is what the next ``recv`` says."""
        with suppress(OSError):
            self.line.send(what)

    def recv(self) -> Any:
        """What the child says next. Raises Died when it has ended instead."""
        with self._living():
            self._wait()
            return self.line.recv()

    def read_into(self, buffer: memoryview) -> None:
        """Fill ``buffer`` (unsigned bytes) with what the child sends by ``send_bytes``. Raises Died as above.

        Large arrays go this way: a pickled one is copied several times at either end.
        """
        with self._living():
            while buffer:
                self._wait()
                count = os.readv(self.line.fileno(), [buffer])
                if not count:
                    raise EOFError
                buffer = buffer[count:]

    def end(self) -> None:
        """End the child at once."""
        self.process.kill()
        self.process.join()

    def _wait(self) -> None:
        """Until there is something to read; a process of the child's own may hold the child's end open."""
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
    """Send ``buffer`` (unsigned bytes) to the parent, which knows its length and reads it into its own."""
    while buffer:
        buffer = buffer[os.write(line.fileno(), buffer) :]


def portable(error: Exception) -> Exception:
    """An error as it can be sent to another process, with its traceback as a note."""
    try:
        sent: Exception = ForkingPickler.loads(ForkingPickler.dumps(error))  # as the connection does
    except Exception:  # an exception class may do anything when it is copied
        sent = RuntimeError(f"{type(error).__name__}: {error}")
    sent.add_note("in a child process:\n" + "".join(traceback.format_exception(error)))
    return sent


@contextmanager
def _blocked() -> Iterator[None]:
    """Hold back what is the parent's to handle: a child that begins inside does not hear it either."""
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
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent needs no more
        target(line, *arguments)


def _end_with_parent() -> None:
    """End this process when its parent ends, by the pipe that the system closes then.

    A thread looks at the pipe. Where code of C holds the interpreter's lock the thread cannot run: there the
    system's own signal for the pipe, SIGIO, ends the process.
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
