"""Files that verbs write, folders that they read, and options that are given twice."""

from __future__ import annotations

import csv
import json
import os
import pty
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bench.errors import BenchError
from bench.report.frame import load_results
from tests.report.synthetic import grid, write_cell

LATER = "2026-02-01T00:00:00.000+00:00"
Bench = Callable[..., Result]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grid(tmp_path_factory.mktemp("runs"), {"zero-shot": 0.5, "safe": 0.6, "coop": 0.4})


@pytest.fixture
def bench() -> Bench:
    from bench.cli.app import app

    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.mark.parametrize("verb", [("table",), ("compare", "safe", "coop")])
@pytest.mark.parametrize(
    ("ending", "start"),
    [(".tex", "% needs"), (".md", "| "), (".html", "<!doctype"), (".json", "{"), (".txt", ""), (".CSV", "")],
)
def test_the_format_follows_the_ending(
    bench: Bench, runs: Path, tmp_path: Path, verb: tuple[str, ...], ending: str, start: str
) -> None:
    done = bench(*verb, "--results", runs, "--out", tmp_path / f"t{ending}")
    assert done.exit_code == 0, done.output
    text = (tmp_path / f"t{ending}").read_text()
    assert text.startswith(start)
    assert (ending == ".txt") == ("─" in text)
    assert (len({len(r) for r in csv.reader(text.splitlines())}) == 1) or ending != ".CSV"


@pytest.mark.parametrize(
    ("verb", "options", "says"),
    [
        (("table",), ("--out", "t.dat"), "end it in .txt, .md, .tex"),
        (("table",), ("--out", "t.tex", "--format", "md"), "leave one out"),
        (("table",), ("--format", "latec"), "did you mean 'latex'"),
        (("compare", "safe", "coop"), ("--out", "t"), "end it in .txt"),
        (("report",), ("--out", "t.pdf"), "name it t.html"),
        (("plot",), ("--out", "t.doc"), "name it t.pdf or t.png or t.svg"),
    ],
)
def test_other_endings_are_refused_before_records_are_read(
    bench: Bench, tmp_path: Path, verb: tuple[str, ...], options: tuple[str, ...], says: str
) -> None:
    with pytest.raises(BenchError, match=says):
        raise bench(*verb, *options, "--results", tmp_path / "nowhere").exception or AssertionError


def test_a_named_format_needs_no_ending(bench: Bench, runs: Path, tmp_path: Path) -> None:
    assert bench("table", "--results", runs, "--format", "json", "--out", tmp_path / "t").exit_code == 0
    assert json.loads((tmp_path / "t").read_text())["title"] == "Few-shot accuracy"


def test_two_results_folders_are_read_together(bench: Bench, tmp_path: Path) -> None:
    one = grid(tmp_path / "one", {"safe": 0.6}, shots=(1,), folder="one")
    two = grid(tmp_path / "two", {"coop": 0.4}, shots=(1,), folder="two")
    both = ("--results", one, "--results", two)
    assert bench("table", *both, "--format", "csv").output.splitlines()[1:] == [
        "coop,1,40.00,40.00,40.00",
        "safe,1,60.00,60.00,60.00",
    ]
    assert "safe is better than coop by 20.00 points" in bench("compare", "safe", "coop", *both).output
    assert bench("plot", "shots", *both, "--out", tmp_path / "f.svg").exit_code == 0
    with pytest.raises(BenchError, match="no records under"):
        load_results([one, tmp_path / "none"])


def test_the_same_record_in_two_folders_is_one(tmp_path: Path) -> None:
    one = grid(tmp_path / "one", {"safe": 0.6}, shots=(1,), folder="one")
    shutil.copytree(one, tmp_path / "copy")
    frame = load_results([one, tmp_path / "copy"])
    assert len(frame) == 6 and frame.attrs["notes"] == []


def test_folders_that_disagree_are_named(tmp_path: Path) -> None:
    write_cell(tmp_path / "one", "safe", "ants", 1, 1, 0.6, folder="one")
    write_cell(tmp_path / "two", "safe", "ants", 1, 1, 0.8, folder="two", written=LATER)
    for order in (("one", "two"), ("two", "one")):
        frame = load_results([tmp_path / name for name in order])
        assert list(frame["accuracy"]) == [pytest.approx(80.0)], "the later one, in whatever order"
        assert frame.attrs["notes"] == [
            "The merged folders disagree on safe on ants. The later-written record counts; "
            "`bench merge ... --prefer FOLDER` lets you choose.",
            "Left out: 1 record of cells that were run again.",
        ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("check", "--results", "a", "--results=b"), "--results is given twice (a and b)"),
        (("pack", "--results", "a", "--results", "a"), "--results is given twice (a and a)"),
        (("table", "--methods", "a", "--methods", "b"), "--methods is given twice"),
        (("list", "methods", "--format", "text", "--format", "json"), "--format is given twice"),
        (("run", "--shots", "1", "--shots", "2"), "--shots is given twice"),
        (("table", "--bold", "--no-bold"), "--bold and --no-bold contradict each other"),
        (("explain", "share", "--seeds", "1", "--seeds", "2"), "--seeds is given twice"),
    ],
)
def test_single_valued_options_are_given_once(bench: Bench, words: tuple[str, ...], says: str) -> None:
    error = bench(*words).exception
    assert isinstance(error, BenchError) and says in str(error)


