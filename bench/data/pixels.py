"""People's own images as RGB: deep values scaled, transparency on a background, turned as their EXIF says."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bench.data.opening import Opening
from bench.errors import UnsuitableImage

_STRIP = 1 << 20  # pixels of a deep image that are scaled at a time
_ORIENTATION, _BITS, _PHOTOMETRIC, _SAMPLE = 0x0112, 258, 262, 339  # tags of EXIF and TIFF
_UNSIGNED = 1  # of the tag of sample formats
_DARK = 15  # a white that leaves the whole image below 1/15 of it is as likely the wrong one: 12 bits of 16
_DEEP_COLOURS = re.compile(r"(RGB|LA).*;16", re.IGNORECASE)  # raw modes that Pillow cuts to 8 bits
_FEW_BITS = {"L;2": 85, "L;4": 17}  # Pillow scales such greys to 0..255, but not the transparent one of them
_T = Image.Transpose
_TURNS = {
    2: _T.FLIP_LEFT_RIGHT,
    3: _T.ROTATE_180,
    4: _T.FLIP_TOP_BOTTOM,
    5: _T.TRANSPOSE,
    6: _T.ROTATE_270,
    7: _T.TRANSVERSE,
    8: _T.ROTATE_90,
}


@dataclass(frozen=True)
class _Depth:
    """Values beyond 8 bits. ``whites``: what white may be, ascending. ``unsigned``: 32 bits without a sign.

    ``inverted``: 0 is white.
    """

    whites: tuple[float, ...]
    unsigned: bool = False
    inverted: bool = False


def to_rgb(image: Image.Image, opening: Opening) -> Image.Image:
    """The first picture of an open file as RGB.

    16-bit values are scaled so that 65535 is 255 (another largest value where the file states fewer bits).
    32-bit integers and floats say nothing of their white: it is the smallest of 255, 65535 and the type's
    largest value that no value exceeds, for floats the smallest of 1, 255 and 65535, unless ``opening.white``
    names it; then what is beyond is cut off. Colours with 16 bits come from Pillow with their upper 8,
    whatever ``opening.white`` is. Transparent pixels show ``opening.background``. CMYK and other colours are
    converted as Pillow does it.

    Raises UnsuitableImage, without the file's name, for values that are not finite or negative, for more than
    8 bits whose largest value is below 1/15 of white, as 12 bits in a file of 16 are (greys of a given white
    and greys that are all zero are taken), and for 16-bit colours with one transparent among them.
    """
    raw = _raw_mode(image)
    depth = _depth(image, opening)  # from the header: loading may take the tags away
    image.load()
    if _DEEP_COLOURS.match(raw):
        _check_colours(image)
    if depth is not None:
        rgb = _deep(image, depth, opening)
    elif image.has_transparency_data:
        rgb = _over(_with_alpha(image, raw), opening)
    else:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
    turn = _TURNS.get(_orientation(image))
    return rgb if turn is None else rgb.transpose(turn)


def _raw_mode(image: Image.Image) -> str:
    """How a PNG or TIFF stores a pixel, in Pillow's words; empty where the file does not say."""
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    raw = args[0] if isinstance(args, tuple) and args else args
    return raw if isinstance(raw, str) else ""


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError, LookupError, TypeError, struct.error):
        return 1  # a block that nobody can read turns no image; the image itself is whole


def _depth(image: Image.Image, opening: Opening) -> _Depth | None:
    """How deep the values are, None for up to 8 bits."""
    mode, tags = image.mode, getattr(image, "tag_v2", {})
    if mode != "F" and mode != "I" and not mode.startswith("I;16"):
        return None
    bits = min(tags.get(_BITS, (0,)))
    unsigned, inverted = False, False
    whites: tuple[float, ...]
    if mode == "F":
        whites = (1, 255, 65535)
    elif mode != "I":
        whites = (2 ** (bits or 16) - 1,)
        inverted = tags.get(_PHOTOMETRIC) == 0
    elif image.format in ("PNG", "PPM"):
        whites = (65535,)  # Pillow scales a PGM's own largest value to it
    elif bits == 16:
        whites = (2**15 - 1,)
    else:
        unsigned = bits == 32 and tags.get(_SAMPLE, (_UNSIGNED,))[0] == _UNSIGNED
        whites = (255, 65535, 2**32 - 1 if unsigned else 2**31 - 1)
    return _Depth((opening.white,) if opening.white else whites, unsigned, inverted)


