"""Links of the pages lead to files and anchors that exist, and so do citations such as "protocol 12.3".

A citation names sections, or items in one: "protocol 3.1, 12.3 and 18.4", "datasets 4.1", "protocol 21 items
3 and 4", "protocol 1.4, trap 12". Section 12.3 of docs/protocol/ is the anchor ``p12-3``, item 4 of section
21 is ``p21-4``; those of docs/datasets.md begin with ``d``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SPECIFICATION = {"protocol": sorted((DOCS / "protocol").glob("*.md")), "datasets": [DOCS / "datasets.md"]}
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(DOCS.rglob("*.md")),
    ROOT / "tests/fixtures/parity/README.md",
]
CITING = [
    ROOT / "README.md",
    *(f for room in ("bench", "methods", "datasets", "tests", "docs") for f in (ROOT / room).rglob("*.*")),
]
NUMBER = r"\d+(?:\.\d+)*(?!\.?\d|,\d)"  # 78,876 is none
MORE = rf"(?:, | and |; )(?:items? |traps? )?{NUMBER}| items? {NUMBER}"
CITED = re.compile(rf"\b(protocol|datasets) ({NUMBER}(?:{MORE})*)", re.I)
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.S | re.M)


def citations(text: str) -> Iterator[tuple[str, str]]:
    """Every cited page and number, items as part of the number; a citation may go on in the next line."""
    for page, numbers in CITED.findall(re.sub(r"\s*\n\s*(?:[#>] )?\s*", " ", text)):
        section, items = "", False
        for word in re.findall(rf"{NUMBER}|[a-z]+", numbers):
            if word[0].isdigit():
                items = items and "." not in word
                section = section if items else word
                yield page.lower(), f"{section}.{word}" if items else word
            else:
                items = items or word != "and"


def anchor(page: str, number: str) -> str:
    return f"{page[0]}{number.replace('.', '-')}"


def slug(heading: str) -> str:
    """The anchor that GitHub and MkDocs give to a heading."""
    words = re.sub(r"<[^>]*>|\]\([^)]*\)", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


@cache
def anchors(page: Path) -> list[str]:
    """What a link to the page may name after ``#``: its headings and the anchors written into it."""
    text = CODE.sub(lambda code: code[0].strip("`") if "\n" not in code[0] else "", page.read_text("utf-8"))
    return [slug(h) for h in re.findall(r"^#+ (.*)$", text, re.M)] + re.findall(r'<a id="([^"]+)">', text)


def broken(page: Path, text: str) -> list[str]:
    """The relative links of a page's text that lead nowhere."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, name = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (name and name not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page, page.read_text("utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_are_whole(page: Path) -> None:
    """A bare ``|`` in a cell cuts it in two, in code too."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.S | re.M)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        head, *rows = table.splitlines()
        assert [row for row in rows if cells(row) != cells(head)] == []


def cells(row: str) -> int:
    return len(re.findall(r"(?<!\\)\|", row)) - 1


def test_a_link_that_leads_nowhere_is_found() -> None:
    text = "[a](datasets.md#d4-1) [b](datasets.md#d4-99) [c](none.md) `[d](no.md)` [e](https://x) [f](#words)"
    assert broken(DOCS / "architecture.md", text) == ["datasets.md#d4-99", "none.md"]


def test_every_citation_has_its_anchor() -> None:
    there = {name: {a for page in pages for a in anchors(page)} for name, pages in SPECIFICATION.items()}
    missing, seen = [], set()
    for file in CITING:
        if file.suffix not in {".py", ".toml", ".md"} or not file.is_file() or file.samefile(__file__):
            continue
        for page, number in citations(file.read_text("utf-8")):
            seen.add(page)
            if anchor(page, number) not in there[page]:
                missing.append(f"{file.relative_to(ROOT)}: {page} {number}")
    assert missing == []
    assert seen == {"protocol", "datasets"}


@pytest.mark.parametrize("file", ["methods/safe.py", "methods/safe_a.py", "bench/suites/ablation.toml"])
def test_letters_of_the_ambiguity_register_are_in_it(file: str) -> None:
    """Settings of SAFE bear the letters of protocol 17 (A7, A11)."""
    letters = set(re.findall(r"\bA\d+\b", (ROOT / file).read_text("utf-8")))
    assert letters
    assert {f"p17-{letter.lower()}" for letter in letters} <= set(anchors(DOCS / "protocol" / "safe.md"))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("(protocol 3.1, 12.3 and 18.4)", ["3.1", "12.3", "18.4"]),
        ("Protocol 21.10: two", ["21.10"]),
        ("protocol 15, 16, 21 items 3 and 4", ["15", "16", "21", "21.3", "21.4"]),
        ("(protocol 1.6, 21 item 12), and", ["1.6", "21", "21.12"]),
        ("# so (protocol 1.4,\n# trap 12).", ["1.4", "1.4.12"]),
        ("datasets 4.1, steps 2 and 3", ["4.1"]),
        ("protocol 1.3, 4; datasets\n  3, 5.5", ["1.3", "4", "3", "5.5"]),
        ("the protocol has 3 seeds", []),
    ],
)
def test_what_a_citation_is(text: str, numbers: list[str]) -> None:
    assert [number for _, number in citations(text)] == numbers


def test_every_section_has_the_anchor_of_its_number() -> None:
    """Once in all pages, so that a section that is moved or numbered anew is noticed."""
    for name, pages in SPECIFICATION.items():
        written = [a for page in pages for a in anchors(page) if re.fullmatch(rf"{name[0]}\d+(-\w+)*", a)]
        assert len(written) == len(set(written))
        for page in pages:
            for number, rest in re.findall(rf"^##+ ({NUMBER})\.? (.*)$", page.read_text("utf-8"), re.M):
                assert rest.endswith(f'<a id="{anchor(name, number)}"></a>'), f"{page.name}: {number} {rest}"
