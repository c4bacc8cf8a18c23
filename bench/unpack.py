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
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.files import read_bytes, regular

GIB = 1 << 30
_PIECE = 1 << 20
_LOCAL = 30  # bytes of the header before each member of a zip file, without its name and extra field
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


Contents = Mapping[str, zipfile.ZipInfo]


def contents(file: Path) -> Contents:
    """Return the list of an npz file's arrays by name, which ``npz`` takes so as not to read it again.

    Raises Torn if it is damaged.
    """
    try:
        with regular(file) as handle, zipfile.ZipFile(handle) as archive:
            return {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    except Exception as error:  # zipfile raises nearly every kind of error
        raise _torn(file, error) from error


def npz(
    file: Path, names: Iterable[str] | None = None, most: int = GIB, listed: Contents | None = None
) -> dict[str, NDArray[Any]]:
    """Return the arrays of numbers in an npz file by name: those of ``names``, or all if it is None.

    ``listed``: the ``contents`` of the file, if the caller has read them. The file's own CRC protects the
    numbers, but not the list of arrays, so name those that must be there. Raises Torn if the file is damaged,
    lacks a name or holds anything else than numbers, or if the arrays that are asked for take more than
    ``most`` bytes.
    """
    listed = contents(file) if listed is None else listed
    try:
        wanted = list(listed) if names is None else list(names)
        if missing := [name for name in wanted if name not in listed]:
            raise Torn(f"{file}: damaged (it has no array '{missing[0]}')")
        if sum(listed[name].file_size for name in wanted) > most:
            raise Torn(f"{file}: unpacks to more than {_size(most)}")
        with regular(file) as handle:
            return {name: _array(_member(handle, listed[name]), name) for name in wanted}
    except Exception as error:  # NumPy's parser of headers raises nearly every kind of error
        raise _torn(file, error) from error


def _torn(file: Path, error: Exception) -> Torn:
    """Return the error to raise for one that reading a file met."""
    if isinstance(error, Torn):
        return error
    if isinstance(error, MemoryError):
        return Torn(f"{file}: damaged (an array that does not fit into memory)")
    return Torn(f"{file}: damaged ({' '.join(str(error).split()) or type(error).__name__})")


def _member(handle: IO[bytes], info: zipfile.ZipInfo) -> bytes:
    """Return the content of a member of a zip file. Raises ValueError if it is damaged.

    zipfile reads a member only after it has read the list of all, which takes long in a file of thousands.
    """
    handle.seek(info.header_offset)
    header = handle.read(_LOCAL)
    if len(header) != _LOCAL or header[:4] != b"PK\x03\x04" or header[6] & 1:
        raise ValueError(f"{info.filename} does not begin where the list says")
    handle.seek(
        int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), io.SEEK_CUR
    )
    data = handle.read(info.compress_size)
    if info.compress_type == zipfile.ZIP_DEFLATED:
        data = zlib.decompressobj(wbits=-15).decompress(data, info.file_size + 1)
    elif info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed in a way that NumPy does not use")
    if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
        raise ValueError(f"Bad CRC-32 for file '{info.filename}'")
    return data


def _array(data: bytes, member: str) -> NDArray[Any]:
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
