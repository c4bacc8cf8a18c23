"""Turn a user's own images into RGB.

Values of more than 8 bits are scaled, transparent pixels show a background, and the image is turned as its
EXIF orientation says.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bench.data.opening import Opening
from bench.errors import UnsuitableImage

_STRIP = 1 << 20  # pixels of a deep image (more than 8 bits) that are scaled at a time
_ORIENTATION, _BITS, _PHOTOMETRIC, _SAMPLE = 0x0112, 258, 262, 339  # tags of EXIF and TIFF
_UNSIGNED = 1  # the value "unsigned integer" of the tag of sample formats
# If the largest value of an image is below 1/15 of white, the assumed white is just as likely to be wrong, as
# with 12-bit values in a file of 16 bits.
_DARK = 15
_DEEP_COLOURS = re.compile(r"(RGB|LA).*;16", re.IGNORECASE)  # raw modes that Pillow cuts to 8 bits
# Pillow scales greys of these raw modes to 0..255, by these factors, but not the value that is transparent.
_FEW_BITS = {"L;2": 85, "L;4": 17}
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
    """The meaning of values beyond 8 bits.

    ``whites`` are the values that white may have, ascending. ``unsigned`` stands for 32 bits without a sign.
    ``inverted`` means that 0 is white.
    """

    whites: tuple[float, ...]
    unsigned: bool = False
    inverted: bool = False


def to_rgb(image: Image.Image, opening: Opening) -> Image.Image:
    """Return the first picture of an open file as RGB.

    16-bit values are scaled so that 65535 becomes 255 (or another largest value, if the file states fewer
    bits). 32-bit integers and floats do not say what is white. White is then the smallest candidate that no
    value exceeds: 255, 65535 or the type's largest value for integers, and 1, 255 or 65535 for floats.
    ``opening.white`` replaces this choice, and larger values are cut off. Pillow delivers the upper 8 bits of
    16-bit colours, whatever ``opening.white`` is. Transparent pixels show ``opening.background``. CMYK and
    other colours are converted as Pillow does it.

    Raises UnsuitableImage, whose text does not contain the file's name, for values that are negative or not
    finite, for more than 8 bits whose largest value is below 1/15 of white, such as 12 bits in a file of 16
    (greys with a given white, and greys that are all zero, are accepted), and for 16-bit colours of which one
    is transparent.
    """
    raw = _raw_mode(image)
    depth = _depth(image, opening)  # must come before the image is loaded, because loading may drop the tags
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
    """Return how a PNG or TIFF stores a pixel, in Pillow's words; empty if the file does not say it."""
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    raw = args[0] if isinstance(args, tuple) and args else args
    return raw if isinstance(raw, str) else ""


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError, LookupError, TypeError, struct.error):
        return 1  # an unreadable EXIF block turns no image, and the image itself is whole


def _depth(image: Image.Image, opening: Opening) -> _Depth | None:
    """Return the meaning of deep values, or None for values of up to 8 bits."""
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
        whites = (65535,)  # Pillow scales the largest value that a PGM states to this one
    elif bits == 16:
        whites = (2**15 - 1,)
    else:
        unsigned = bits == 32 and tags.get(_SAMPLE, (_UNSIGNED,))[0] == _UNSIGNED
        whites = (255, 65535, 2**32 - 1 if unsigned else 2**31 - 1)
    return _Depth((opening.white,) if opening.white else whites, unsigned, inverted)


def _deep(image: Image.Image, depth: _Depth, opening: Opening) -> Image.Image:
    """Return a grey image of more than 8 bits as RGB."""
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
    """Yield the values (rows, width) in pieces from top to bottom, because a copy of all of them is large."""
    step = max(1, _STRIP // image.width)
    for top in range(0, image.height, step):
        values = np.asarray(image.crop((0, top, image.width, min(top + step, image.height))))
        yield values.view(np.uint32) if depth.unsigned else values


def _white(bounds: list[float], depth: _Depth, clip: bool) -> float:
    """Return the value that becomes 255, given the least and largest values of the strips."""
    if not np.isfinite(bounds).all():
        raise UnsuitableImage(
            "it holds values that are not finite: replace them, and save it as 8 or 16 bits"
        )
    say = "say what is white in a TOML file, as in  [images] white = 4095, or save it as 8 or 16 bits"
    if clip:
        return depth.whites[0]
    low, high = min(bounds), max(bounds)
    # A value at most half a level beyond black or white is rounded to it anyway, as in many computed floats.
    white = next((w for w in depth.whites if high * 255 < w * 255.5), None)
    if low * 255 <= -0.5 * (white or 1):
        raise UnsuitableImage(f"its values go down to {low:g}, which is below black, 0: {say}")
    if white is None:
        raise UnsuitableImage(f"its values reach {high:g}, which is above every usual white: {say}")
    if 0 < high * _DARK < white:
        raise UnsuitableImage(
            f"its values reach {high:g}; this may be white, or dark where white is {white:g}: {say}"
        )
    return white


def _check_colours(image: Image.Image) -> None:
    """Refuse dark 16-bit colours, of which only the upper 8 bits are available.

    Black is refused too, because it may be what is left of 8-bit values.
    """
    channels = [image.getchannel(band) for band in image.getbands() if band not in "Aa"]
    if max(int(np.asarray(channel).max()) for channel in channels) * _DARK < 255:
        raise UnsuitableImage(
            "its 16-bit colours stay below a fifteenth of white, 65535, as 12-bit values would: "
            "scale them, and save it as 8 or 16 bits"
        )


def _with_alpha(image: Image.Image, raw: str) -> Image.Image:
    """Return an 8-bit image with transparency as RGBA."""
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
    """Put the image on the background."""
    canvas = Image.new("RGB", image.size, opening.background)
    with_alpha = image if image.mode == "RGBA" else image.convert("RGBA")
    canvas.paste(with_alpha, mask=with_alpha)
    return canvas
