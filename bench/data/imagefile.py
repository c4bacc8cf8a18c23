"""Image files as RGB (datasets 6.1), and paths that cannot leave their folder."""

from __future__ import annotations

import os
import posixpath
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from bench.data import formats, limit, pixels
from bench.data.opening import Opening
from bench.errors import BenchError, MissingData, UnsuitableImage
from bench.files import regular

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".tif", ".tiff"})

_MEND = "save it as PNG or JPEG, or take it away"


@dataclass(frozen=True)
class FolderSource:
    """Image files under one folder; item paths are relative to it.

    ``real`` maps an item's path to its file's where that has a name which cannot be stored. ``opening``: how
    their values become RGB, None for as published. ``max_pixels``: beyond it an image is refused, None for
    what ``bench.data.limit`` finds usual here.
    """

    root: Path
    real: Mapping[str, str] = field(default_factory=dict, hash=False)
    opening: Opening | None = None
    max_pixels: int | None = None

    def open(self, path: str) -> Image.Image:
        """The image as RGB. BenchError names a file that is absent, unreadable or outside the folder."""
        if escapes(path):
            raise BenchError(f"{path}: a path in a list of images must stay inside {self.root}")
        return open_rgb(self.file(path), self.opening, self.max_pixels)

    def file(self, path: str) -> Path:
        """Where the image of that path lies; Windows' separators are read too."""
        return self.root / (self.real.get(path) or path.replace("\\", "/"))


def opening_of(source: object) -> str:
    """How a dataset's images are opened, for keys; empty for as published."""
    return str(source.opening) if isinstance(source, FolderSource) and source.opening else ""


def open_rgb(file: Path, opening: Opening | None = None, max_pixels: int | None = None) -> Image.Image:
    """A file as an RGB image; of several pictures in it (GIF, TIFF, WebP) the first.

    The content decides the format, not the extension; ``bench.data.formats`` has the list. Colours are
    converted before anything is resized, for PIL resizes palette images without interpolation. As published
    (``opening`` None) Pillow's conversion is all, as in every reference implementation: the EXIF orientation
    is not applied, alpha is dropped, values beyond 8 bits are cut off. ``bench.data.pixels`` says what an
    ``opening`` does.

    Raises MissingData for an absent file, UnsuitableImage for one that is whole but needs more memory than
    ``bench.data.limit`` allows or has values whose meaning is not known, BenchError for one that is damaged,
    no regular file or no image.
    """
    usual = limit.usual()  # out here its errors are not the image's
    with _opened(file) as handle:
        try:
            with unguarded():
                limit.check_bytes(handle, max_pixels or usual)
                with formats.opened(handle) as image:
                    limit.check(image, handle, max_pixels, usual)
                    if opening is not None:
                        return pixels.to_rgb(image, opening)
                    image.load()
                    return image if image.mode == "RGB" else image.convert("RGB")
        except UnidentifiedImageError as error:
            raise BenchError(_no_image(file, handle)) from error
        except UnsuitableImage as error:
            raise UnsuitableImage(f"{file}: {error}") from None
        except MemoryError as error:
            raise UnsuitableImage(f"not enough memory to open {file}: make the image smaller") from error
        # Damaged files make Pillow and the libraries below it raise nearly every exception there is.
        except Exception as error:
            raise BenchError(
                f"damaged or unreadable image {file} ({str(error) or type(error).__name__}); "
                "replace it or take it away"
            ) from error


def _opened(file: Path) -> BinaryIO:
    try:
        return regular(file)
    except FileNotFoundError as error:
        lost = "; it is a link that leads nowhere" if file.is_symlink() else ""
        raise MissingData(f"image file not found: {file}{lost}") from error
    except (OSError, ValueError) as error:  # a path that no system has, such as one with a zero byte
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise BenchError(f"unreadable image {file}: {reason.lower()}; replace it or take it away") from error


def _no_image(file: Path, handle: BinaryIO) -> str:
    """What is wrong with a file that has none of the known formats, and its mend."""
    if os.fstat(handle.fileno()).st_size == 0:
        return f"the image file is empty: {file}; replace it or take it away"
    if kind := formats.foreign(handle):
        return f"not an image that is opened here: {file} begins like {kind}; {_MEND}"
    return f"not an image that can be read: {file} (HEIC, camera raw and SVG cannot); {_MEND}"


_lock = threading.Lock()
_inside = 0  # threads that decode just now
_quiet = warnings.catch_warnings()
_guard: int | None = None


@contextmanager
def unguarded() -> Iterator[None]:
    """Pillow's warnings and its own limit of pixels off.

    Broken EXIF blocks and palette transparency change no pixel, and ``max_pixels`` takes the limit's place.
    Both belong to the process: the first of several threads sets them, the last one restores them.
    """
    global _inside, _quiet, _guard
    with _lock:
        _inside += 1
        if _inside == 1:
            _quiet = warnings.catch_warnings()
            _quiet.__enter__()
            warnings.simplefilter("ignore")
            _guard, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                Image.MAX_IMAGE_PIXELS = _guard
                _quiet.__exit__(None, None, None)


def is_image(name: str) -> bool:
    """Whether a file name is visible and has the extension of an image."""
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in EXTENSIONS


def spelled(path: str) -> str:
    """One spelling for all of a file: ``a/./x.png``, ``a//x.png`` and ``a/b/../x.png`` are ``a/x.png``.

    A path that climbs out of its folder still does, and so does one of the folder itself. Windows' separators
    stay where nothing else is to be changed.
    """
    plain = path.replace("\\", "/")
    one = posixpath.normpath(plain)
    if one == "." and path.strip():
        return ".."
    return one if path.strip() and one != plain else path


def escapes(path: str) -> bool:
    """Whether a listed path is empty, absolute (on any system) or climbs out of its folder."""
    windows = PureWindowsPath(path)
    return not path.strip() or "\0" in path or bool(windows.drive or windows.root) or ".." in windows.parts