def _deep(image: Image.Image, depth: _Depth, opening: Opening) -> Image.Image:
    """A grey image of more than 8 bits as RGB."""
    clip = opening.white is not None
    white = _white(
        [float(v) for strip in _strips(image, depth) for v in (strip.min(), strip.max())], depth, clip
    )
    clear = image.info.get("transparency")
    key = clear if isinstance(clear, int) else None
    grey = np.empty((image.height, image.width), np.uint8)
    gone = np.empty_like(grey) if key is not None else None
    row = 0
    for strip in _strips(image, depth):
        rows = slice(row, row + len(strip))
        scaled = np.clip(np.rint(strip.astype(np.float64) * 255 / white), 0, 255).astype(np.uint8)
        grey[rows] = 255 - scaled if depth.inverted else scaled
        if gone is not None:
            gone[rows] = np.where(strip == key, 255, 0)
        row += len(strip)
    picture = Image.fromarray(grey).convert("RGB")
    if gone is not None:
        picture.paste(opening.background, mask=Image.fromarray(gone))
    return picture


def _strips(image: Image.Image, depth: _Depth) -> Iterator[np.ndarray]:
    """The values (rows, width) in pieces from top to bottom, for a copy of all is large."""
    step = max(1, _STRIP // image.width)
    for top in range(0, image.height, step):
        values = np.asarray(image.crop((0, top, image.width, min(top + step, image.height))))
        yield values.view(np.uint32) if depth.unsigned else values


def _white(bounds: list[float], depth: _Depth, clip: bool) -> float:
    """The value that becomes 255, from the least and largest values of the strips."""
    if not np.isfinite(bounds).all():
        raise UnsuitableImage(
            "it holds values that are not finite: replace them, and save it as 8 or 16 bits"
        )
    say = "say what is white in a TOML file, as in  [images] white = 4095, or save it as 8 or 16 bits"
    if clip:
        return depth.whites[0]
    low, high = min(bounds), max(bounds)
    # Half a level beside black or white is rounded to it anyway; computed floats often are.
    white = next((w for w in depth.whites if high * 255 < w * 255.5), None)
    if low * 255 <= -0.5 * (white or 1):
        raise UnsuitableImage(f"its values reach {low:g}, and black is 0: {say}")
    if white is None:
        raise UnsuitableImage(f"its values reach {high:g}, which no known white bounds: {say}")
    if 0 < high * _DARK < white:
        raise UnsuitableImage(
            f"its values reach {high:g}, and whether that is dark below {white:g} or white is not told: {say}"
        )
    return white


def _check_colours(image: Image.Image) -> None:
    """Refuses dark 16-bit colours, of which the upper 8 bits are there.

    Black is refused too: it may be what is left of 8-bit values.
    """
    channels = [image.getchannel(band) for band in image.getbands() if band not in "Aa"]
    if max(int(np.asarray(channel).max()) for channel in channels) * _DARK < 255:
        raise UnsuitableImage(
            "its 16-bit colours stay below a fifteenth of white, 65535, as 12-bit values would: "
            "scale them, and save it as 8 or 16 bits"
        )


def _with_alpha(image: Image.Image, raw: str) -> Image.Image:
    """An 8-bit image with transparency as RGBA."""
    clear = image.info.get("transparency")
    if image.mode == "RGB" and raw.startswith("RGB;16"):
        raise UnsuitableImage(
            "16-bit colours with one transparent colour cannot be read exactly: save it with an alpha channel"
        )
    if raw in _FEW_BITS and isinstance(clear, int):
        image.info["transparency"] = clear * _FEW_BITS[raw]
    if image.mode == "La":
        image = image.convert("LA")
    return image.convert("RGBA")


def _over(image: Image.Image, opening: Opening) -> Image.Image:
    canvas = Image.new("RGB", image.size, opening.background)
    with_alpha = image if image.mode == "RGBA" else image.convert("RGBA")
    canvas.paste(with_alpha, mask=with_alpha)
    return canvas
