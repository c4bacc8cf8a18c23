"""The one place where image files are opened: a fixed list of formats, told by content and not by ending.

Pillow knows more formats. Some it hands to another program (EPS to Ghostscript, WMF and EMF to Windows), some
to whatever library registers for them (GRIB, HDF5, BUFR), and some are containers of documents or films (MIC,
FPX, MPEG). None of these is tried here, nor are icons, brushes and animations.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import BinaryIO

from PIL import Image

# In the order in which they are tried; IM and TGA bear no mark at their beginning. MPO comes with JPEG.
# fmt: off
FORMATS = (
    "PNG", "JPEG", "GIF", "BMP", "DIB", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000", "PSD", "QOI", "SGI", "SUN",
    "PCX", "DDS", "FITS", "IM", "TGA",
)
# fmt: on
_PREFIX = 16  # bytes by which Pillow tells formats


@lru_cache
def readable() -> tuple[str, ...]:
    """Those of ``FORMATS`` that the installed Pillow knows."""
    Image.init()  # loads Pillow's plugins; they register themselves
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)


def opened(file: BinaryIO, kinds: tuple[str, ...] = ()) -> Image.Image:
    """The image in an open file by its header. Nothing is decoded yet; ``file`` stays open until it is.

    ``kinds``: the formats that it may have, all of ``FORMATS`` where none is given. Raises
    UnidentifiedImageError for another format, and for a damaged file nearly everything there is.
    """
    return Image.open(file, formats=kinds or readable())


def foreign(file: BinaryIO) -> str:
    """The format, in Pillow's words, of a file that is not opened here; empty where its start tells none."""
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
