"""docs/cli.md is what the verbs say, whatever the terminal; every verb's help ends in examples that work."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bench.cli.app import app
from tests.docs import cli_page

ROOT: Any = typer.main.get_command(app)
LEAVES = dict(cli_page.leaves(ROOT))
GROUPS = {f"bench {name}": command for name, command in ROOT.commands.items() if hasattr(command, "commands")}
EXAMPLES = [
    (words, example)
    for words, command in {"bench": ROOT, **GROUPS, **LEAVES}.items()
    for example in cli_page.examples(command)
]


def test_the_page_is_what_the_verbs_say(monkeypatch: pytest.MonkeyPatch) -> None:
    made = cli_page.page()
    shown = cli_page.PAGE.read_text(encoding="utf-8")
    assert shown == made, f"run: {cli_page.COMMAND}"
    monkeypatch.setenv("COLUMNS", "40")
    assert cli_page.page() == made
    assert not re.search(r"\[/?[a-z]+\]", made), "no markup of rich"


def test_every_verb_and_option_is_on_the_page() -> None:
    page = cli_page.page()
    for words, command in LEAVES.items():
        section = page.partition(f"# {words}\n")[2].partition("\n#")[0]
        assert section, words
        for p in command.params:
            if p.param_type_name == "option":
                assert any(f"`{name}" in section for name in p.opts), f"{words} {p.opts}"


def test_a_page_that_is_behind_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_page, "ROOT", tmp_path)
    monkeypatch.setattr(cli_page, "PAGE", tmp_path / "cli.md")
    assert cli_page.main(["--check"]) == 1
    assert f"cli.md is not what the verbs say: run {cli_page.COMMAND}" in capsys.readouterr().err
    assert cli_page.main([]) == 0 and cli_page.main(["--check"]) == 0
    assert cli_page.main(["--nope"]) == 2


@pytest.mark.parametrize("words", LEAVES)
def test_every_verb_has_an_example(words: str) -> None:
    found = cli_page.examples(LEAVES[words])
    assert found, f'{words}: add epilog=examples("{words} ...")'
    assert any(example.startswith(f"{words}") for example in found), "at least one is of the verb itself"


@pytest.mark.parametrize(("words", "example"), EXAMPLES)
def test_examples_parse(words: str, example: str) -> None:
    args = shlex.split(example)
    assert args[0] == "bench"
    command, path = ROOT, "bench"
    while hasattr(command, "commands"):
        path = f"{path} {args[1]}"
        command = command.commands[args.pop(1)]
    command.make_context(path, args[1:])


@pytest.mark.parametrize("words", ["bench", *GROUPS, *LEAVES])
def test_examples_are_on_lines_of_their_own_in_the_help(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns, so that they can be copied."""
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, [*words.split()[1:], "-h"])
    assert shown.exit_code == 0, shown.output
    lines = [line.strip() for line in shown.output.splitlines()]
    for example in (e for w, e in EXAMPLES if w == words):
        assert example in lines, f"{example}: has {len(example)} characters of at most 78"
