"""Decide by its ending whether a file in a user's own folders is a picture that can be read here.

The endings are those of the formats that Pillow reads.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import PurePosixPath

from PIL import Image

from bench.data.formats import FORMATS
from bench.data.imagefile import EXTENSIONS

# Endings of picture formats that are often not readable. For one that the installed Pillow does not read, the
# user is told to convert the file.
_FOREIGN = ".heic .heif .hif .avif .avifs .jxl .jxr .cr2 .cr3 .nef .arw .dng .orf .raf .rw2 .raw .svg .eps"
_ENDING = re.compile(r"\.(?=.*[a-z])[a-z0-9]{1,5}")


@lru_cache
def endings() -> frozenset[str]:
    """Return the endings that count as pictures here, in lower case with their dot."""
    known = Image.registered_extensions()  # loads Pillow's plugins
    return EXTENSIONS | {ending for ending, kind in known.items() if kind in (*FORMATS, "MPO")}


def is_picture(name: str) -> bool:
    """Return whether a visible file's name has the ending of a picture that can be read here."""
    return PurePosixPath(name).suffix.lower() in endings()


def why_not(name: str) -> str:
    """Say why a file is no picture, by its name: give its ending, or say that it has none."""
    ending = PurePosixPath(name).suffix.lower()
    if ending in _FOREIGN.split():
        return f"{ending} (not readable here: convert to .jpg or .png)"
    if not ending:
        return "without an ending"
    return ending if _ENDING.fullmatch(ending) else "with an unknown ending"
