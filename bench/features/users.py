"""Record which feature sets of a store are in use, by advisory locks, which end with their process.

One empty file, ``.locks``, serves all names: each name has a byte of its own, far beyond the file's end.
Whoever reads or writes a set shares the lock on its byte. Whoever deletes a set, or encodes, has the lock
alone. Nothing is left behind but that file.
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
_PAUSE = 0.1  # seconds between two attempts at a lock that another process holds
_HELD = (errno.EACCES, errno.EAGAIN)
_OFD = hasattr(fcntl, "F_OFD_SETLK")
_FLOCK = "hhqqi0q"  # struct flock
_FOR_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Users:
    """The locks of one store in this process.

    On a file system without locks all processes go on without them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.works = fcntl is not None
        self._file: int | None = None
        self._shared: set[str] = set()

    def share(self, name: str) -> None:
        """Use ``name`` from now on until ``close``. Wait while another process has it alone."""
        while name not in self._shared and self._open():
            if self._set(name, "F_RDLCK"):
                self._shared.add(name)
                return
            time.sleep(_PAUSE)

    @contextmanager
    def alone(self, name: str, waits: Callable[[], None]) -> Iterator[None]:
        """Have ``name`` alone inside the block. ``waits`` is called once if another process uses it now."""
        told = False
        while self._open() and not self._set(name, "F_WRLCK"):
            if not told:
                waits()
            told = True
            time.sleep(_PAUSE)
        try:
            yield
        finally:
            self._release(name)

    @contextmanager
    def unused(self, name: str) -> Iterator[bool]:
        """Yield whether no other process uses ``name``; if so, none can begin to inside the block.

        The empty name stands for all names.
        """
        free = not self._open() or self._set(name, "F_WRLCK")
        try:
            yield free
        finally:
            if free:
                self._release(name)

    def close(self) -> None:
        """Close the file of locks, which releases all of them."""
        self._shared.clear()
        if self._file is not None:
            self._end()
            self._file = None

    def _open(self) -> bool:
        """Return whether there are locks.

        Without a store there are none yet, and nothing to protect either.
        """
        if self._file is None and self.works and self.root.is_dir():
            # In a read-only folder locks can still be shared.
            for how in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
                with suppress(OSError):
                    self._file = os.open(self.root / FILE, how | os.O_CLOEXEC, 0o666)
                    self._end = weakref.finalize(self, os.close, self._file)
                    self._let_others_lock()
                    break
        return self.works and self._file is not None

    def _let_others_lock(self) -> None:
        """Let everybody who may write into the store lock its names, whatever the umask says."""
        if self._file is not None and os.stat(self.root).st_mode & _FOR_OTHERS:
            with suppress(OSError):  # fails if the file is another user's
                os.fchmod(self._file, 0o666)

    def _release(self, name: str) -> None:
        """Release the lock of a name, or of all names, and take the shared locks on them again."""
        if self._file is not None:
            self._set(name, "F_UNLCK")
            for shared in self._shared & {name} if name else self._shared:
                self._set(shared, "F_RDLCK")

    def _set(self, name: str, kind: str) -> bool:
        """Set the lock of a name. Return False if another process is in the way."""
        start, length = _bytes_of(name)
        assert self._file is not None
        try:
            if _OFD:
                # This lock belongs to the open file. A lock of the process would end as soon as any handle of
                # the file is closed.
                fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _lock(kind, start, length))
            else:
                how = {"F_RDLCK": fcntl.LOCK_SH, "F_WRLCK": fcntl.LOCK_EX, "F_UNLCK": fcntl.LOCK_UN}[kind]
                fcntl.lockf(self._file, how | fcntl.LOCK_NB, length, start)
        except OSError as error:
            if error.errno in _HELD:
                return False
            if error.errno == errno.EBADF and kind == "F_WRLCK":
                # The file is another user's and open for reading only, so its locks can only be shared.
                # Sharing a name that nobody uses still keeps away everybody who wants it alone.
                return not self._taken(start, length) and self._set(name, "F_RDLCK")
            self.works = False
        return True

    def _taken(self, start: int, length: int) -> bool:
        """Return whether another process uses these bytes; False if the system cannot tell."""
        if not _OFD:
            return False
        assert self._file is not None
        try:
            found = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, _lock("F_WRLCK", start, length))
        except OSError:
            return False
        return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)


def _bytes_of(name: str) -> tuple[int, int]:
    """Return the position of a name's byte, and the length 1.

    For the empty name it is all bytes, given by length 0.
    """
    return (int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]), 1) if name else (0, 0)


def _lock(kind: str, start: int, length: int) -> bytes:
    return struct.pack(_FLOCK, getattr(fcntl, kind), os.SEEK_SET, start, length, 0)
