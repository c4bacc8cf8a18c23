"""Turn what the command line cannot parse into one line that names the mend, as every other error is.

Typer prints a usage error as a box of several lines. Here it becomes a BenchError, which ``bench.cli.main``
prints. Typer's own sentences are kept where they are clear; misspelt options and verbs get the nearest name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from bench.cli.once import refuse_twice
from bench.errors import BenchError
from bench.names import nearest, shown

UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # Typer has it from click, or from its own copy
_NEVER_MEANT = ("--remove", "--yes", "--fresh", "--update")  # they delete, or write over what is there
_COMPLETION = {"--show-completion", "--install-completion"}
_SHELLS = ("bash", "zsh", "fish")
_PATH = "bench.path"  # in a context: the command that was parsed, and all words
# Of Typer's own words and of pydantic's, which Typer takes them from since 0.29:
_NO_NUMBER = re.compile(r"a valid (integer|number|float)")
_TOO_SMALL = re.compile(r"(?:greater than or equal to |range x>=)(\d+)")
_EXTRA = re.compile(r"Got unexpected extra argument(?:s|\(s\))? \(([^ )]+)\)")
_NO_VERB = re.compile(r"No such command '(.*?)'")


class Verbs(TyperGroup):
    """The program's verbs, whose usage errors are one line each."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of a command.

        Raises BenchError for a usage error, and for an option with one value that the verb got twice.
        """
        if not ctx.resilient_parsing:  # a shell that completes an unfinished command gets no errors
            self._refuse_twice(args)
            self._refuse_shell(args)
        ctx.meta[_PATH] = self._path(args), tuple(args)
        with _one_line(*ctx.meta[_PATH]):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the verb, whose help then wraps at the width of the terminal, not as the docstring does."""
        found = super().resolve_command(ctx, args)
        verbs = getattr(found[1], "commands", {}).values()
        for command in filter(None, (found[1], *verbs)):  # none of a misspelt word that a shell completes
            command.help = "\n\n".join(" ".join(p.split("\n")) for p in (command.help or "").split("\n\n"))
        return found

    def invoke(self, ctx: Any) -> Any:
        """Parse the words of the chosen verb and run it. Raises BenchError for a usage error."""
        with _one_line(*ctx.meta[_PATH]):
            return super().invoke(ctx)

    def _refuse_twice(self, args: list[str]) -> None:
        command, words = self._found(args)[1:]
        if not hasattr(command, "commands"):
            refuse_twice(command.params, words)

    def _refuse_shell(self, args: list[str]) -> None:
        """Raise BenchError for ``--show-completion zsh``.

        Typer would pass over the word and print the script of the shell that runs.
        """
        flags = {name for param in self.params if getattr(param, "is_flag", False) for name in param.opts}
        for option, word in pairwise(args):
            if option in _COMPLETION & flags and not word.startswith("-"):
                shell = word if word in _SHELLS else "zsh"
                raise BenchError(
                    f"{option} takes no value ({shown(word)}): it is for the shell that it runs in; "
                    f"`_BENCH_COMPLETE=source_{shell} bench` prints the script of {shell}"
                )

    def _path(self, args: list[str]) -> str:
        return " ".join(("bench", *self._found(args)[0]))

    def _found(self, args: list[str]) -> tuple[list[str], Any, list[str]]:
        """Return the names that lead to a verb, the verb, and the words that follow these."""
        command: Any = self
        path: list[str] = []
        words = list(args)
        while words and hasattr(command, "commands"):
            word = words.pop(0)
            if word in command.commands:
                command = command.commands[word]
                path.append(word)
            elif not word.startswith("-"):
                break
        return path, command, words


@contextmanager
def _one_line(path: str, words: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # Typer prints the help
            raise
        raise BenchError(line(error, path, words)) from error


def line(error: Any, path: str, words: Sequence[str]) -> str:
    """Return what a usage error says as one line, with the nearest name and the help to read.

    ``path``: the command that was parsed, as in ``bench data draw``. ``words``: what the user wrote.
    """
    context = error.ctx
    if type(error).__name__ == "NoSuchOption":
        hint = _near_option(error.option_name, context.command) or _of_bench(error.option_name, context)
        return f"{path} has no option {shown(error.option_name)}{hint}; `{path} --help` shows all"
    if found := _NO_VERB.match(error.message):
        hint = nearest(found[1], context.command.commands) or _of_bench(f"--{found[1]}", context)
        return f"there is no `{path} {shown(found[1])}`{hint}; `{path} --help` shows all"
    if kind := number_wanted(error):
        flag = next(flag for flag in error.param.opts if flag.startswith("--"))
        return f"{flag} {shown(_value(flag, words))}: {kind}; see `{path} --help`"
    if found := _EXTRA.match(error.message):
        there = Path(found[1]).is_dir() and any("--results" in p.opts for p in context.command.params)
        if there:
            return f"{path} takes no folder by itself: use --results {shown(found[1])}"
    said = " ".join(shown(error.format_message(), keep="\n").split()).removesuffix(".")
    return f"{said[:1].lower()}{said[1:]}; see `{path} --help`"


def number_wanted(error: Any) -> str:
    """Return what to write for an option whose value is no number of its kind; empty for another error."""
    if type(error).__name__ != "BadParameter" or not getattr(error.param, "opts", [""])[0].startswith("-"):
        return ""
    if found := _TOO_SMALL.search(error.message):
        return f"write a number from {found[1]} on"
    found = _NO_NUMBER.search(error.message)
    return "" if found is None else f"write a {'whole ' if found[1] == 'integer' else ''}number"


def _value(flag: str, words: Sequence[str]) -> str:
    """Return the value that the words give to an option."""
    for word, following in pairwise((*words, "")):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
    return ""


def _near_option(name: str, command: Any) -> str:
    """Return the hint at the option that is meant: the nearest, or the only one that begins with ``-V``'s v.

    It is never one that deletes or repeats work, because that one might be tried unread.
    """
    known = [flag for p in command.params for flag in (*p.opts, *p.secondary_opts)]
    options = [flag for flag in (*known, "--help") if flag.startswith("--") and flag not in _NEVER_MEANT]
    if len(name) == 2:  # a letter
        options = [flag for flag in options if flag[2] == name[1].lower()]
        return f" (did you mean '{options[0]}'?)" if len(options) == 1 else ""
    return nearest(name, options)


def _of_bench(option: str, context: Any) -> str:
    """Return the hint at an option that stands before the verb, as in ``bench --version``."""
    before = [flag for parameter in context.find_root().command.params for flag in parameter.opts]
    return f" (did you mean `bench {option}`?)" if option in before else ""
