"""Every form of a table says the same, whatever characters its names hold."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.names import shown
from bench.report import render_markdown
from bench.report.frame import load_results
from bench.report.render import FORMATS, render
from bench.report.render_latex import escape
from bench.report.table import Row, Score, Table
from bench.report.tables import table
from tests.cli.hostile import TITLE, raw
from tests.report.synthetic import grid

NASTY = r"<script>alert('x')</script> a&b_c 50% $x$ #1 {y} ~z ^w \end{tabular} [q] a|b *c* β"
ENGINES = ("pdflatex", "xelatex", "lualatex", "tectonic")


def nasty() -> Table:
    rows = [
        Row(
            (NASTY, "1"),
            {NASTY: Score(1.0, "1.00", best=True), "verdict": Score(text=NASTY, note=NASTY)},
            block=(1,),
        ),
        Row(("[plain] row", "16"), {NASTY: Score(2.0, "2.00", tied=True), "verdict": Score()}, block=(2,)),
    ]
    return Table(NASTY, [NASTY, "verdict"], rows, [NASTY], left=("verdict",))


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return load_results(
        grid(
            tmp_path_factory.mktemp("r"), {"zero-shot": 0.5, "safe": 0.6, "tip-adapter-f": 0.595, "coop": 0.4}
        )
    )


class Reader(HTMLParser):
    """Collects the tags and the text of table cells."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def test_csv(frame: pd.DataFrame) -> None:
    rows = list(csv.DictReader(render(table(frame), "csv").splitlines()))
    assert list(rows[0]) == ["method", "shots", "ants", "bees", "average"]
    assert {(r["method"], r["shots"]): r["ants"] for r in rows}["safe", "1"] == "60.00"


def test_json(frame: pd.DataFrame) -> None:
    whole = json.loads(render(table(frame), "json"))
    safe = next(r for r in whole["rows"] if r["method"] == "safe" and r["shots"] == 1)
    assert safe["entries"]["ants"] == {
        "value": pytest.approx(60.0),
        "text": "60.00",
        "best": True,
        "tied": False,
        "partial": False,
        "seeds": [1, 2, 3],
        "note": "",
    }
    assert safe["key"]["backbone"] == "toy-rn"


def test_markdown_and_console_mark_alike(frame: pd.DataFrame) -> None:
    printed = table(frame)
    md = render(printed, "md")
    assert "**60.00**" in md and "<u>59.33</u>" in md
    console = render(printed, "console")
    assert "\x1b[1m" in console and "\x1b[4m" in console
    plain = render(printed, "console", styled=False)
    assert "\x1b" not in plain
    assert plain.splitlines()[0] == "Few-shot accuracy"
    assert [line for line in plain.splitlines() if line != line.rstrip()] == []


def test_html_escapes_everything() -> None:
    reader = Reader()
    text = render(nasty(), "html")
    reader.feed(text)
    assert "script" not in reader.tags
    cells = [c.strip() for c in reader.cells]
    assert cells[:4] == ["method", "shots", NASTY, "verdict"]
    assert NASTY in cells[4:]
    assert reader.tags.count("b") == reader.tags.count("u") == 1
    assert reader.tags.count("tbody") == 2
    assert "http" not in text and "src=" not in text


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=40))
def test_any_name_survives_html_and_csv(name: str) -> None:
    printed = Table("t", ["x"], [Row((name, "1"), {"x": Score(1.0, "1.00")})])
    reader = Reader()
    reader.feed(render(printed, "html"))
    assert reader.cells[3] == shown(name)
    rows = list(csv.reader(io.StringIO(render(printed, "csv"), newline="")))
    assert rows[1][0] in (shown(name), f"'{shown(name)}")


@given(st.text(alphabet="ab\\&%$#_{}~^<>|", max_size=30))
def test_latex_leaves_nothing_special(name: str) -> None:
    text = escape(name)
    for command in ("backslash", "asciitilde", "asciicircum", "less", "greater", "bar"):
        text = text.replace(f"\\text{command}{{}}", "")
    for character in "&%$#_{}":
        text = text.replace("\\" + character, "")
    assert set(text) <= {"a", "b"}


def test_latex_keeps_options_and_backquotes() -> None:
    assert (
        escape("`bench table`, or --variants")
        == r"\textasciigrave{}bench table\textasciigrave{}, or -{}-variants"
    )


def test_markdown_keeps_its_columns() -> None:
    lines = [line for line in render(nasty(), "md").splitlines() if line.startswith("|")]
    bars = [line.replace("\\|", "").count("|") for line in lines]
    assert len(set(bars)) == 1


def test_latex_compiles(frame: pd.DataFrame, tmp_path: Path) -> None:
    engine = next((e for e in ENGINES if shutil.which(e)), None)
    if engine is None:
        pytest.skip("needs a TeX engine")
    tables = (table(frame), table(frame, against="paper", methods=["safe"]), nasty())
    body = "\n".join(render(one, "latex") for one in tables)
    head = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
    (tmp_path / "t.tex").write_text(f"{head}{body}\\end{{document}}\n", encoding="utf-8")
    options = [] if engine == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run(
        [engine, *options, "t.tex"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 1000


def hostile() -> Table:
    """Two columns that look alike once they are shown, and hostile texts everywhere."""
    columns = ["a\u202e", "a\\u202e"]
    rows = [Row((TITLE, "1"), {columns[0]: Score(1.0, "1.00", note=TITLE), columns[1]: Score(2.0, "2.00")})]
    return Table(TITLE, columns, rows, [TITLE, "# no heading", "1. no list"], averages={"a\u202e": (TITLE,)})


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_that_is_not_printable_is_in_any_form(form: str) -> None:
    text = render(hostile(), form, styled=False)
    assert not raw(text)
    assert "1.00" in text and "2.00" in text, "names that look alike stay two columns"


def test_json_keeps_what_names_hold() -> None:
    whole = json.loads(render(hostile(), "json"))
    assert whole["title"] == TITLE and whole["columns"] == hostile().columns


def test_markdown_is_text_alone() -> None:
    text = render(hostile(), "md")
    for sign in ("[x](", "<img", " `a`", " $", " :boom: "):
        assert sign not in text
    assert "\\[x\\](javascript" in text and "&lt;img" in text
    assert "\n\\# no heading" in text and "\n1\\. no list" in text


def test_markdown_makes_no_bare_links() -> None:
    """GitHub makes links of addresses without a scheme too."""
    for address in ("https://example.org", "www.example.org", "WWW.example.org"):
        assert address not in render_markdown.escape(f"a {address}")


def test_latex_reads_no_file() -> None:
    text = render(hostile(), "latex")
    assert "\\input" not in text and "textbackslash{}input" in text


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        *((number, number) for number in ("1.00", "-1.25", "+0.50", "-", "+8.58 to -5.53", "59.3 (2/3)")),
        *(
            (name, f"'{name}")
            for name in ("=1+1", "+a", "-2+3", "@SUM(A1)", "=cmd|' /C calc'!A0", "-name", "＝1")
        ),
    ],
)
def test_spreadsheets_compute_nothing(cell: str, written: str) -> None:
    printed = Table("t", [cell], [Row((cell, "1"), {cell: Score(1.0, cell)})], heads=(cell, "shots"))
    rows = list(csv.reader(io.StringIO(render(printed, "csv"), newline="")))
    assert rows == [[written, "shots", written], [written, "1", written]]


def test_unknown_format() -> None:
    with pytest.raises(BenchError, match="did you mean 'latex'"):
        render(nasty(), "latec")
    assert len(FORMATS) == 6
