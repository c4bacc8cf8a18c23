"""Unpacking of compressed files to a bounded size.

A few kilobytes of xz, gzip or zip can unpack to more than any machine holds, so the size is checked before
memory is taken. Nothing here executes what it reads: arrays of objects are refused. This module imports only
errors and files.
"""

from __future__ import annotations

import io
import lzma
import math
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.files import read_bytes, regular

GIB = 1 << 30
_PIECE = 1 << 20
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Torn(BenchError):
    """A compressed file that is damaged or unpacks to more than it may. The message names the file."""


def xz(file: Path, most: int = GIB) -> bytes:
    """Return the content of an xz file. Raises Torn if it is damaged or larger than ``most`` bytes."""
    return _unpacked(file, most, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=GIB))


def gz(file: Path, most: int = GIB) -> bytes:
    """Return the content of a gzip file. Raises Torn if it is damaged or larger than ``most`` bytes."""
    return _unpacked(file, most, lambda: zlib.decompressobj(wbits=31))


def _unpacked(file: Path, most: int, begin: Callable[[], Any]) -> bytes:
    made = bytearray()
    rest = read_bytes(file)
    if not rest:
        raise Torn(f"{file}: empty")
    try:
        while rest:  # a file may hold several compressed streams, one after the other
            stream, fed = begin(), rest
            while not stream.eof:
                piece = stream.decompress(fed, _PIECE)
                made += piece
                if len(made) > most:
                    raise Torn(f"{file}: unpacks to more than {_size(most)}")
                fed = getattr(stream, "unconsumed_tail", b"")
                if not piece and not fed and getattr(stream, "needs_input", True) and not stream.eof:
                    raise Torn(f"{file}: ends early")
            rest = stream.unused_data
    except (lzma.LZMAError, zlib.error, EOFError) as error:
        raise Torn(f"{file}: damaged ({error})") from error
    return bytes(made)


def npz(file: Path, names: Iterable[str] | None = None, most: int = GIB) -> dict[str, NDArray[Any]]:
    """Return the arrays of numbers in an npz file by name: those of ``names``, or all if it is None.

    The file's own CRC protects the numbers, but not the list of arrays, so name those that must be there.
    Raises Torn if the file is damaged, lacks a name or holds anything else than numbers, or if the arrays
    that are asked for take more than ``most`` bytes.
    """
    try:
        with regular(file) as handle, zipfile.ZipFile(handle) as archive:
            wanted = [n.removesuffix(".npy") for n in archive.namelist()] if names is None else list(names)
            if sum(archive.getinfo(f"{name}.npy").file_size for name in wanted) > most:
                raise Torn(f"{file}: unpacks to more than {_size(most)}")
            return {name: _array(archive, f"{name}.npy") for name in wanted}
    except Torn:
        raise
    except MemoryError as error:
        raise Torn(f"{file}: damaged (an array that does not fit into memory)") from error
    except Exception as error:  # zipfile and NumPy's parser of headers raise nearly every kind of error
        raise Torn(f"{file}: damaged ({' '.join(str(error).split()) or type(error).__name__})") from error


def _array(archive: zipfile.ZipFile, member: str) -> NDArray[Any]:
    size = archive.getinfo(member).file_size
    with archive.open(member) as packed:
        data = packed.read(size + 1)
    buffer = io.BytesIO(data)
    read = _HEADERS.get(np.lib.format.read_magic(buffer))
    if read is None:
        raise ValueError(f"{member} has a header of another version")
    shape, by_columns, dtype = read(buffer)
    offset = buffer.tell()
    if (
        dtype.kind not in "biuf"
        or len(data) != offset + math.prod(shape) * dtype.itemsize
        or min(shape, default=0) < 0
    ):
        raise ValueError(f"{member} is not an array of numbers of the size that it says")
    return np.frombuffer(data, dtype, offset=offset).reshape(shape, order="F" if by_columns else "C")


def _size(bytes_: int) -> str:
    return f"{bytes_ / GIB:g} GiB" if bytes_ >= GIB else f"{bytes_ / 1e6:.3g} MB"
