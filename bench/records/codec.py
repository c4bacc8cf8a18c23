"""Turn records into bytes and back, and compute and check their checksums.

A checksum is taken of a record's fields in a fixed order. So a record has the same checksum in a file, which
is indented for people, and in a packed line.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.records.keys import plain
from bench.records.types import Record
from bench.typed import said

SCHEMA: Literal[2] = 2
_LONG = 32  # hex digits of a checksum
# The errors of decoding bytes that are no JSON, or whose JSON has another type.
NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError)

_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
_encoder = msgspec.json.Encoder(order="sorted", enc_hook=plain)

R = TypeVar("R", bound=Record)


class Unreadable(BenchError):
    """The error for bytes that are no record, or were changed after writing. The message says which."""


class _Head(msgspec.Struct):
    """The one field that a record of every schema has."""

    schema: int = 0


def schema_of(data: bytes) -> int:
    """Return the schema that a record names; 0 if it names none, or is no JSON."""
    try:
        return msgspec.json.decode(data, type=_Head).schema
    except NO_JSON:
        return 0


def decode(data: bytes) -> Record:
    """Return the record in ``data``. Raises Unreadable, which names the wrong field if one is known."""
    try:
        record = _decoder.decode(data)
        whole = _as_written(data, record) or record.checksum == checksum(record)
    except NO_JSON as error:
        schema = schema_of(data)
        if schema > SCHEMA:
            raise Unreadable(
                f"a record of schema {schema}; this program knows up to {SCHEMA}: install a newer one"
            ) from error
        raise Unreadable(f"not a readable record ({said(error)})") from error
    if not whole:
        raise Unreadable("not as it was written (its checksum differs)")
    return record


def _as_written(data: bytes, record: Record) -> bool:
    """Return whether the bytes of ``data`` without the checksum field have the checksum of ``record``.

    A packed record, which is on one line, is checked in this way without encoding it again. False does not
    mean damage: an indented record, for example, also gives False.
    """
    before, found, behind = bytes(data).partition(b'"checksum":"%b",' % record.checksum.encode())
    return bool(found) and hashlib.sha256(before + behind).hexdigest()[:_LONG] == record.checksum


@contextmanager
def many() -> Iterator[None]:
    """Stop Python's search for cyclic garbage while many records are read.

    Records have no cycles, and each search goes through all records read so far, which takes longer than
    reading them. At the end the new objects count as old ones, so that Python does not search them at once.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.freeze()
            gc.unfreeze()
            gc.enable()


def encode(record: Record, indent: int = 0) -> bytes:
    """Return the JSON of a record with its checksum, indented by ``indent`` blanks.

    Raises BenchError if a field holds a value that it may not hold.
    """
    data = _encoder.encode(sealed(record))
    return msgspec.json.format(data, indent=indent) if indent else data


def sealed(record: R) -> R:
    """Return the record as it will read back, with its checksum.

    Raises BenchError if a field holds a value that it may not hold, such as a number that JSON does not have
    (NaN, infinity).
    """
    try:
        json.dumps(msgspec.to_builtins(record, enc_hook=plain), allow_nan=False)
        valid = msgspec.json.decode(_encoder.encode(replace(record, checksum="")), type=type(record))
    except (msgspec.ValidationError, TypeError, ValueError, NotImplementedError) as error:
        raise BenchError(f"this result cannot be recorded: {error}") from error
    return replace(valid, checksum=checksum(valid))


def checksum(record: Record) -> str:
    """Return the checksum (hex) of all fields of a record but ``checksum``."""
    return hashlib.sha256(_encoder.encode(replace(record, checksum=""))).hexdigest()[:_LONG]


def checksum_of(array: NDArray[Any]) -> str:
    """Return the checksum (hex) of an array's shape and numbers.

    It is the same for every integer type; numbers below 0 count as 65536 more.
    """
    kind = array.dtype.newbyteorder("<") if array.dtype.kind == "f" else np.dtype("<u2")
    data = np.ascontiguousarray(array, kind)
    return hashlib.sha256(str(data.shape).encode() + data.tobytes()).hexdigest()[:_LONG]


def checksum_bytes(data: bytes) -> str:
    """Return the checksum (hex) of a file's content."""
    return hashlib.sha256(data).hexdigest()[:_LONG]
