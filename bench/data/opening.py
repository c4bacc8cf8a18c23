"""Describe, as data, how the values of an image file become 8-bit RGB.

The published datasets have no ``Opening``: every reference implementation opens them by Pillow's conversion
alone, and so does this program. Users' own images come in every form; their ``Opening`` decides what a file
leaves open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.errors import BenchError

VERSION = 1  # part of every key: raise it when the pixels of a user's own image may change
KEYS = ("background", "white", "as_published")


@dataclass(frozen=True)
class Opening:
    """The way in which a user's own images are opened (``bench.data.pixels``).

    ``background`` is what shows through transparent pixels: red, green and blue from 0 to 255. ``white`` is
    the value that counts as white in images of 16 bits and more. None means that the file or its values
    decide.
    """

    background: tuple[int, int, int] = (255, 255, 255)
    white: float | None = None

    def __str__(self) -> str:
        """Return the text that stands in keys: equal texts mean equal pixels."""
        red, green, blue = self.background
        white = "" if self.white is None else f"-white{self.white:.12g}"
        return f"own{VERSION}-{red:02x}{green:02x}{blue:02x}{white}"


def parse(table: Mapping[str, Any], where: str, own: bool) -> Opening | None:
    """Read the table ``[images]`` of a description; None means "as published".

    ``own`` decides what an empty table means: an Opening with its defaults for a user's own images, else "as
    published". ``where`` is the beginning of error messages.
    """
    published = table.get("as_published", False)
    if type(published) is not bool:
        raise BenchError(f"{where}: as_published must be true or false, not {published!r}")
    if published and len(table) > 1:
        raise BenchError(
            f"{where}: as_published = true fixes how images are opened: remove it, or the other lines of "
            "[images]"
        )
    if published or not (own or table):
        return None
    return Opening(_colour(table.get("background", "white"), where), _white(table.get("white"), where))


def _colour(name: Any, where: str) -> tuple[int, int, int]:
    from PIL import ImageColor  # imported here, so that reading a description does not load Pillow

    try:
        colour: tuple[int, ...] = ImageColor.getrgb(name)
    except (ValueError, AttributeError, TypeError):
        colour = ()
    if len(colour) != 3:
        raise BenchError(
            f'{where}: background {name!r} is no opaque colour: write "white", "black" or "#rrggbb"'
        )
    red, green, blue = colour
    return red, green, blue


def _white(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 < value <= 1e300:
        raise BenchError(f"{where}: white must be a number above 0, such as 4095, not {value!r}")
    return float(value)
