"""The report: whole in one file, safe with any name, and usable in a browser at desktop and phone width."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from bench.errors import BenchError
from bench.names import shown
from bench.records.types import Curve, FitRecord
from bench.registry import builtin
from bench.report import tables
from bench.report.frame import load_results
from bench.report.html import page as html
from bench.report.html import reproduce
from bench.report.html.details import CURVE_POINTS, curve
from bench.report.html.page import data
from tests.cli.hostile import raw
from tests.report import browser, made
from tests.report.recorded import cell_of, key_of

EVIL = '<img src=x onerror="window.pwned=1"></script><b>&\'" $\\frac{ javascript:alert(1) \x1b[31m\u202e'


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with a gap and a failure, a shifted test set, a sweep, and names that break a careless page."""
    folder = made.grid(tmp_path_factory.mktemp("results"), ["zero-shot", "tip-adapter-f", "safe-a"])
    made.sweep(folder)
    for seed in (1, 2, 3):
        made.one(folder, made.cell("evil", "birds", 4, seed), title=EVIL, skill=0.3)
        made.one(
            folder, made.cell("evil", "fish", 4, seed), status="failed" if seed == 2 else "ok", title=EVIL
        )
    return folder


@pytest.fixture(scope="module")
def text(results: Path) -> str:
    return html.report(load_results(results), title=f"Report {EVIL}")


class Elements(HTMLParser):
    """Every element with its attributes, and whether all are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "input", "wbr", "br", "img", "hr", "link"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture(scope="module")
def elements(text: str) -> Elements:
    parsed = Elements()
    parsed.feed(text)
    return parsed


def test_one_whole_file_that_reaches_nowhere(text: str, elements: Elements) -> None:
    assert not elements.open and not elements.wrong
    assert not {"link", "img", "iframe", "object", "embed", "base"} & {tag for tag, _ in elements.tags}
    for _, attributes in elements.tags:
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert (attributes.get(name) or "#").startswith("#"), attributes
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", text))
    assert addresses <= {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}, (
        "names of XML, not links"
    )
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|\bimport\s*\(", text)
    assert "default-src 'none'" in text


def test_ids_are_unique_and_references_lead_somewhere(elements: Elements, text: str) -> None:
    ids = [a["id"] for _, a in elements.tags if "id" in a]
    assert len(ids) == len(set(ids))
    wanted = {(a.get(n) or "")[1:] for _, a in elements.tags for n in ("href", "xlink:href") if a.get(n)}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", text))
    assert wanted <= set(ids)
    assert len(wanted) > 20, "figures refer to their own glyphs and clips"


def test_names_are_escaped(text: str) -> None:
    assert "<img" not in text.replace("&lt;img", "")
    assert text.count("</script>") == 2, "the page's own two scripts end, nothing else does"
    assert "&lt;img src=x onerror=&quot;window.pwned=1&quot;&gt;" in text
    assert not raw(text) and "\\x1b[31m\\u202e" in text and 'href="javascript' not in text


def test_the_same_records_give_the_same_report(results: Path, text: str) -> None:
    assert html.report(load_results(results), title=f"Report {EVIL}") == text


def test_json_in_a_script_element_cannot_end_it() -> None:
    value = {"a": "</script><!-- \u2028 & é"}
    assert json.loads(data(value)) == {"a": "</script><!-- \\u2028 & é"}
    assert not set("<>&\u2028") & set(data(value))
    assert json.loads(data({"plain\n": [1, 2.5, None, True]})) == {"plain\n": [1, 2.5, None, True]}


def test_numbers_are_those_of_the_tables(results: Path, text: str) -> None:
    table = tables.table(load_results(results), "1")
    shown = re.findall(r'data-cell="\d+" aria-label="([^"]*)"', text)
    for row in table.rows:
        if row.method == "evil":
            continue
        for column in ("birds", "fish", "tools"):
            entry = row.entries[column]
            if entry.value is not None:
                assert any(s.startswith(row.label) and s.endswith(f"{column}: {entry.text}") for s in shown)
    assert 'class="best"' in text and ">ERR<" in text


def test_what_cells_share_is_kept_once(text: str) -> None:
    """Digests are the longest text in a record, and the same in every method's cell of a dataset."""
    script = re.search(r"<script[^>]*application/json[^>]*>(.*?)</script>", text, re.S)
    assert script is not None
    payload = json.loads(script[1])
    seeds = [seed for cell in payload["cells"] for seed in cell.get("seeds", ())]
    assert len({seed["digests"] for seed in seeds}) < len(seeds) / 2
    assert "weights" in payload["shared"][seeds[0]["digests"]]


