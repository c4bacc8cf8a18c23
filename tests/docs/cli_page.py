"""Write docs/cli.md from the verbs: ``python -m tests.docs.cli_page``, or ``--check`` to compare only.

The page is made from the commands themselves, not from their printed help, so that it does not depend on the
width of a terminal or on how a version of Typer or rich prints.
"""

from __future__ import annotations

import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import lru_cache
from inspect import cleandoc
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "cli.md"
COMMAND = "python -m tests.docs.cli_page"
_TOP = f"""# The command line

This page lists every verb of `bench` with its arguments, options and examples, as `bench VERB --help` shows
them. `-h` is short for `--help`. [exit-codes.md](exit-codes.md) says what the exit codes mean.

- An option with several values takes them with commas between them, as in `--shots 1,4,16`.
- `bench --install-completion` teaches your shell to complete verbs, options and names when you press Tab: the
  names of methods, datasets, backbones, prompt sets, suites and settings. `_BENCH_COMPLETE=source_zsh bench`
  prints the script of a shell by its name: `bash`, `zsh` or `fish`.

<!-- Made from the verbs by `{COMMAND}`: change the help of a verb instead of this page. -->
"""
# Help of options that are Typer's own, whose words another version may change.
_TYPERS = {
    "install_completion": "Install completion for the current shell.",
    "show_completion": "Print the completion script of the current shell, to install it by hand.",
}
BAR = "\\|"  # a vertical bar in a cell of a table
_KINDS = {int: "N", float: "NUMBER", Path: "PATH", str: "TEXT"}  # what stands for a value


def page() -> str:
    """Return the whole page."""
    from bench.cli.app import app

    root: Any = typer.main.get_command(app)
    sections = [_TOP, *_index(root), *_section(root, "bench", 2, "## bench")]
    for name, command in root.commands.items():
        sections += _section(command, f"bench {name}", 2, f"## bench {name}")
        for below, leaf in getattr(command, "commands", {}).items():
            sections += _section(leaf, f"bench {name} {below}", 3, f"### bench {name} {below}")
    return "\n\n".join(section.strip("\n") for section in sections) + "\n"


def leaves(command: Any, words: str = "bench") -> Iterator[tuple[str, Any]]:
    """Yield every verb that runs something, as it is typed, with its command."""
    below = getattr(command, "commands", None)
    if not below:
        yield words, command
    for name, inner in (below or {}).items():
        yield from leaves(inner, f"{words} {name}")


def examples(command: Any) -> list[str]:
    """Return the examples at the end of a command's help."""
    lines = re.split(r"\n\s*\n", cleandoc(command.epilog or ""))
    return [line.replace("\\[", "[") for line in lines if line and line != "Examples:"]


def _index(root: Any) -> list[str]:
    rows = ["| verb | what it does |", "|---|---|"]
    for name, command in root.commands.items():
        first = _prose(command.help).partition("\n\n")[0]
        rows.append(f"| [bench {name}](#bench-{name}) | {_cell(first)} |")
    return ["\n".join(rows)]


def _section(command: Any, words: str, level: int, heading: str) -> list[str]:
    parts = [heading, _prose(command.help), f"Usage: `{_usage(command, words)}`"]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    if arguments:
        parts.append(_table("argument", ((_upper(p), p) for p in arguments)))
    panels: dict[str, list[Any]] = {}
    for p in options:
        panels.setdefault(getattr(p, "rich_help_panel", None) or "", []).append(p)
    for panel, held in sorted(panels.items(), key=lambda item: bool(item[0])):  # those of no panel first
        if panel:
            parts.append(f"**{panel}**")
        parts.append(_table("option", ((_written(p, command), p) for p in held)))
    if shown := examples(command):
        lines = "\n".join(f"$ {example}" for example in shown)
        parts.append(f"<!-- not run: examples of the help -->\n```console\n{lines}\n```")
    return parts


def _usage(command: Any, words: str) -> str:
    if hasattr(command, "commands"):
        return f"{words} {'VERB' if words == 'bench' else '{' + '|'.join(command.commands) + '}'} ..."
    named = [
        (_upper(p) if p.required else f"[{_upper(p)}]") + ("..." if p.nargs == -1 else "")
        for p in command.params
        if p.param_type_name == "argument"
    ]
    needed = [_written(p, command) for p in command.params if p.param_type_name == "option" and p.required]
    rest = [p for p in command.params if p.param_type_name == "option" and not p.required]
    return " ".join([words, *named, *needed, *(["[OPTIONS]"] if rest else [])])


def _table(what: str, rows: Iterable[tuple[str, Any]]) -> str:
    lines = [f"| {what} | meaning | default |", "|---|---|---|"]
    for written, p in rows:
        meaning = _cell(_TYPERS.get(p.name) or _prose(p.help))
        if p.envvar:
            meaning += f" Without it, `${p.envvar}` is read."
        lines.append(f"| `{written.replace('|', BAR)}` | {meaning} | {_default(p)} |")
    return "\n".join(lines)


def _upper(p: Any) -> str:
    return p.metavar or p.name.upper()


def _written(p: Any, command: Any) -> str:
    """Return an option as it is typed, with a word that stands for its value: ``--jobs N``."""
    names = ", ".join(sorted((n for n in p.opts), key=lambda n: not n.startswith("--")))
    if p.secondary_opts:
        return f"{names} / {', '.join(p.secondary_opts)}"
    return names if p.is_flag else f"{names} {p.metavar or _kind(p, command)}"


@lru_cache
def _hints(callback: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of a verb's options; resolving them takes a while."""
    return typing.get_type_hints(callback)


def _kind(p: Any, command: Any) -> str:
    hints = _hints(command.callback)
    for hint in (hints.get(p.name), *typing.get_args(hints.get(p.name))):
        for kind in (hint, *typing.get_args(hint)):
            if isinstance(kind, type) and issubclass(kind, Enum):
                return "{" + "|".join(str(choice.value) for choice in kind) + "}"
            if kind in _KINDS:
                return _KINDS[kind]
    raise AssertionError(f"{p.name}: no word for a value of {hints.get(p.name)}")


def _default(p: Any) -> str:
    value = p.default
    if p.param_type_name == "option" and p.is_flag:
        if not p.secondary_opts or value is None:
            return ""
        return f"`{(p.opts if value else p.secondary_opts)[0]}`"
    if value is None or value is ... or p.required or callable(value):
        return ""
    return f"`{value.value if isinstance(value, Enum) else value}`"


def _prose(text: str | None) -> str:
    return cleandoc(text or "")


def _cell(text: str) -> str:
    """Return a text for a cell of a table: on one line, without signs that Markdown would read."""
    return re.sub(r"([|*<])", r"\\\1", " ".join(text.split()))


def main(arguments: list[str]) -> int:
    """Write the page, or compare it with ``--check``; return the exit code."""
    made = page()
    if arguments == ["--check"]:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == made:
            return 0
        print(f"{PAGE.relative_to(ROOT)} is not what the verbs say: run {COMMAND}", file=sys.stderr)
        return 1
    if arguments:
        print(f"usage: {COMMAND} [--check]", file=sys.stderr)
        return 2
    PAGE.write_text(made, encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
