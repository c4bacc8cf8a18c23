"""Image files as RGB (datasets 6.1), and paths that cannot leave their folder."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from PIL import Image, UnidentifiedImageError

from bench.errors import BenchError, MissingData

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".tif", ".tiff"})


@dataclass(frozen=True)
class FolderSource:
    """Image files under one folder; item paths are relative to it.

    ``real`` maps an item's path to its file's where that has a name which cannot be stored.
    """

    root: Path
    real: Mapping[str, str] = field(default_factory=dict, hash=False)

    def open(self, path: str) -> Image.Image:
        """The image as RGB. BenchError names a file that is absent, unreadable or outside the folder."""
        if escapes(path):
            raise BenchError(f"{path}: a path in a list of images must stay inside {self.root}")
        return open_rgb(self.file(path))

    def file(self, path: str) -> Path:
        """Where the image of that path lies; Windows' separators are read too."""
        return self.root / (self.real.get(path) or path.replace("\\", "/"))


def open_rgb(file: Path) -> Image.Image:
    """A file as an RGB image.

    The content decides the format, not the extension. Colours are converted before anything is resized, for
    PIL resizes palette images without interpolation. The EXIF orientation is not applied, as in every
    reference implementation. Raises MissingData for an absent file, BenchError for one that is truncated or
    not an image.
    """
    try:
        with _unwarned(), Image.open(file) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise MissingData(f"image file not found: {file}") from error
    except UnidentifiedImageError as error:
        raise BenchError(f"not an image that can be read: {file}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BenchError(
            f"damaged or unreadable image {file} ({error}); replace it or take it away"
        ) from error


_lock = threading.Lock()
_decoding: list[warnings.catch_warnings[None]] = []  # one for each thread that decodes just now


@contextmanager
def _unwarned() -> Iterator[None]:
    """Pillow's warnings off, for broken EXIF blocks and palette transparency change no pixel.

    Filters belong to the process: the first of several threads sets them, the last one restores them.
    """
    with _lock:
        _decoding.append(warnings.catch_warnings())
        if len(_decoding) == 1:
            _decoding[0].__enter__()
            warnings.simplefilter("ignore")
    try:
        yield
    finally:
        with _lock:
            last = _decoding.pop()
            if not _decoding:
                last.__exit__(None, None, None)


def is_image(name: str) -> bool:
    """Whether a file name is visible and has the extension of an image."""
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in EXTENSIONS


def escapes(path: str) -> bool:
    """Whether a listed path is empty, absolute (on any system) or climbs out of its folder."""
    windows = PureWindowsPath(path)
    return not path.strip() or "\0" in path or bool(windows.drive or windows.root) or ".." in windows.parts