def test_curves_keep_the_chosen_configuration_first_and_stay_small() -> None:
    checks = [(s, s / 1000) for s in range(100)]
    where = made.cell("safe", "birds", 1, 1)
    fit = FitRecord(
        schema=2,
        key="0" * 64,
        cell=cell_of(where),
        parts=key_of(where),
        values={"lr": 1e-5, "beta": 1.0},
        curve=[Curve(point={"lr": 10.0**-i}, checks=checks) for i in range(12)],
    )
    kept = curve(fit)
    assert kept[0]["name"] == "lr 1e-05" and len(kept) > 3
    assert sum(len(k["checks"]) for k in kept) <= CURVE_POINTS
    long = replace(fit, values={}, curve=[Curve(point={}, checks=[(0, 1.0)] * 5000)])
    assert curve(long)[0]["checks"][0] == [0, 100.0]
    assert curve(replace(fit, curve=[])) == []


def test_commands_cover_every_cell(results: Path) -> None:
    """Each command parses, and their grids together have all cells of the records."""
    from tests.test_readme import parse

    frame = load_results(results)
    lines = reproduce.commands(frame, {name: m.prompts for name, m in builtin().methods.items()})
    cells = set()
    for line in lines:
        words = shlex.split(line.text)
        parse(tuple(words))
        flags = {
            words[i].removeprefix("--"): words[i + 1]
            for i in range(2, len(words) - 1)
            if words[i].startswith("--")
        }
        axes = [flags[n].split(",") for n in ("methods", "datasets")]
        draws = [
            (int(k), int(s))
            for k in flags.get("shots", "0").split(",")
            for s in flags.get("seeds", "0").split(",")
        ]
        cells |= {(m, d, *draw) for m in axes[0] for d in axes[1] for draw in (*draws, (0, 0))}
        assert ("--targets" in words) == ("safe" in axes[0])
    wanted = set(map(tuple, frame[["method", "dataset", "shots", "seed"]].to_numpy().tolist()))
    assert wanted <= cells
    assert any("--sweep safe.beta=0.0,1.0" in line.text for line in lines)


def test_no_table_is_an_error(tmp_path: Path) -> None:
    made.one(tmp_path, made.cell("safe", "birds", 1, 1), target="birds-v2")
    with pytest.raises(BenchError):
        html.report(load_results(tmp_path))


# In a browser.


@pytest.fixture(scope="module")
def chrome() -> Iterator[browser.Browser]:
    if reason := browser.missing():
        pytest.skip(reason)
    with browser.chromium() as driver:
        yield driver


@pytest.fixture
def page(chrome: browser.Browser, text: str, tmp_path: Path) -> Iterator[browser.Browser]:
    """The report from disk at desktop width; nothing may reach the console, no script of a name may run."""
    file = tmp_path / "report.html"
    file.write_text(text, encoding="utf-8")
    chrome.size(1280, 900)
    chrome.open(file)
    chrome.run("document.documentElement.style.scrollBehavior = 'auto'")
    yield chrome
    assert chrome.log() == []
    assert chrome.run("return [window.pwned ?? null, performance.getEntriesByType('resource').length]") == [
        None,
        0,
    ]


def column(page: browser.Browser, name: str) -> list[str]:
    """Texts of a column of the first table, visible rows only, in order."""
    return page.run(
        """const table = document.querySelector('table.results');
        const at = Array.from(table.tHead.rows[0].cells, (c) => c.textContent).indexOf(arguments[0]);
        const shown = Array.from(table.tBodies[0].rows).filter((r) => !r.hidden);
        return shown.map((r) => r.cells[at].textContent)""",
        name,
    )


def head(page: browser.Browser, name: str) -> None:
    """Click on a heading of the first table."""
    names = page.run(
        "return Array.from(document.querySelector('table.results').tHead.rows[0].cells, (c) => c.textContent)"
    )
    page.click("table.results thead button", names.index(name))


