"""How many pixels an image may have before it is refused: what decoding costs, and what the machine has."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from bench.errors import BenchError

_BYTES = 12  # of memory for a pixel at its peak: decoded, composed and converted, four bytes each
_SHARE = 2  # decoding may take one half of the memory, if every worker meets such an image at once
_LEAST = 178_956_970  # what Pillow itself opens, so what was always opened still is
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def parsed(text: str) -> int:
    """``500M`` or ``500000000`` as a number of pixels. Raises BenchError naming the option."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)", text.strip().upper())
    if not match or float(match[1]) == 0:
        raise BenchError(f"--max-pixels {text}: write a number of pixels, such as 500M (million) or 2G")
    return max(1, int(float(match[1]) * _UNITS[match[2]]))


def said(pixels: int) -> str:
    """A number of pixels for people."""
    return f"{pixels / 1e6:,.1f} million" if pixels >= 10**6 else f"{pixels:,}"


@lru_cache
def usual(workers: int | None = None) -> int:
    """The limit where none is given, by the machine's memory and how many images are decoded at a time.

    ``workers``: processes that decode; None for as many as the cores allow.
    """
    return max(_LEAST, _memory() // (_SHARE * _BYTES * (workers or _most_workers())))


def _most_workers() -> int:
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _memory() -> int:
    """Bytes of memory that this process may use: the machine's, or less where its control groups say so."""
    if not hasattr(os, "sysconf"):
        return 0
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_group_limits()])


def _group_limits(system: Path = Path("/")) -> Iterator[int]:
    """The memory limits of this process's control groups and of all groups around them: of a container, a
    batch job, a service. Inside a container the groups' paths may be those outside; its own is the topmost.
    """
    for line in _text(system / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        tree, name = ("memory", "memory.limit_in_bytes") if controllers else ("", "memory.max")
        own = PurePosixPath(path.lstrip("/"))
        for group in (own, *own.parents):
            text = _text(system / "sys/fs/cgroup" / tree / group / name).strip()
            if text.isdecimal():
                yield int(text)


def _text(file: Path) -> str:
    """Empty for a file that is not there or not for this user: then it tells of no limit."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