def test_a_value_that_looks_like_an_option_is_none(bench: Bench, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    done = bench("report", "--results", runs, "--title", "--title", "--out", out)
    assert done.exit_code == 0 and "<h1>--title</h1>" in out.read_text()


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("failed")
    for method in ("safe", "coop"):
        write_cell(folder, method, "ants", 1, 1, 0.0, fail="out of memory")
    return folder


def test_failed_cells_alone_are_shown(bench: Bench, failed: Path, tmp_path: Path) -> None:
    assert "ERR: coop and safe at 1 shot failed: out of memory" in bench("table", "--results", failed).output
    assert bench("report", "--results", failed, "--out", tmp_path / "o.html").exit_code == 0
    assert "2 cells failed; the tables show them as ERR." in (tmp_path / "o.html").read_text()


@pytest.mark.parametrize(
    ("verb", "says"),
    [
        (("compare", "safe", "coop"), "safe and coop have no complete cell in common; "
         "run the missing ones with `bench run`. Left out: ants at 1 shot (safe and coop failed)."),
        (("plot", "shots"), "no method has all results that the figure needs. "
         "Left out, because seeds or datasets are missing or failed: coop and safe at 1 shot. "
         "`bench run --results {results}` runs what is missing"),
        (("plot", "beta"), "no recorded method has a setting 'beta'"),
    ],
)  # fmt: skip
def test_of_failed_cells_alone_nothing_is_compared(
    bench: Bench, failed: Path, tmp_path: Path, verb: tuple[str, ...], says: str
) -> None:
    out = ("--out", tmp_path / "o.svg") if verb[0] == "plot" else ()
    done = bench(*verb, "--results", failed, *out)
    assert isinstance(done.exception, BenchError)
    assert str(done.exception) == says.format(results=failed)
    assert not (tmp_path / "o.svg").exists()


def test_the_report_says_where_it_is(bench: Bench, runs: Path, tmp_path: Path) -> None:
    done = bench("report", "--results", runs, "--out", tmp_path / "r.html")
    lines = [line for line in done.stderr.splitlines() if line.startswith("report: ")]
    assert [line.split("  (")[0] for line in lines[:3]] == [
        "report: records [0/7]",
        "report: tables [1/7]",
        "report: figures [2/7]",
    ]


def test_a_terminal_gets_blocks_of_its_width(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.cli.show import show
    from bench.report.tables import table

    ours, theirs = pty.openpty()
    monkeypatch.setenv("COLUMNS", "40")
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        show(table(load_results(runs)), "console", None)
    text = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "\x1b[1m" in text and sum("─" in line for line in text.splitlines()) == 2


def test_a_dataset_of_records_is_named_by_its_path_too(bench: Bench, tmp_path: Path) -> None:
    """Tables call the folder `cats,dogs` cats-dogs; the comma in its path parts nothing."""
    results = grid(tmp_path / "r", {"safe": 0.6, "coop": 0.4}, ("ants", "cats-dogs"), (1,))
    for name in ("a", "b"):
        for part in ("train", "test"):
            (tmp_path / "cats,dogs" / part / name).mkdir(parents=True)
    for written in (tmp_path / "cats,dogs", "cats-dogs"):
        chosen = ("--results", results, "--datasets", written)
        assert bench("table", *chosen, "--format", "csv").output.splitlines()[0] == "method,shots,cats-dogs"
        compared = bench("compare", "safe", "coop", *chosen).output
        assert "cats-dogs" in compared and "ants" not in compared
        assert bench("plot", "shots", *chosen, "--out", tmp_path / "f.svg").exit_code == 0
        baseline = ("--baseline", tmp_path / "b.json", "--results", results)
        assert "6 evaluations" in bench("check", "--update", *baseline, "--datasets", written).output
        bench("check", "--update", *baseline, "--datasets", "ants")
        both = bench("check", "--update", *baseline, "--datasets", f"{written},ants")
        assert "12 evaluations" in both.output, "other cells than those of the baseline that it replaces"
        assert bench("check", *baseline, "--datasets", written).exit_code == 0
    sizes = bench("table", "2", "--results", results, "--datasets", tmp_path / "cats,dogs", "--format", "csv")
    assert sizes.exit_code == 0 and "cats-dogs" in sizes.output
