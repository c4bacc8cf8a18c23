"""Keep freed memory for the next training step instead of returning it to the system.

glibc requests each block of 32 MB or more from the system and returns it when it is freed. The system fills
new pages with zeros when they are first touched. Gradients and temporaries of large stacks live for one step,
so this may take half of the step's time. Example: twelve replicas of the embedded attention pool stay below
that size, and with sixteen a replica's step takes 1.6 times as long (measured).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

# Bytes of the largest tensor from which keeping is worth it, because temporaries may be a few times as large.
FROM = 16 << 20
# glibc's malloc.h: the names of mallopt's parameters.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
# The values at which glibc settles by itself once blocks of that size were freed.
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20}


@cache
def _library() -> Any:
    """Return the C library if it is glibc, else None."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


@contextmanager
def kept(largest: int) -> Iterator[None]:
    """Keep the memory that the block frees, and return it to the system at the end.

    Nothing changes if the ``largest`` tensor has fewer than ``FROM`` bytes.
    """
    library = _library() if largest >= FROM else None
    if library is None:
        yield
        return
    _set(library, _KEEP)
    try:
        yield
    finally:
        _set(library, _USUAL)
        library.malloc_trim(0)


def _set(library: Any, values: dict[int, int]) -> None:
    for name, value in values.items():
        library.mallopt(name, value)
