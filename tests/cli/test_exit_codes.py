"""docs/exit-codes.md lists every verb, and verbs exit as it says, as far as a quick test can show."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from bench.cli.codes import ORDER, Code, first
from bench.records.types import Failure
from tests.run.conftest import Bench, bench, cache, images, of_type

__all__ = ["bench", "cache", "images"]
ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
BROKEN = (
    "from bench.interface import Method\n\n\n"
    "class Broken(Method):\n    name = 'broken'\n    title = 'Broken'\n\n"
    "    def logits(self, params, consts, features, values):\n"
    "        raise RuntimeError('wrong on purpose')\n"
)


def verbs(command: Any, words: str) -> list[str]:
    """Every command below one, as it is typed."""
    below = getattr(command, "commands", None)
    return [words] if not below else [v for name, c in below.items() for v in verbs(c, f"{words} {name}")]


def test_every_verb_and_every_code_is_in_the_tables() -> None:
    from bench.cli.app import app

    there = set(re.findall(r"^\| `(bench [^`]+)`", PAGE, re.M))
    assert there - {"bench run --dry-run", "bench check --rerun"} == set(
        verbs(typer.main.get_command(app), "bench")
    )
    assert {int(n) for n in re.findall(r"^\| (\d+) \|", PAGE, re.M)} == {int(code) for code in Code}


def test_the_page_has_the_order_in_which_codes_count() -> None:
    said = re.search(r"the first of ([\d, and]+) counts", PAGE)
    assert said and [int(n) for n in re.findall(r"\d", said[1])] == [int(code) for code in ORDER[:-1]]
    assert first(Code.INCOMPLETE, Code.CHANGED) is Code.CHANGED and first(Code.GOOD) is Code.GOOD


def test_a_spent_budget_is_3_and_a_failure_comes_before_it(bench: Bench, tmp_path: Path) -> None:
    spent = bench("run", "--methods", "zero-shot", "--time-budget", "0", "--results", tmp_path / "a")
    assert spent.exit_code == 3
    assert "done: 0 of 1 cell, 1 left, 0 recorded before; 0 fits, 0 evaluations" in spent.output
    plugin = tmp_path / "broken.py"
    plugin.write_text(BROKEN)
    failing = ("--methods", "broken", "--plugin", plugin, "--seeds", "1,2", "--jobs", "1")
    with pytest.MonkeyPatch.context() as patch:
        from bench.run.desk import Desk

        original = Desk.do

        def slow(desk: Desk, t: Any) -> Any:
            ended = original(desk, t)
            patch.setattr("bench.executors.serial.time", SimpleNamespace(monotonic=lambda: math.inf))
            return ended

        patch.setattr(Desk, "do", slow)
        both = bench("run", *failing, "--time-budget", "60", "--results", tmp_path / "b")
    assert both.exit_code == 1, both.output
    assert "done: 1 of 2 cells, 1 left, 0 recorded before" in both.output and "; 1 failed" in both.output
    assert "the time budget is spent" in both.output and len(of_type(tmp_path / "b", Failure)) == 1


def test_blocked_cells_are_good_beside_others_and_2_alone(bench: Bench, tmp_path: Path) -> None:
    missing = ("--methods", "zero-shot", "--results", tmp_path, "--prompts")
    some = bench("run", *missing, "mined,vanilla")
    assert some.exit_code == 0, some.output
    assert some.output.splitlines()[-1].startswith("done: 1 cell,") and some.output.rstrip().endswith(
        "; 1 blocked"
    )
    again = bench("run", *missing, "mined,vanilla")
    assert again.exit_code == 0 and "done: 1 cell was recorded before" in again.output
    alone = bench("run", *missing, "mined", "--shots", "1")
    assert alone.exit_code == 2 and "nothing can run; see the reasons above" in alone.output
    assert bench("run", *missing, "mined", "--shots", "1", "--dry-run").exit_code == 0


def test_usage_errors_are_2(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.cli import main

    for words in ([], ["nope"], ["run", "--nope"], ["list"], ["compare", "safe"]):
        monkeypatch.setattr(sys, "argv", ["bench", *words])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2, words


def make_run(folder: Path, run: int, table: int, args: str) -> tuple[list[str], int]:
    """`make run` with a stand-in for the command: the calls that it got, and the code that make reports."""
    done = subprocess.run(
        ["make", "run", f"VENV={folder}", "-o", f"{folder}/.installed", f"ARGS={args}"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "CODE": str(run), "TABLE": str(table)},
        capture_output=True,
        text=True,
        check=False,
    )
    code = re.search(r"Error (\d+)", done.stderr)
    assert (code is None) == (done.returncode == 0), done.stdout + done.stderr
    return re.findall(r"^called (.*)$", done.stdout, re.M), int(code[1]) if code else 0


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A folder whose command says what it is called with; a run ends with $CODE, a table with $TABLE."""
    (tmp_path / "bin").mkdir()
    (tmp_path / ".installed").touch()
    command = tmp_path / "bin" / "bench"
    command.write_text('#!/bin/sh\necho "called" "$@"\nif [ "$1" = run ]; then exit $CODE; fi\nexit $TABLE\n')
    command.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("run", "table", "shown", "code"),
    [(0, 0, True, 0), (3, 2, True, 3), (1, 0, True, 1), (2, 0, False, 2), (0, 2, True, 2)],
)
def test_make_run_shows_the_table_of_what_is_recorded(
    stand_in: Path, run: int, table: int, shown: bool, code: int
) -> None:
    """Whatever ARGS are: a budget, which alone leaves cells (3), is given there."""
    for args in ("", "--time-budget 1"):
        calls, ended = make_run(stand_in, run, table, args)
        assert [call.split()[0] for call in calls] == ["run", "table"][: 1 + shown]
        assert (args in calls[0] if args else "--methods" in calls[0]) and ended == code


@pytest.mark.parametrize(
    ("args", "after"),
    [
        ("--results 'a b' --shots 1", ["table --results a b"]),
        ("--results=c", ["table --results c"]),
        ("--results c --dry-run", []),
        ("--help", []),
    ],
)
def test_make_run_shows_the_table_of_the_same_results(stand_in: Path, args: str, after: list[str]) -> None:
    assert make_run(stand_in, 0, 0, args)[0][1:] == after
