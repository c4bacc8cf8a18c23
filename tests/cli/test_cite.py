"""``bench cite``: every method has a paper, entries come once, and a plugin brings its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import bibtex, cite
from bench.cli.app import app
from bench.data import catalog
from bench.errors import BenchError
from bench.interface import Method
from bench.names import canonical
from bench.paths import datasets_dir, methods_dir
from bench.registry import builtin

ROOT = Path(__file__).resolve().parents[2]
OWN = [m for key, m in sorted(builtin().methods.items()) if not builtin().digests[key]]
PLUGIN = (
    "from bench.interface import Method\n\n\nclass Toy(Method):\n    name = 'toy_one'\n    title = 'Toy'\n"
)
PAPER = "@misc{somebody2026,\n  title = {{A {B} c}},\n  keywords = {toy-one,\n    toy-two},\n}\n"


def cited(*arguments: str | Path) -> tuple[int, list[str], str]:
    """The exit code, the keys of the printed entries and what standard error says."""
    done = CliRunner().invoke(app, ["cite", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, re.findall(r"^@\w+\{(.+),$", done.stdout, re.M), done.stderr


@pytest.mark.parametrize("method", OWN, ids=lambda method: method.name)
def test_every_method_has_a_paper_or_is_ours(method: Method) -> None:
    assert cite.papers_of(method) or cite.is_ours(method)


@pytest.mark.parametrize("method", OWN, ids=lambda method: method.name)
def test_a_method_cites_a_paper_of_papers_bib(method: Method) -> None:
    """First author and year of ``cite`` and of the docstring's source are those of an entry of the method."""
    papers = [plain(entry.text) for entry in cite.papers_of(method)]
    cited = re.compile(r"([A-Z][\w-]+(?: [A-Z][\w-]+)*)(?: et al\.| and [A-Z][\w ]+?) (\d{4})")
    named = {
        *cited.findall(method.cite),
        *cited.findall((type(method).__doc__ or "").partition("Trains:")[0]),
    }
    assert len(cited.findall(method.cite)) == method.cite.count("; ") + bool(method.cite)
    for author, year in named:
        assert any(f"author = {author}," in text and f"year = {year}," in text for text in papers), author


def test_keywords_name_what_there_is() -> None:
    methods = {canonical(method.name) for method in OWN} | {cite.ALWAYS}
    for folder, known in ((methods_dir(), methods), (datasets_dir(), set(map(canonical, catalog.names())))):
        found = bibtex.entries(folder / bibtex.FILE)
        keys = [entry.key for entry in found]
        assert len(keys) == len(set(keys)) > 10
        for entry in found:
            assert entry.names and entry.names <= known, entry.key
            assert entry.text.count("{") == entry.text.count("}") and "keywords" not in entry.text


def test_photographs_have_a_paper() -> None:
    known = bibtex.entries(datasets_dir() / bibtex.FILE)
    real = [name for name in catalog.names() if catalog.spec(name).reader != "scenes"]
    assert [name for name in real if not bibtex.of(name, known)] == []


def test_entries_agree_with_the_citation_file() -> None:
    """Titles, authors, years and numbers of preprints are those of CITATION.cff, which GitHub shows."""
    yaml = pytest.importorskip("yaml")
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    texts = [plain(entry.text) for entry in bibtex.entries(methods_dir() / bibtex.FILE)]
    for work in (cff, *cff["references"]):
        (text,) = [text for text in texts if f" = {work['title']}," in text]
        for author in work["authors"]:
            named = (
                f"{author['family-names']}, {author['given-names']}"
                if "given-names" in author
                else author["name"]
            )
            assert named in text
        assert work is cff or f"year = {work['year']}," in text
        for number in work.get("identifiers", []):
            assert number["value"].removeprefix("arXiv:") in text
        assert all(str(work[key]) in text for key in ("version", "license") if key in work)


def plain(text: str) -> str:
    """An entry without braces, with accents as letters and single blanks."""
    for written, letter in (("{\\'e}", "é"), ("{\\'i}", "í")):
        text = text.replace(written, letter)
    return " ".join(text.replace("{", "").replace("}", "").split())


def test_named_methods_and_datasets_each_once() -> None:
    code, keys, said = cited("safe,safe-a", "LP++", "--datasets", "dtd")
    assert code == 0 and said == ""
    assert keys[:3] == ["zhu2023safe", "huang2024lpplusplus", "cimpoi2014dtd"]
    assert {"radford2021clip", "ilharco2021openclip", "fewshotclipbench"} == set(keys[3:])
    assert len(keys) == len(set(keys))


def test_datasets_without_a_paper_say_so(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    code, keys, said = cited("--datasets", f"emoji,{tmp_path}")
    assert code == 0 and "fewshotclipbench" in keys
    assert "emoji: no paper; drawings: OpenMoji" in said and "no paper; your own images" in said


def test_methods_of_records() -> None:
    """One method of this folder was a plugin, which is not there."""
    code, keys, said = cited("--results", ROOT / "tests" / "fixtures" / "schema-1-packed")
    assert code == 3 and "bad-one: no such method here; name its file with --plugin" in said
    assert keys[:2] == ["zhu2023safe", "zhang2022tipadapter"]


def test_what_is_refused() -> None:
    with pytest.raises(BenchError, match="did you mean 'taskres'"):
        cited("taskre")
    with pytest.raises(BenchError, match=r"^digits is a dataset: --datasets digits$"):
        cited("digits")
    with pytest.raises(BenchError, match="no method is named"):
        cited("")
    with pytest.raises(BenchError, match="unknown dataset"):
        cited("--datasets", "no-such")
    with pytest.raises(BenchError, match="leave one of the two out"):
        cited("safe", "--results", ROOT / "results" / "pocket")
    with pytest.raises(BenchError, match="no records"):
        cited("--results", ROOT / "docs")


def test_a_plugin_brings_its_own_file(tmp_path: Path) -> None:
    plugin = tmp_path / "toy.py"
    plugin.write_text(PLUGIN, encoding="utf-8")
    code, keys, said = cited("toy-one", "--plugin", plugin)
    assert code == 3 and "fewshotclipbench" in keys and "toy_one: no entry" in said
    (tmp_path / bibtex.FILE).write_text(PAPER, encoding="utf-8")
    code, keys, said = cited("toy_one", "--plugin", plugin)
    assert code == 0 and keys[0] == "somebody2026" and said == ""
    (tmp_path / bibtex.FILE).unlink()
    plugin.write_text(
        PLUGIN.replace("    name", "    'Do.\\n\\n    Source: ours.'\n    name"), encoding="utf-8"
    )
    assert cited("toy-one", "--plugin", plugin)[0] == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [(PAPER.rstrip("}\n"), "no closing brace"), ("@misc{a,\n title = {\xe9}}".encode("latin-1"), "UTF-8")],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str | bytes, problem: str) -> None:
    file = tmp_path / bibtex.FILE
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(BenchError, match=problem):
        bibtex.entries(file)
