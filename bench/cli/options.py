"""Comma-separated options."""

from __future__ import annotations

from bench.errors import BenchError


def names(text: str | None) -> tuple[str, ...]:
    """``a,b`` as names; nothing for None."""
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


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
