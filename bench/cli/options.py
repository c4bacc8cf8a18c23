"""Comma-separated options; a path that exists is a path before it is a list."""

from __future__ import annotations

import os
from collections.abc import Callable

from bench.errors import BenchError


def names(text: str | None) -> tuple[str, ...]:
    """``a,b`` as names; nothing for None."""
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


def datasets(text: str | None) -> tuple[str, ...]:
    """``a,b`` as datasets, some of which may be folders or files with commas in their names."""
    return _split(text, _there)


def backbones(text: str | None) -> tuple[str, ...]:
    """``a,b`` as backbones; the file of an ``ARCH@FILE`` may have commas in its name."""
    return _split(text, lambda name: "@" in name and _there(name.partition("@")[2]))


def _split(text: str | None, is_one: Callable[[str], bool]) -> tuple[str, ...]:
    """The names between commas; from the left, the longest piece that ``is_one`` thing stays whole."""
    pieces = text.split(",") if text else []
    found = []
    while pieces:
        whole = (n for n in range(len(pieces), 1, -1) if is_one(",".join(pieces[:n]).strip()))
        count = next(whole, 1)
        found.append(",".join(pieces[:count]).strip())
        del pieces[:count]
    return tuple(filter(None, found))


def _there(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))


def numbers(text: str | None, option: str) -> tuple[int, ...]:
    """``1,16`` as whole numbers from 1 on. Raises BenchError naming the option."""
    try:
        values = tuple(int(part) for part in names(text))
    except ValueError as error:
        raise BenchError(
            f"{option} {text}: write whole numbers with commas, no ranges, as in {option} 1,2,3"
        ) from error
    if any(n < 1 for n in values):
        raise BenchError(f"{option} {text}: numbers start at 1")
    return values
