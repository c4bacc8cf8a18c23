"""Open image files as RGB (datasets 6.1), and check that listed paths stay inside their folder."""

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

_MEND = "save it as PNG or JPEG, or remove it"


@dataclass(frozen=True)
class FolderSource:
    """An opener of the image files under one folder; item paths are relative to it.

    ``real`` maps an item's path to the path of its file, for files whose own name cannot be stored.
    ``opening`` says how values become RGB; None means "as published". An image with more pixels than
    ``max_pixels`` is refused; None stands for the usual limit on this machine (``bench.data.limit``).
    """

    root: Path
    real: Mapping[str, str] = field(default_factory=dict, hash=False)
    opening: Opening | None = None
    max_pixels: int | None = None

    def open(self, path: str) -> Image.Image:
        """Return the image as RGB.

        Raises BenchError, which names the file, if it is absent, unreadable or outside the folder.
        """
        if escapes(path):
            raise BenchError(f"{path}: a path in a list of images must stay inside {self.root}")
        return open_rgb(self.file(path), self.opening, self.max_pixels)

    def file(self, path: str) -> Path:
        """Return where the image of that path lies. A path may have Windows' separators."""
        return self.root / (self.real.get(path) or path.replace("\\", "/"))


def opening_of(source: object) -> str:
    """Return the text that says in keys how a dataset's images are opened; empty for "as published"."""
    return str(source.opening) if isinstance(source, FolderSource) and source.opening else ""


def open_rgb(file: Path, opening: Opening | None = None, max_pixels: int | None = None) -> Image.Image:
    """Open a file as an RGB image. Of several pictures in one file (GIF, TIFF, WebP) the first is taken.

    The content decides on the format, and the extension does not; ``bench.data.formats`` has the list.
    Colours are converted before anything is resized, because PIL resizes palette images without
    interpolation. Without an ``opening`` (as published) Pillow's conversion is all that happens, as in every
    reference implementation: the EXIF orientation is not applied, alpha is dropped, values beyond 8 bits are
    cut off. ``bench.data.pixels`` says what an ``opening`` does.

    Raises MissingData for an absent file. Raises UnsuitableImage for a whole file that needs more memory than
    ``bench.data.limit`` allows, or has values whose meaning is not known. Raises BenchError for a file that
    is damaged, no regular file, or no image.
    """
    usual = limit.usual()  # called outside of the try block, so that its errors do not blame the image
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
                "replace it or remove it"
            ) from error


def _opened(file: Path) -> BinaryIO:
    """Open the file for reading. Raises MissingData or BenchError if that is not possible."""
    try:
        return regular(file)
    except FileNotFoundError as error:
        lost = "; it is a link that leads nowhere" if file.is_symlink() else ""
        raise MissingData(f"image file not found: {file}{lost}") from error
    except (OSError, ValueError) as error:  # ValueError: a path that no system can have, as with a zero byte
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise BenchError(f"unreadable image {file}: {reason.lower()}; replace it or remove it") from error


def _no_image(file: Path, handle: BinaryIO) -> str:
    """Say what is wrong with a file that has none of the known formats, and how to mend it."""
    if os.fstat(handle.fileno()).st_size == 0:
        return f"the image file is empty: {file}; replace it or remove it"
    if kind := formats.foreign(handle):
        return f"images of this format are not opened: {file} begins like {kind}; {_MEND}"
    return f"not an image that can be read: {file} (HEIC, camera raw and SVG cannot); {_MEND}"


_lock = threading.Lock()
_inside = 0  # number of threads that are decoding now
_quiet = warnings.catch_warnings()
_guard: int | None = None


@contextmanager
def unguarded() -> Iterator[None]:
    """Turn off Pillow's warnings and its own limit of pixels.

    Broken EXIF blocks and palette transparency change no pixel, and ``max_pixels`` replaces the limit. Both
    settings belong to the whole process: of several threads the first one sets them, and the last one
    restores them.
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
    """Return whether a file name is visible and has the extension of an image."""
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in EXTENSIONS


def spelled(path: str) -> str:
    """Return the one spelling of a path: ``a/./x.png``, ``a//x.png`` and ``a/b/../x.png`` become ``a/x.png``.

    A path that climbs out of its folder, or that is the folder itself, still does so in the result. Windows'
    separators stay if nothing else needs a change.
    """
    plain = path.replace("\\", "/")
    one = posixpath.normpath(plain)
    if one == "." and path.strip():
        return ".."
    return one if path.strip() and one != plain else path


def escapes(path: str) -> bool:
    """Return whether a listed path is empty, absolute (on any system) or climbs out of its folder."""
    windows = PureWindowsPath(path)
    return not path.strip() or "\0" in path or bool(windows.drive or windows.root) or ".." in windows.parts
