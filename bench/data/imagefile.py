"""Image files as RGB (datasets 6.1), and paths that cannot leave their folder."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from PIL import Image, UnidentifiedImageError

from bench.errors import BenchError, MissingData

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".tif", ".tiff"})


@dataclass(frozen=True)
class FolderSource:
    """Image files under one folder; item paths are relative to it."""

    root: Path

    def open(self, path: str) -> Image.Image:
        """The image as RGB. Raises BenchError naming the file when it is absent, unreadable or outside the folder."""
        if escapes(path):
            raise BenchError(f"{path}: a path in a list of images must stay inside {self.root}")
        return open_rgb(self.root / path.replace("\\", "/"))


def open_rgb(file: Path) -> Image.Image:
    """A file as an RGB image.

    The content decides the format, not the extension. Colours are converted before anything is resized, for PIL
    resizes palette images without interpolation. The EXIF orientation is not applied, as in every reference
    implementation. Raises MissingData for an absent file, BenchError for one that is truncated or not an image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken EXIF blocks and palette transparency change no pixel
            with Image.open(file) as image:
                return image.convert("RGB")
    except FileNotFoundError as error:
        raise MissingData(f"image file not found: {file}") from error
    except UnidentifiedImageError as error:
        raise BenchError(f"not an image that can be read: {file}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BenchError(f"damaged or unreadable image {file} ({error}); download it again") from error


def is_image(name: str) -> bool:
    """Whether a file name is visible and has the extension of an image."""
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in EXTENSIONS


def escapes(path: str) -> bool:
    """Whether a listed path is empty, absolute (on any system) or climbs out of its folder."""
    windows = PureWindowsPath(path)
    return not path.strip() or "\0" in path or bool(windows.drive or windows.root) or ".." in windows.parts
