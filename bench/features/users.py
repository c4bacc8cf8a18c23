"""Who uses which feature sets of a store: advisory locks, which end with their process however it ends.

One empty file, ``.locks``, stands for all names: each has a byte of its own, far beyond the file's end.
Whoever reads or writes a set shares the lock on its byte; whoever deletes a set, or encodes, has it alone.
Nothing is left behind but that file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FILE = ".locks"
_PAUSE = 0.1  # seconds between two looks at a lock that another process holds
_HELD = (errno.EACCES, errno.EAGAIN)


class Users:
    """The locks of one store in this process. Where its file system has none, everybody goes on without."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.works = fcntl is not None
        self._file: int | None = None
        self._shared: set[str] = set()

    def share(self, name: str) -> None:
        """Use ``name`` from now on, until ``close``; waits while another process has it alone."""
        while name not in self._shared and self._open():
            if self._set(name, "F_RDLCK"):
                self._shared.add(name)
                return
            time.sleep(_PAUSE)

    @contextmanager
    def alone(self, name: str, waits: Callable[[], None]) -> Iterator[None]:
        """Have ``name`` alone inside the block; ``waits`` is called once if another process has it now."""
        told = False
        while self._open() and not self._set(name, "F_WRLCK"):
            if not told:
                waits()
            told = True
            time.sleep(_PAUSE)
        try:
            yield
        finally:
            self._give_back(name)

    @contextmanager
    def unused(self, name: str) -> Iterator[bool]:
        """Whether no other process uses ``name``; inside the block none begins to. Empty: any name."""
        free = not self._open() or self._set(name, "F_WRLCK")
        try:
            yield free
        finally:
            if free:
                self._give_back(name)

    def close(self) -> None:
        """Let go of everything."""
        self._shared.clear()
        if self._file is not None:
            self._end()
            self._file = None

    def _open(self) -> bool:
        """Whether there are locks; without a store there are none yet, and nothing to hold either."""
        if self._file is None and self.works and self.root.is_dir():
            for how in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):  # sharing works in a folder that is read-only
                with suppress(OSError):
                    self._file = os.open(self.root / FILE, how | os.O_CLOEXEC, 0o666)
                    self._end = weakref.finalize(self, os.close, self._file)
                    break
        return self.works and self._file is not None

    def _give_back(self, name: str) -> None:
        if self._file is not None:
            self._set(name, "F_UNLCK")
            for shared in self._shared & {name} if name else self._shared:
                self._set(shared, "F_RDLCK")

    def _set(self, name: str, kind: str) -> bool:
        """Set the lock of a name; False where another process is in the way."""
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]) if name else 0
        length = int(bool(name))  # 0: all bytes
        assert self._file is not None
        try:
            if hasattr(fcntl, "F_OFD_SETLK"):
                # A lock of the open file. One of the process would end with any handle of the file.
                lock = struct.pack("hhqqi0q", getattr(fcntl, kind), os.SEEK_SET, start, length, 0)
                fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, lock)
            else:
                how = {"F_RDLCK": fcntl.LOCK_SH, "F_WRLCK": fcntl.LOCK_EX, "F_UNLCK": fcntl.LOCK_UN}[kind]
                fcntl.lockf(self._file, how | fcntl.LOCK_NB, length, start)
        except OSError as error:
            if error.errno in _HELD:
                return False
            self.works = False
        return True
