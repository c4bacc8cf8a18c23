"""Reading JSON and TOML from outside as typed structures; errors name the file and the field.

Nothing that the program reads is trusted to have the right type. This module imports only errors, files and
names; what the types are is said by its callers.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bench.errors import BenchError
from bench.files import read_text
from bench.names import nearest, shown

T = TypeVar("T")
_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<at>.*)`)?$", re.S)


class Odd(BenchError):
    """Content that does not have the type it should have. The message names the file and the field."""


def json(file: Path, kind: type[T]) -> T:
    """Return the content of a JSON file as ``kind``. Raises Odd if it is not JSON or has another type."""
    return decoded(_text(file).encode(), kind, str(file))


def decoded(data: bytes, kind: type[T], where: str) -> T:
    """Return JSON text as ``kind``. Raises Odd, which names the text as ``where``, if it has another type."""
    _refuse_mark(data.startswith(codecs.BOM_UTF8), where)
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise Odd(f"{where}: {said(error)}") from error


def toml(file: Path, kind: type[T]) -> T:
    """Return the content of a TOML file as ``kind``. Raises Odd if it is not TOML or has another type."""
    text = _text(file)
    _refuse_mark(text.startswith("\ufeff"), str(file))
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise Odd(f"{file}: not TOML ({said(error)})") from error
    return converted(table, kind, str(file))


def _text(file: Path) -> str:
    try:
        return read_text(file)
    except BenchError as error:
        raise Odd(str(error)) from error


def _refuse_mark(marked: bool, where: str) -> None:
    if marked:
        raise Odd(f"{where}: begins with a byte order mark: save it as UTF-8 without one")


def converted(value: Any, kind: type[T], where: str) -> T:
    """Return the plain values of a parsed file as ``kind``.

    Raises Odd, which names the values as ``where``, if they have another type.
    """
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        # The reason begins with the field (``seeds: ...``), in a list with the position (``[3]: ...``).
        reason = said(error)
        raise Odd(f"{where}{reason}" if reason.startswith("[") else f"{where}: {reason}") from error


def known(table: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    """Raise Odd, with the nearest name, for the first key of ``table`` that is not one of ``keys``."""
    names = tuple(keys)
    for key in table:
        if key not in names:
            near = nearest(key, names)
            raise Odd(f"{where}: unknown key '{shown(key)}'{near}; known: {', '.join(names) or 'none'}")


def said(error: Exception) -> str:
    """Return an error of reading in words, the field first: ``seeds[0]: Expected `int`, got `str```."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    found = _AT.match(" ".join(str(error).split()))
    what, at = (found["what"], found["at"]) if found else (str(error), None)
    at = (at or "").removeprefix("$").removeprefix(".")
    return f"{at}: {what}" if at else what
