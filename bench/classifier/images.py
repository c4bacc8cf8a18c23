"""Open the images that a classifier is asked about: files by their paths, or pictures in memory.

Both are opened by the rule that travels with the classifier, so that the same picture gets the same answer
as a file and in memory. This module imports no torch, because worker processes that decode import it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bench.data import pixels
from bench.data.imagefile import open_rgb
from bench.data.opening import Opening
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.data.dataset import ImageSource

_SHAPES = "uint8 of shape (height, width), (height, width, 3) or (height, width, 4)"


@dataclass(frozen=True)
class Files:
    """An opener of image files anywhere. ``opening``, ``max_pixels``: as in ``open_rgb``."""

    opening: Opening | None = None
    max_pixels: int | None = None

    def open(self, path: str) -> Image.Image:
        """Return the image as RGB. Raises BenchError, which names the file, if it cannot be read."""
        return open_rgb(Path(path), self.opening, self.max_pixels)


@dataclass(frozen=True)
class Pictures:
    """An opener of pictures in memory, whose paths are their numbers."""

    pictures: Sequence[Any]
    opening: Opening | None = None

    def open(self, path: str) -> Image.Image:
        """Return picture number ``path`` as RGB. Raises BenchError for what is no picture."""
        given = self.pictures[int(path)]
        if isinstance(given, str | os.PathLike):
            return open_rgb(Path(given), self.opening)
        if isinstance(given, Image.Image):
            image = given.copy()  # opening a file's image loads it, which is for its owner to decide
        elif isinstance(given, np.ndarray):
            image = _of_array(given, path)
        else:
            raise BenchError(
                f"image {path} is of type {type(given).__name__}: give paths, PIL images or arrays of "
                f"{_SHAPES}"
            )
        return image.convert("RGB") if self.opening is None else pixels.to_rgb(image, self.opening)


def _of_array(given: np.ndarray, name: str) -> Image.Image:
    """Return an array of pixels as an image. Raises BenchError for another shape or type."""
    right = given.ndim == 2 or (given.ndim == 3 and given.shape[2] in (3, 4))
    if given.dtype != np.uint8 or not right or not given.size:
        raise BenchError(
            f"image {name} is an array of {given.dtype} of shape {given.shape}: give pixels from 0 to 255 as "
            f"{_SHAPES}"
        )
    return Image.fromarray(np.ascontiguousarray(given))


def given(images: Any, opening: Opening | None, max_pixels: int | None) -> tuple[ImageSource, list[str]]:
    """Return an opener of the images that a caller gave, and their names in it.

    ``images``: a path, a PIL image, an array of one image (see ``Pictures``) or of several (n, H, W, 3 or 4),
    or a list of paths, PIL images and arrays. Raises BenchError for anything else.
    """
    if isinstance(images, str | os.PathLike):
        return Files(opening, max_pixels), [os.fspath(images)]
    if isinstance(images, np.ndarray) and images.dtype.kind in "UO":
        images = images.tolist()  # an array of paths, as a column of a table is
    several = isinstance(images, np.ndarray) and images.ndim == 4
    if isinstance(images, Image.Image) or (isinstance(images, np.ndarray) and not several):
        return Pictures([images], opening), ["0"]
    if not isinstance(images, Iterable) or isinstance(images, bytes):
        raise BenchError(
            f"cannot read images of type {type(images).__name__}: give paths, PIL images or arrays of "
            f"{_SHAPES}"
        )
    listed = list(images)
    if all(isinstance(one, str | os.PathLike) for one in listed):
        return Files(opening, max_pixels), [os.fspath(one) for one in listed]
    return Pictures(listed, opening), [str(number) for number in range(len(listed))]
