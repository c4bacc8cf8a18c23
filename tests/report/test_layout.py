"""Tables on a terminal: blocks that fit its width, whole words, and only notes on what is printed."""

from __future__ import annotations

import re

import pytest

from bench.report.render import render
from bench.report.render_console import PIPED
from bench.report.table import Row, Score, Table

NAMES = ["animal-kinds", "birds", "digits", "fruit-and-vegetables", "tools-and-instruments", "average"]
LABELS = ["Zero-shot CLIP (mined-val: uses labels)", "Tip-Adapter-F", "my_method"]


def wide() -> Table:
    rows = [
        Row(
            (label, str(shots)),
            {n: Score(10.0 * i + shots, f"{10.0 * i + shots:.2f}") for n in NAMES},
            block=(shots,),
        )
        for shots in (1, 16)
        for i, label in enumerate(LABELS)
    ]
    best = rows[0].entries["birds"]
    rows[0].entries["birds"] = Score(best.value, best.text, best=True)
    return Table("Few-shot accuracy", NAMES, rows, ["a note", "bold: best"], styles=["bold: best"])


def plain(table: Table, width: int = PIPED) -> list[str]:
    return render(table, "console", width, styled=False).splitlines()


def numbers(lines: list[str]) -> list[str]:
    return [text for line in lines for text in re.findall(r"\d+\.\d\d", line)]


@pytest.mark.parametrize("width", [60, 80, 100, PIPED])
def test_lines_fit_and_nothing_is_lost(width: int) -> None:
    lines = plain(wide(), width)
    assert max(map(len, lines)) <= width
    assert sorted(numbers(lines)) == sorted(numbers(plain(wide(), 10_000)))
    words = {word for line in lines for word in line.split()}
    for name in (*LABELS, *NAMES):
        for word in re.split(r"(?<=-)| ", name) if name in NAMES else name.split():
            assert word in words, f"{word} is broken at {width}"


def test_a_wide_terminal_has_one_block_and_a_narrow_one_names_rows_in_each() -> None:
    counts = {width: sum("─" in line for line in plain(wide(), width)) for width in (60, 80, 160)}
    assert counts[160] == 1 < counts[80] < counts[60]
    assert sum("Tip-Adapter-F" in line for line in plain(wide(), 80)) == 2 * counts[80]


def test_a_word_longer_than_the_line_stays_whole() -> None:
    name = "a" * 50
    table = Table("t", ["x"], [Row((f"{name} b", "1"), {"x": Score(1.0, "1.00")})])
    lines = plain(table, 40)
    assert any(name in line for line in lines)
    assert numbers(lines) == ["1.00"]


def test_a_command_in_a_note_stays_on_one_line() -> None:
    command = "`bench table ablation --results 'a folder'`"
    note = f"some words and {command} shows"
    table = Table("t", ["x"], [Row(("a", "1"), {"x": Score(1.0, "1.00")})], [note])
    assert any(command in line for line in plain(table, 60))


def test_notes_explain_only_what_is_printed() -> None:
    assert "bold: best" not in plain(wide()) and "a note" in plain(wide())
    styled = render(wide(), "console")
    assert "bold: best" in styled and "\x1b[1m1.00\x1b[0m" in styled
    assert "bold: best" in render(wide(), "md")


def test_underscores_survive_latex() -> None:
    assert "my\\_method" in render(wide(), "latex") and "my_method" in render(wide(), "md")
