"""What is read from outside (JSON, TOML) as typed structures; errors name the file and the field."""

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
    """Content that is not of the type it should be; the message names the file and the field."""


def json(file: Path, kind: type[T]) -> T:
    """The content of a JSON file as ``kind``. Raises Odd where it is not JSON, or of another type."""
    return decoded(_text(file).encode(), kind, str(file))


def decoded(data: bytes, kind: type[T], where: str) -> T:
    """JSON text as ``kind``; ``where`` names it in messages. Raises Odd."""
    _refuse_mark(data.startswith(codecs.BOM_UTF8), where)
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise Odd(f"{where}: {said(error)}") from error


def toml(file: Path, kind: type[T]) -> T:
    """The content of a TOML file as ``kind``. Raises Odd where it is not TOML, or of another type."""
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
    """Plain Python values (of a parsed file) as ``kind``; ``where`` names them in messages. Raises Odd."""
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        reason = said(
            error
        )  # of a list it begins with the place: ``split.json: train`` and ``[3]: Expected``
        raise Odd(f"{where}{reason}" if reason.startswith("[") else f"{where}: {reason}") from error


def known(table: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    """Raise Odd, with the nearest name, for the first key of ``table`` that is not among ``keys``."""
    names = tuple(keys)
    for key in table:
        if key not in names:
            near = nearest(key, names)
            raise Odd(f"{where}: unknown key '{shown(key)}'{near}; known: {', '.join(names) or 'none'}")


def said(error: Exception) -> str:
    """An error of reading in words, the field first: ``seeds[0]: Expected `int`, got `str```."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    found = _AT.match(" ".join(str(error).split()))
    what, at = (found["what"], found["at"]) if found else (str(error), None)
    at = (at or "").removeprefix("$").removeprefix(".")
    return f"{at}: {what}" if at else what
