"""Who uses which feature sets of a store: advisory locks, which end with their process however it ends.

One empty file, ``.locks``, stands for all names: each has a byte of its own, far beyond the file's end.
Whoever reads or writes a set shares the lock on its byte; whoever deletes a set, or encodes, has it alone.
Nothing is left behind but that file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
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
_OFD = hasattr(fcntl, "F_OFD_SETLK")
_FLOCK = "hhqqi0q"  # struct flock
_FOR_OTHERS = stat.S_IWGRP | stat.S_IWOTH


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
                    self._let_others()
                    break
        return self.works and self._file is not None

    def _let_others(self) -> None:
        """Whoever may write into a store of several users may lock its names, whatever the umask says."""
        if self._file is not None and os.stat(self.root).st_mode & _FOR_OTHERS:
            with suppress(OSError):  # it is not ours
                os.fchmod(self._file, 0o666)

    def _give_back(self, name: str) -> None:
        if self._file is not None:
            self._set(name, "F_UNLCK")
            for shared in self._shared & {name} if name else self._shared:
                self._set(shared, "F_RDLCK")

    def _set(self, name: str, kind: str) -> bool:
        """Set the lock of a name; False where another process is in the way."""
        start, length = _bytes_of(name)
        assert self._file is not None
        try:
            if _OFD:
                # A lock of the open file. One of the process would end with any handle of the file.
                fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _lock(kind, start, length))
            else:
                how = {"F_RDLCK": fcntl.LOCK_SH, "F_WRLCK": fcntl.LOCK_EX, "F_UNLCK": fcntl.LOCK_UN}[kind]
                fcntl.lockf(self._file, how | fcntl.LOCK_NB, length, start)
        except OSError as error:
            if error.errno in _HELD:
                return False
            if error.errno == errno.EBADF and kind == "F_WRLCK":
                # The file is another user's and open for reading alone, which is enough to share. Sharing a
                # name that nobody has keeps those away who may have it alone.
                return not self._taken(start, length) and self._set(name, "F_RDLCK")
            self.works = False
        return True

    def _taken(self, start: int, length: int) -> bool:
        """Whether another process uses these bytes; where the system cannot be asked, no."""
        if not _OFD:
            return False
        assert self._file is not None
        try:
            found = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, _lock("F_WRLCK", start, length))
        except OSError:
            return False
        return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)


def _bytes_of(name: str) -> tuple[int, int]:
    """Where the byte of a name is, and 1; for no name all bytes, whose number is 0."""
    return (int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]), 1) if name else (0, 0)


def _lock(kind: str, start: int, length: int) -> bytes:
    return struct.pack(_FLOCK, getattr(fcntl, kind), os.SEEK_SET, start, length, 0)
