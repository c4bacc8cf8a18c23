"""Folders for worker processes that may be killed at any moment.

A folder exists while its owner works. The owner holds a lock on it, which the system drops however the
process ends. So a folder that nobody holds was left by a dead process, and the next worker on that machine
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

    It holds the machine's name: machines that share a temporary folder may not see each other's locks.
    """
    return f"bench-ray-{platform.node()}-"


def path() -> Path:
    """Return a name for a folder of this process; nothing is made yet."""
    return Path(tempfile.gettempdir(), _prefix() + secrets.token_hex(6))


@contextmanager
def own(folder: Path) -> Iterator[None]:
    """Make ``folder``, empty at first, for as long as the block runs."""
    made = Path(tempfile.mkdtemp(dir=folder.parent))
    handle = os.open(made, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        made.rename(folder)  # only now, so that nobody ever meets a folder of this name without its lock
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def clear() -> None:
    """Remove the folders that dead processes left on this machine."""
    for folder in Path(tempfile.gettempdir()).glob("bench-ray-*"):
        if not folder.name.startswith(_prefix()):
            continue
        with suppress(OSError):  # its owner lives, it is another user's, or it is gone by now
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