def test_sorting(page: browser.Browser) -> None:
    before = column(page, "birds")
    head(page, "fish")
    down = column(page, "fish")
    values = [float(v) for v in down if v not in ("-", "ERR")]
    assert values == sorted(values, reverse=True) and len(values) == 5
    assert set(down[len(values) :]) == {"-", "ERR"}, "what has no value stays last"
    head(page, "fish")
    up = column(page, "fish")
    assert [float(v) for v in up[: len(values)]] == sorted(values) and set(up[len(values) :]) == {"-", "ERR"}
    assert page.run("return document.querySelectorAll('th[aria-sort=ascending]').length") == 1
    head(page, "method")
    assert column(page, "method") == sorted(column(page, "method"), key=str.lower)
    head(page, "shots")
    assert [int(n) for n in column(page, "shots")] == sorted(
        (int(n) for n in column(page, "shots")), reverse=True
    )
    assert sorted(column(page, "birds")) == sorted(before), "rows stay whole"


def test_filtering(page: browser.Browser) -> None:
    everything = column(page, "method")
    page.type("input[name=find]", "safe-a")
    assert set(column(page, "method")) == {"safe-a"}
    assert re.fullmatch(r"\d+ of \d+ rows", page.run("return document.querySelector('output').value"))
    page.click("form.filter button[type=reset]")
    page.run("return new Promise((done) => setTimeout(done, 50))")
    assert column(page, "method") == everything
    boxes = page.run("return Array.from(document.querySelectorAll('input[name=shots]'), (b) => b.value)")
    page.click("input[name=shots]", boxes.index("4"))
    assert "4" not in column(page, "shots") and "1" in column(page, "shots")
    page.type("input[name=find]", "no such method")
    assert column(page, "method") == []


def test_opening_a_cell(page: browser.Browser) -> None:
    labels = page.run("return Array.from(document.querySelectorAll('button.cell'), (b) => b.ariaLabel)")
    page.click(
        "button.cell", next(i for i, name in enumerate(labels) if name.startswith("SAFE, 16 shots, birds:"))
    )
    shown = page.run("return document.querySelector('dialog[open]').innerText")
    wanted = [
        "SAFE, 16 shots, birds",
        "95 % interval",
        "lr\t0.001",
        "2 configurations",
        "Validation accuracy",
        "a note",
    ]
    assert [words for words in wanted if words not in shown] == []
    assert page.run("return document.querySelectorAll('dialog svg.curve polyline').length") == 6, (
        "2 configurations, 3 seeds"
    )
    page.click("dialog details.seed[open] details summary", 1)
    opened = page.run("return document.querySelector('dialog[open]').innerText")
    for words in ("Example CPU", "0" * 40, "torch 2.9.0", "weights digest", "fit key"):
        assert words in opened, words
    page.press("\ue00c")
    assert page.run("return document.querySelector('dialog[open]')") is None
    page.click("button.cell", next(i for i, name in enumerate(labels) if name.endswith("ERR")))
    assert "out of memory" in page.run("return document.querySelector('dialog[open]').innerText")
    page.click("dialog .close")
    assert page.run("return document.querySelector('dialog[open]')") is None


def test_a_name_is_text_in_the_details_too(page: browser.Browser) -> None:
    labels = page.run("return Array.from(document.querySelectorAll('button.cell'), (b) => b.ariaLabel)")
    page.click("button.cell", next(i for i, name in enumerate(labels) if name.startswith(shown(EVIL))))
    assert page.run("return document.getElementById('details-title').textContent").startswith(shown(EVIL))
    page.click("dialog .close")


@pytest.mark.parametrize("width", [1280, 768, 390, 320])
def test_widths(page: browser.Browser, width: int, tmp_path: Path) -> None:
    """The page never scrolls sideways, wide things scroll in their own box; type and targets stay large."""
    page.size(width, 844)
    assert page.run("return document.documentElement.scrollWidth") <= width
    odd: Any = page.run(
        """return Array.from(document.querySelectorAll('main p, main td, main th, main li, main button'))
        .filter((e) => e.offsetParent && parseFloat(getComputedStyle(e).fontSize) < 12)
        .map((e) => e.outerHTML)"""
    )
    assert odd == []
    if width < 600:
        heights = page.run(
            "return Array.from(document.querySelectorAll('button.cell'), (b) => b.offsetHeight)"
        )
        assert min(heights) >= 24
    page.click("button.cell")
    box = page.run(
        "const r = document.querySelector('dialog').getBoundingClientRect(); return [r.left, r.right]"
    )
    assert box[0] >= 0 and box[1] <= width
    page.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 5000
    page.click("dialog .close")
