"""Make temporary folders for worker processes that may be killed at any moment.

A folder exists while its owner works. The owner holds a lock on it, which the system releases however the
process ends. So a folder without a lock was left by a dead process, and the next worker on that machine
removes it.
"""

from __future__ import annotations

import fcntl
import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def _prefix() -> str:
    """Return the beginning of the names of this machine's folders.

    It holds the machine's name, because machines that share a temporary folder may not see each other's
    locks.
    """
    return f"bench-ray-{platform.node()}-"


def path() -> Path:
    """Return a new path for a folder of this process, without making it."""
    return Path(tempfile.gettempdir(), _prefix() + secrets.token_hex(6))


@contextmanager
def own(folder: Path) -> Iterator[None]:
    """Make the empty folder ``folder``, lock it, and remove it when the block ends."""
    made = Path(tempfile.mkdtemp(dir=folder.parent))
    handle = os.open(made, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        made.rename(folder)  # after locking: no other process finds it unlocked under this name
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def clear() -> None:
    """Remove the folders that dead processes left on this machine."""
    for folder in Path(tempfile.gettempdir()).glob("bench-ray-*"):
        if not folder.name.startswith(_prefix()):
            continue
        with suppress(OSError):  # its owner lives, it is another user's, or it is already removed
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
