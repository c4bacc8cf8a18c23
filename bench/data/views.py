"""Render views: preprocessed copies of an image, named by a string, equal on every machine (protocol 1.2).

This module imports no torch. The names of views are:

- ``eval``: the shorter side is brought to the input size (bicubic, antialiased, PIL); then a centre crop.
- ``flip``: ``eval`` mirrored left to right.
- ``rrc(a)#i``: the i-th random resized crop, with area in (a, 1), aspect in (3/4, 4/3), mirrored half the
  time.
- ``rrc(a,noflip)#i``: the same crop box, never mirrored.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bench.data import thin
from bench.data.imagefile import unguarded
from bench.errors import BenchError
from bench.files import digest

VERSION = 1  # part of every feature key: raise it when a view's pixels may change

_RRC = re.compile(r"rrc\((\d*\.?\d+)(,noflip)?\)#(\d+)")
_RATIO = (3 / 4, 4 / 3)
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_RESIZES = ("shortest", "squash")
_LONG = 32  # times the input size: the longest side that an enlarged image may have before it is cropped


@dataclass(frozen=True)
class View:
    """A parsed view.

    ``a`` (smallest area, as a share of the image), ``mirror`` and ``index`` are for ``rrc`` only.
    """

    kind: str
    a: float = 1.0
    mirror: bool = False
    index: int = 0

    def __str__(self) -> str:
        if self.kind != "rrc":
            return self.kind
        return f"rrc({self.a:.12g}{'' if self.mirror else ',noflip'})#{self.index}"


def parse(view: str) -> View:
    """Parse the name of a view. The result's ``str`` is the canonical spelling.

    Raises BenchError, which states the grammar, for a text that names no view.
    """
    text = view.replace(" ", "")
    if text in ("eval", "flip"):
        return View(text)
    match = _RRC.fullmatch(text)
    if match and 0 < float(match[1]) <= 1:
        return View("rrc", float(match[1]), not match[2], int(match[3]))
    raise BenchError(
        f"'{view}' is not a view: "
        "write 'eval', 'flip', 'rrc(A)#I' or 'rrc(A,noflip)#I', 0 < A <= 1, I = 0, 1, ..."
    )


def bank(a: float, n: int, flip: bool = True) -> tuple[str, ...]:
    """Return the names of the first ``n`` random resized crops of smallest area ``a``.

    With ``flip=False`` they are never mirrored.
    """
    return tuple(str(parse(str(View("rrc", a, flip, i)))) for i in range(n))


def preprocessing(
    size: int, mean: Sequence[float], std: Sequence[float], mode: str = "bicubic", resize: str = "shortest"
) -> str:
    """Return a short name, for feature keys, of all steps between a decoded image and the tower's input."""
    return f"v{VERSION}-{resize}{size}-{mode}-{digest([list(map(float, mean)), list(map(float, std))])[:8]}"


def crop_box(view: View, path: str, width: int, height: int) -> tuple[tuple[int, int, int, int], bool]:
    """Return the box of a random resized crop, and whether it is mirrored.

    The box is (left, top, right, bottom) in pixels. Both depend only on the split-relative path, on ``a``, on
    the index and on the image's size. Ten boxes are tried, as torchvision's RandomResizedCrop tries them; if
    none fits, its centre fallback is used.
    """
    key = hashlib.sha256(f"{path}\n{view.a:.12g}\n{view.index}".encode()).digest()
    # Only random() promises the same numbers in every Python version, so all draws are made from it.
    uniform = random.Random(int.from_bytes(key)).random
    mirror = uniform() < 0.5 and view.mirror
    low, high = math.log(_RATIO[0]), math.log(_RATIO[1])
    for _ in range(10):
        area = width * height * (view.a + (1 - view.a) * uniform())
        ratio = math.exp(low + (high - low) * uniform())
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(uniform() * (height - h + 1)), int(uniform() * (width - w + 1))
            return (left, top, left + w, top + h), mirror
    w, h = width, height
    if width / height < _RATIO[0]:
        h = round(width / _RATIO[0])
    elif width / height > _RATIO[1]:
        w = round(height * _RATIO[1])
    left, top = (width - w) // 2, (height - h) // 2
    return (left, top, left + w, top + h), mirror


def render(
    image: Image.Image, view: str, path: str, size: int, mode: str = "bicubic", resize: str = "shortest"
) -> np.ndarray:
    """Return the pixels of one view of an RGB image, uint8 (size, size, 3).

    ``path`` is the split-relative path, which keys the random crops. ``mode`` is the filter (bicubic or
    bilinear). ``resize`` says how ``eval`` comes to the input size: ``shortest`` keeps the aspect ratio and
    crops, ``squash`` does not keep it. Raises BenchError for an unknown view, filter or resize.
    """
    pixels: np.ndarray = render_views(image, (view,), path, size, mode, resize)[0]
    return pixels


def render_views(
    image: Image.Image,
    views: Sequence[str],
    path: str,
    size: int,
    mode: str = "bicubic",
    resize: str = "shortest",
) -> np.ndarray:
    """Return views of one decoded RGB image, uint8 (V, size, size, 3), in the order asked for.

    The arguments are those of ``render``.
    """
    # open_clip knows more filters and ways to resize, but none of its CLIP weights use them.
    if mode not in _FILTERS or resize not in _RESIZES:
        raise BenchError(
            f"cannot resize by '{resize}' with '{mode}': known are {_RESIZES} and {tuple(_FILTERS)}"
        )
    image = image if image.mode == "RGB" else image.convert("RGB")
    pixels = np.empty((len(views), size, size, 3), np.uint8)
    centre: np.ndarray | None = None
    for row, parsed in zip(pixels, map(parse, views), strict=True):
        if parsed.kind == "rrc":
            box, mirror = crop_box(parsed, path, *image.size)
            with unguarded():  # Pillow's guard against large images would refuse a large crop
                cut = image.crop(box)
            crop = np.asarray(cut.resize((size, size), _FILTERS[mode]))
            row[:] = crop[:, ::-1] if mirror else crop
        else:
            centre = _centre(image, size, _FILTERS[mode], resize) if centre is None else centre
            row[:] = centre[:, ::-1] if parsed.kind == "flip" else centre
    return pixels


def _centre(image: Image.Image, size: int, filter: Image.Resampling, resize: str) -> np.ndarray:
    """Return the pixels of the view ``eval``."""
    if resize == "squash":
        return np.asarray(image.resize((size, size), filter))
    width, height = image.size
    # As in CLIP's transform, the longer side is truncated to an integer, and the crop's corner is rounded
    # half to even.
    if width <= height:
        width, height = size, int(size * height / width)
    else:
        width, height = int(size * width / height), size
    left, top = round((width - size) / 2), round((height - size) / 2)
    if min(image.size) < size and max(width, height) > _LONG * size:
        return thin.middle(image, width, height, max(left, top), size, filter)
    return np.asarray(image.resize((width, height), filter).crop((left, top, left + size, top + size)))
