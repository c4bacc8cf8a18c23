"""Records as bytes and back: one reader, one writer, checksums.

A checksum is taken of a record's fields in a fixed order, so that it is the same in a file, indented for
people, and in a packed line.
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
# What decoding raises for bytes that are no JSON, or of another type.
NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError)

_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
_encoder = msgspec.json.Encoder(order="sorted", enc_hook=plain)

R = TypeVar("R", bound=Record)


class Unreadable(BenchError):
    """Bytes that are no record of this program, or not as they were written; the message says how."""


class _Head(msgspec.Struct):
    schema: int = 0


def schema_of(data: bytes) -> int:
    """The schema that a record says it has, 0 for one that does not say."""
    try:
        return msgspec.json.decode(data, type=_Head).schema
    except NO_JSON:
        return 0


def decode(data: bytes) -> Record:
    """The record in ``data``. Raises Unreadable, naming the field where it can."""
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
    """Whether ``data`` without its checksum has that checksum.

    It does wherever a record is on one line, as packed ones are, and then need not be written anew. What does
    not may still be whole: indented, or with its fields in another order.
    """
    before, found, behind = bytes(data).partition(b'"checksum":"%b",' % record.checksum.encode())
    return bool(found) and hashlib.sha256(before + behind).hexdigest()[:_LONG] == record.checksum


@contextmanager
def many() -> Iterator[None]:
    """Python does not look for cyclic garbage meanwhile: use it to read many records.

    Records have no cycles, and going through all that were read before takes longer than reading. What is new
    at the end counts as old, so that it is not gone through at once.
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
    """The record with its checksum. Raises BenchError where a field holds what it may not."""
    data = _encoder.encode(sealed(record))
    return msgspec.json.format(data, indent=indent) if indent else data


def sealed(record: R) -> R:
    """The record as it will read back, with its checksum.

    Raises BenchError where a field holds what it may not, numbers that JSON does not have (NaN, infinity)
    among it.
    """
    try:
        json.dumps(msgspec.to_builtins(record, enc_hook=plain), allow_nan=False)
        valid = msgspec.json.decode(_encoder.encode(replace(record, checksum="")), type=type(record))
    except (msgspec.ValidationError, TypeError, ValueError, NotImplementedError) as error:
        raise BenchError(f"this result cannot be recorded: {error}") from error
    return replace(valid, checksum=checksum(valid))


def checksum(record: Record) -> str:
    """Of all fields but itself (hex)."""
    return hashlib.sha256(_encoder.encode(replace(record, checksum=""))).hexdigest()[:_LONG]


def checksum_of(array: NDArray[Any]) -> str:
    """Of an array's shape and numbers (hex), whatever integer type holds them."""
    data = np.ascontiguousarray(array, "<u2")
    return hashlib.sha256(str(data.shape).encode() + data.tobytes()).hexdigest()[:_LONG]


def checksum_bytes(data: bytes) -> str:
    """Of a file's content (hex)."""
    return hashlib.sha256(data).hexdigest()[:_LONG]
