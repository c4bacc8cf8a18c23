"""Open image files of a fixed list of formats. No other module opens an image file.

The content of a file decides on its format, and its ending does not. Pillow knows more formats than the list
has. It passes some to another program (EPS to Ghostscript, WMF and EMF to Windows), and others to whatever
library registers for them (GRIB, HDF5, BUFR); some are containers of documents or films (MIC, FPX, MPEG).
None of these is tried here, nor are icons, brushes and animations.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import BinaryIO

from PIL import Image

# Formats in the order in which they are tried. IM and TGA come last because their files begin with no mark.
# Pillow's JPEG reader also covers MPO.
# fmt: off
FORMATS = (
    "PNG", "JPEG", "GIF", "BMP", "DIB", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000", "PSD", "QOI", "SGI", "SUN",
    "PCX", "DDS", "FITS", "IM", "TGA",
)
# fmt: on
_PREFIX = 16  # first bytes of a file, by which Pillow recognises its format


@lru_cache
def readable() -> tuple[str, ...]:
    """Return the formats of ``FORMATS`` that the installed Pillow knows."""
    Image.init()  # loads Pillow's plugins; they register themselves
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)


def opened(file: BinaryIO, kinds: tuple[str, ...] = ()) -> Image.Image:
    """Open the image in an open file by reading its header only.

    Nothing is decoded yet, so ``file`` must stay open until it is. ``kinds`` are the formats that it may
    have; empty stands for all of ``FORMATS``. Raises UnidentifiedImageError for another format. For a damaged
    file almost any exception can be raised.
    """
    return Image.open(file, formats=kinds or readable())


def foreign(file: BinaryIO) -> str:
    """Return the format, in Pillow's words, of a file that is not opened here.

    The result is empty if the file's beginning matches no such format.
    """
    file.seek(0)
    prefix = file.read(_PREFIX)
    Image.init()
    for kind, (_, accept) in Image.OPEN.items():
        try:
            if kind not in FORMATS and accept and accept(prefix) is True:
                return kind
        except (IndexError, ValueError, struct.error):  # the file is shorter than the mark
            continue
    return ""
