"""Refuse an option with one value that is given twice, because one value would be ignored in silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.errors import BenchError


def refuse_twice(parameters: Sequence[Any], words: Sequence[str]) -> None:
    """Raise BenchError where ``words`` give an option with one value twice, or a switch both ways."""
    options = {
        name: parameter
        for parameter in parameters
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("-")
    }
    given: dict[int, list[tuple[str, str]]] = {}
    for name, value in _given(options, words):
        option = options[name]
        if option.multiple or getattr(option, "count", False):
            continue
        before = given.setdefault(id(option), [])
        before.append((name, value))
        if not option.is_flag and len(before) > 1:
            values = " and ".join(value for _, value in before)
            raise BenchError(f"{name} is given twice ({values}), but takes one value: leave one out")
        if option.is_flag and len({spelt for spelt, _ in before}) > 1:
            raise BenchError(
                f"{' and '.join(spelt for spelt, _ in before)} contradict each other: leave one out"
            )


def _given(options: Mapping[str, Any], words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options among a command's words, with their values; words after ``--`` are no options."""
    rest = iter(words)
    for word in rest:
        if word == "--":
            return
        name, joined, value = word.partition("=")
        if name not in options:
            continue
        takes = not options[name].is_flag
        yield name, value if joined else next(rest, "") if takes else ""
