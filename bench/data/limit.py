"""Refuse images that would take too much memory or time to decode.

The limit is a number of pixels: that of ``--max-pixels``, or else one that follows from the machine's memory.
Decoding an image takes at most 12 bytes of memory per pixel at its peak, and 20 MB in addition. For WebP,
AVIF, JPEG 2000 and FITS it takes 24 bytes, so their pixels count twice. Without ``--max-pixels`` a small file
that claims to be a huge image is refused too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from PIL import Image

from bench.errors import BenchError, UnsuitableImage

_BYTES = 12  # bytes of memory per pixel at the peak: decoded, composed and converted, four bytes each
_TWICE = frozenset({"WEBP", "AVIF", "JPEG2000", "FITS"})  # their decoders hold the whole picture once more
_SHARE = 2  # decoding may take one half of the memory, even if all workers decode such an image at once
_LEAST = 89_478_485  # pixels that Pillow itself opens without a warning
_DENSE = 200  # pixels per byte of a file; photographs have 2 to 50, blank pages thousands
_SCANS = 100  # scans of a progressive JPEG, which normally has about ten; each is a pass over all its pixels
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def parsed(text: str) -> int:
    """Return the number of pixels in a text such as ``500M`` or ``500000000``.

    Raises BenchError, which names the option, for any other text.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)", text.strip().upper())
    if not match or float(match[1]) == 0:
        raise BenchError(f"--max-pixels {text}: write a number of pixels, such as 500M (million) or 2G")
    return max(1, int(float(match[1]) * _UNITS[match[2]]))


def in_words(pixels: int) -> str:
    """Write a number of pixels for people: ``12.5 million``."""
    return f"{pixels / 1e6:,.1f} million" if pixels >= 10**6 else f"{pixels:,}"


def check_bytes(file: BinaryIO, most: int) -> None:
    """Refuse a file that is larger than the memory of ``most`` pixels.

    Some decoders read a file whole. Raises UnsuitableImage, whose text does not contain the file's name.
    """
    size = os.fstat(file.fileno()).st_size
    if size > most * _BYTES + 10**6:
        raise UnsuitableImage(
            f"the file has {size / 1e6:,.0f} MB, which is more memory than {in_words(most)} pixels take, "
            "the limit of --max-pixels: make the image smaller"
        )


def check(image: Image.Image, file: BinaryIO, most: int | None, usual: int) -> None:
    """Refuse an open image by its header, before anything is decoded.

    ``most`` is the number of pixels that the user allowed, or None; ``usual`` is the number that is allowed
    then. Raises UnsuitableImage, whose text does not contain the file's name.
    """
    count = image.width * image.height
    counted = 2 * count if image.format in _TWICE else count
    what = f"{image.width} x {image.height} px are {in_words(count)} pixels"
    if counted > count:
        what += f", and those of {image.format} count twice"
    allow = f"give `bench run` and `bench data verify` --max-pixels {-(-counted // 10**6)}M"
    if counted > (usual if most is None else most):
        raise UnsuitableImage(
            f"{what}, --max-pixels allows {in_words(usual if most is None else most)}: "
            f"make the image smaller, or {allow}"
        )
    size = os.fstat(file.fileno()).st_size
    if most is None and counted > max(_LEAST, _DENSE * size):
        raise UnsuitableImage(
            f"{what} in a file of only {size:,} bytes: make the image smaller, or, if it really is that "
            f"large, {allow}"
        )
    if image.info.get("progressive") and (scans := _scans(file)) > _SCANS:
        raise UnsuitableImage(
            f"a progressive JPEG of {scans:,} scans, at most {_SCANS} are decoded: save it as a JPEG that is "
            "not progressive"
        )


def _scans(file: BinaryIO) -> int:
    """Return the number of scans of a JPEG file.

    Each scan begins with the bytes FF DA, which cannot occur inside the data of a scan.
    """
    place = file.tell()
    file.seek(0)
    try:
        return file.read().count(b"\xff\xda")
    finally:
        file.seek(place)


@lru_cache
def usual() -> int:
    """Return the limit for a run without ``--max-pixels``.

    It follows from this machine's memory and from the number of processes that decode at the same time.
    """
    return max(_LEAST, _memory() // (_SHARE * _BYTES * _most_workers()))


def _most_workers() -> int:
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _memory() -> int:
    """Return how many bytes of memory this process may use.

    It is the machine's memory, or less if a control group or `ulimit -v` sets a lower limit.
    """
    if not hasattr(os, "sysconf"):
        return 0
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_group_limits(), *_own_limit()])


def _own_limit() -> Iterator[int]:
    """Yield the limit that `ulimit -v` set for this process, in bytes, if there is one."""
    import resource  # not every system has it, but those with sysconf do

    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        yield most


def _group_limits(system: Path = Path("/")) -> Iterator[int]:
    """Yield the memory limits, in bytes, of this process's control groups and of all groups around them.

    A container, a batch job or a service is such a group. Inside a container, the paths of groups may be
    those that the outside sees; then only the topmost group is found, and it is the container's own.
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
    """Return a file's text.

    A file that is absent, or that this user may not read, has no text and sets no limit.
    """
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
