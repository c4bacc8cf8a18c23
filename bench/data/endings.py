"""Which file names in somebody's own folders are pictures: by the endings that Pillow reads."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import PurePosixPath

from PIL import Image

from bench.data.formats import FORMATS
from bench.data.imagefile import EXTENSIONS

# Pictures all the same: those among them that the installed Pillow does not read are said with the mend.
_FOREIGN = ".heic .heif .hif .avif .avifs .jxl .jxr .cr2 .cr3 .nef .arw .dng .orf .raf .rw2 .raw .svg .eps"
_ENDING = re.compile(r"\.(?=.*[a-z])[a-z0-9]{1,5}")


@lru_cache
def endings() -> frozenset[str]:
    """The endings, in lower case with their dot, that count as pictures here."""
    known = Image.registered_extensions()  # loads Pillow's plugins
    return EXTENSIONS | {ending for ending, kind in known.items() if kind in (*FORMATS, "MPO")}


def is_picture(name: str) -> bool:
    """Whether a visible file's name has the ending of a picture that can be read here."""
    return PurePosixPath(name).suffix.lower() in endings()


def why_not(name: str) -> str:
    """Why a file is no picture, by its name: its ending, or that it has none."""
    ending = PurePosixPath(name).suffix.lower()
    if ending in _FOREIGN.split():
        return f"{ending} (not readable here: convert to .jpg or .png)"
    if not ending:
        return "without an ending"
    return ending if _ENDING.fullmatch(ending) else "with an unknown ending"
