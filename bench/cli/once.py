"""Options that take one value are refused when they are given twice: none is passed over in silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from typer.core import TyperGroup

from bench.errors import BenchError


class Once(TyperGroup):
    """The program's verbs, each of which takes a single-valued option once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As usual. Raises BenchError for a single-valued option that the chosen verb got twice."""
        command: Any = self
        words = list(args)
        while words and hasattr(command, "commands"):
            word = words.pop(0)
            if not word.startswith("-"):
                command = command.commands.get(word)
        if command is not None and not hasattr(command, "commands"):
            refuse_twice(command.params, words)
        return super().parse_args(ctx, args)


def refuse_twice(parameters: Sequence[Any], words: Sequence[str]) -> None:
    """Raises BenchError where ``words`` give an option with one value twice, or a switch both ways."""
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
            said = " and ".join(value for _, value in before)
            raise BenchError(f"{name} is given twice ({said}), and takes one value: leave one out")
        if option.is_flag and len({spelt for spelt, _ in before}) > 1:
            raise BenchError(
                f"{' and '.join(spelt for spelt, _ in before)} contradict each other: leave one out"
            )


def _given(options: Mapping[str, Any], words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The options among the words of a command with their values; what follows ``--`` is none."""
    rest = iter(words)
    for word in rest:
        if word == "--":
            return
        name, joined, value = word.partition("=")
        if name not in options:
            continue
        takes = not options[name].is_flag
        yield name, value if joined else next(rest, "") if takes else ""
