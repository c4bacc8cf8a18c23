"""What is missing or failed, as tables show and say it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bench.records import store
from bench.records.types import Failure
from bench.report.frame import load_results
from bench.report.render import render
from bench.report.table import FAILED, MISSING, Row, Table
from bench.report.tables import table
from tests.report.synthetic import grid, write_cell


def row(table: Table, name: str, shots: int) -> Row:
    return next(r for r in table.rows if r.names[0] == name and r.shots == shots)


def test_a_mean_over_some_of_the_seeds_says_so(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6}, shots=(1,))
    write_cell(tmp_path, "safe", "ants", 1, 4, 0.6)
    printed = table(load_results(tmp_path))
    entries = row(printed, "safe", 1).entries
    assert (entries["ants"].text, entries["bees"].text) == ("60.00", "60.00 (3/4)")
    assert (entries["bees"].seeds, entries["bees"].partial) == ((1, 2, 3), True)
    assert entries["average"].text == MISSING, "no average of what is incomplete"
    assert "Fewer seeds: safe has seeds 1, 2 and 3, but not 4, on bees at 1 shot." in printed.notes
    assert not any(note.startswith("Incomplete") for note in printed.notes)
    partial = row(table(load_results(tmp_path), partial=True), "safe", 1).entries["average"]
    assert (partial.text, partial.partial) == ("60.00*", True)


def test_a_row_with_fewer_seeds_than_the_others_everywhere_says_so(tmp_path: Path) -> None:
    """Of one shot's rows one has a seed of three: every number of it says so, and so does a note that plain
    text has too."""
    grid(tmp_path, {"safe": 0.6, "coop": 0.4}, shots=(1,))
    grid(tmp_path, {"lp": 0.5}, shots=(1,), seeds=(1,))
    grid(tmp_path, {"lp": 0.5, "zero-shot": 0.3}, shots=(16,), seeds=(1,))
    printed = table(load_results(tmp_path))
    texts = {m: {c: e.text for c, e in row(printed, m, 1).entries.items()} for m in ("lp", "safe")}
    assert texts["lp"] == {"ants": "49.00 (1/3)", "bees": "49.00 (1/3)", "average": "49.00 (1/3)"}
    assert texts["safe"] == {"ants": "60.00", "bees": "60.00", "average": "60.00"}
    assert "Fewer seeds than other rows: lp at 1 shot (seed 1, but not 2 and 3)." in printed.notes
    assert "Fewer seeds than other rows: lp at 1 shot" in render(printed, "console", styled=False)
    alone = [e.text for e in row(printed, "lp", 16).entries.values()]
    assert alone == ["59.00", "59.00", "59.00"], "no other row has more seeds at these shots"
    write_cell(tmp_path, "lp", "ants", 1, 2, 0.5)
    entries = row(table(load_results(tmp_path)), "lp", 1).entries
    assert [entries[c].text for c in ("ants", "bees")] == ["49.50 (2/3)", "49.00 (1/3)"]
    assert entries["average"].text == MISSING


def test_an_interrupted_run_shows_what_is_there(tmp_path: Path) -> None:
    """One seed of three is recorded on a dataset: its numbers are there, those of equal seeds compared."""
    methods = {"zero-shot": 0.5, "safe": 0.6, "coop": 0.4, "lp": 0.5}
    grid(tmp_path, methods, datasets=("ants", "bees"), shots=(16,))
    for method, accuracy in (("safe", 0.9), ("coop", 0.3)):
        write_cell(tmp_path, method, "cats", 16, 1, accuracy)
    for seed in (1, 2):
        write_cell(tmp_path, "lp", "cats", 16, seed, 0.95)
    printed = table(load_results(tmp_path))
    safe, coop, lp = (row(printed, m, 16).entries["cats"] for m in ("safe", "coop", "lp"))
    assert (safe.text, coop.text, lp.text) == ("90.00 (1/3)", "30.00 (1/3)", "95.00 (2/3)")
    assert (safe.best, coop.best, lp.best) == (True, False, False), "lp has other seeds there"
    assert not coop.tied and not lp.tied
    assert row(printed, "safe", 16).entries["ants"].best
    assert "Fewer seeds: coop and safe have seed 1, but not 2 and 3, on cats at 16 shots." in printed.notes
    assert "Fewer seeds: lp has seeds 1 and 2, but not 3, on cats at 16 shots." in printed.notes
    assert [n for n in printed.notes if n.startswith("Incomplete")] == [
        "Incomplete at zero-shot: zero-shot has no result on cats."
    ]
    assert (
        "Neither bold nor underlined, because the other rows have other seeds: lp on cats at 16 shots."
        in printed.styles
    )
    assert render(printed, "csv").splitlines()[-1].startswith("safe,16,70.00,70.00,90.00 (1/3)")
    assert json.loads(render(printed, "json"))["rows"][-1]["entries"]["cats"]["seeds"] == [1]


def test_one_failed_seed_stays_an_error(tmp_path: Path) -> None:
    tmp_path = tmp_path / "a folder of many words" / "and of some more, so that its path fills lines"
    grid(tmp_path, {"safe": 0.6}, shots=(1,))
    write_cell(tmp_path, "safe", "cats", 1, 1, 0.6)
    write_cell(tmp_path, "safe", "cats", 1, 2, 0.6, fail="it broke")
    write_cell(tmp_path, "coop", "cats", 1, 1, 0.6, fail="it broke")
    printed = table(load_results(tmp_path))
    assert row(printed, "safe", 1).entries["cats"].text == FAILED
    start = "ERR: coop and safe at 1 shot failed: it broke (the first of 2 records is "
    (note,) = [n for n in printed.notes if n.startswith(start)]
    assert not any(n.startswith("Incomplete at 1 shot") and "cats" in n for n in printed.notes)
    assert any("Rows with gaps have no average" in n for n in printed.notes)
    words = re.search("`(.+)`", note)
    assert words and store.read(Path(words[1])), "the path can be copied out of the terminal"
    assert words[1] in printed.text("console")


def test_only_failures(tmp_path: Path) -> None:
    for method in ("safe", "coop"):
        write_cell(tmp_path, method, "ants", 1, 1, 0.0, fail="out of memory")
    printed = table(load_results(tmp_path))
    assert [r.entries["ants"].text for r in printed.rows] == [FAILED, FAILED]
    (note,) = [n for n in printed.notes if n.startswith("ERR")]
    assert note.startswith("ERR: coop and safe at 1 shot failed: out of memory (the first of 2 records is ")
    failure = store.read(Path(note.split("`")[1]))
    assert isinstance(failure, Failure) and failure.error == "out of memory"


def test_tables_name_the_preset(tmp_path: Path) -> None:
    write_cell(tmp_path, "safe", "ants", 1, 1, 0.6)
    assert any("The preset 'quick' trains briefly" in note for note in table(load_results(tmp_path)).notes)
    write_cell(tmp_path / "full", "safe", "ants", 1, 1, 0.6, preset="paper")
    assert not any("preset" in note for note in table(load_results(tmp_path / "full")).notes)
