"""Suites and descriptions that are no TOML, or have wrong types or ranges, lead to one line with file and
field.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from bench import suite
from bench.data import catalog
from bench.errors import BenchError
from tests.fixtures import disk

BROKEN: dict[str, tuple[bytes, str]] = {
    "not UTF-8": (b'name = "caf\xe9"', "not UTF-8"),
    "UTF-16": ('name = "x"'.encode("utf-16"), "not UTF-8"),
    "a byte order mark": (b'\xef\xbb\xbfname = "x"', "byte order mark"),
    "a torn string": (b'name = "x', "not TOML"),
    "no value": (b"name =", "not TOML"),
    "JSON": (b'{"name": "x"}', "not TOML"),
    "a key twice": (b'name = "x"\nname = "y"', "not TOML"),
    "a table twice": (b'name = "x"\n[counts]\n[counts]', "not TOML"),
    "nested": (b"name = " + b"[" * 100_000, "nested too deeply"),
    "nested tables": (b"[" + b"a." * 2_000 + b"a]", "."),
    "a number of many digits": (b"shots = " + b"9" * 5000, "not TOML"),
    "zeros": (b"\0" * 100, "not TOML"),
}
SUITE: dict[str, Any] = {
    "name": '"mine"',
    "title": '"my suite"',
    "backbones": '["pocket-rn"]',
    "datasets": '["digits"]',
    "methods": '["zero-shot"]',
    "shots": "[1, 2]",
    "seeds": "[1]",
}


def suite_file(folder: Path, **changes: str) -> str:
    file = folder / "mine.toml"
    file.write_text(
        "\n".join(f"{key} = {value}" for key, value in (SUITE | changes).items()), encoding="utf-8"
    )
    return str(file)


def one_line(error: pytest.ExceptionInfo[BenchError], name: str) -> None:
    line = str(error.value)
    assert "\n" not in line and name in line and len(line) < 1000 and line.isprintable(), line


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_toml(kind: str, tmp_path: Path) -> None:
    content, says = BROKEN[kind]
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    for read in (lambda: suite.load(str(file)), lambda: catalog.find(str(file), None)):
        with pytest.raises(BenchError, match=says) as error:
            read()
        one_line(error, "mine.toml")


@pytest.mark.parametrize("content", ["", "\n", "# nothing\n"])
def test_empty_files_say_what_is_needed(content: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(content)
    with pytest.raises(BenchError, match="needs name, title, backbones"):
        suite.load(str(file))
    with pytest.raises(BenchError, match="needs a line  name"):
        catalog.find(str(file), None)


def test_a_good_suite(tmp_path: Path) -> None:
    read = suite.load(suite_file(tmp_path, prompts='["hand"]', targets="true", sweeps='["safe.beta=0,1"]'))
    assert (read.name, read.shots, read.seeds, read.targets) == ("mine", (1, 2), (1,), True)
    assert read.sweeps == ("safe.beta=0,1",)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shot": "[1]"}, r"unknown key 'shot' \(did you mean 'shots'\?\)"),
        ({"name": "3"}, "name: Expected `str`, got `int`"),
        ({"name": '""'}, "name: "),
        ({"name": r'"a\u001bb"'}, "name: "),
        ({"title": "2026-11-28"}, "title: Expected `str`, got `date`"),
        ({"shots": "1"}, "shots: Expected `array`, got `int`"),
        ({"shots": "[]"}, "shots: "),
        ({"shots": "[0]"}, r"shots\[0\]: "),
        ({"shots": "[1, -2]"}, r"shots\[1\]: "),
        ({"shots": "[true]"}, r"shots\[0\]: Expected `int`, got `bool`"),
        ({"shots": "[1.0]"}, r"shots\[0\]: Expected `int`, got `float`"),
        ({"shots": '["1"]'}, r"shots\[0\]: Expected `int`, got `str`"),
        ({"shots": "[99999999999999999999]"}, r"shots\[0\]: "),
        ({"seeds": "[-1]"}, r"seeds\[0\]: "),
        ({"seeds": "[nan]"}, r"seeds\[0\]: Expected `int`, got `float`"),
        ({"methods": '"zero-shot"'}, "methods: Expected `array`, got `str`"),
        ({"methods": '[["zero-shot"]]'}, r"methods\[0\]: Expected `str`, got `array`"),
        ({"datasets": "{a = 1}"}, "datasets: Expected `array`, got `object`"),
        ({"targets": "1"}, "targets: Expected `bool`, got `int`"),
        ({"targets": '"no"'}, "targets: Expected `bool`, got `str`"),
        ({"sweeps": "[2026-11-28]"}, r"sweeps\[0\]: Expected `str`"),
    ],
)
def test_odd_suites(changes: dict[str, str], says: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=says) as error:
        suite.load(suite_file(tmp_path, **changes))
    one_line(error, "mine.toml")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("nane = 'x'", r"unknown key 'nane' \(did you mean 'name'\?\)"),
        (r'"na\u001bme" = 1', r"control characters in 'na\\x1bme'"),
        ("name = 2026-11-28", "name: Expected `str`"),
        (r'name = "a\u001b[31m"', "name: control characters"),
        (r'name = "x"' + "\n" + r'title = "a\nb"', "title: control characters"),
        (r'name = "x"' + "\n" + r'folder = "a\u0000b"', "folder: control characters"),
        ("name = 'x'", "names no folder"),
        ("name = 'x'\nfolder = ['a']", "folder: Expected `str`"),
        ("name = 'x'\ntargets = 'y'", "targets: Expected `array`"),
        ("name = 'x'\ntargets = [1]", r"targets\[0\]: Expected `str`"),
        ("name = 'x'\ncounts = 3", "counts: Expected `object`"),
        ("name = 'x'\n[counts]\ntrain = true", r"counts\.train: Expected `int`, got `bool`"),
        ("name = 'x'\n[counts]\ntrain = -1", r"counts\.train: Expected `int` >= 0"),
        ("name = 'x'\n[counts]\ntrain = 1.5", r"counts\.train: Expected `int`, got `float`"),
        ("name = 'x'\n[counts]\ntrain = 99999999999999999999", r"counts\.train: Expected `int` <= "),
        ("name = 'x'\n[prompts]\nhand = ['a photo']", "exactly once"),
        ("name = 'x'\n[prompts]\nhand = [1]", r"prompts\.hand\[0\]: Expected `str`"),
        ("name = 'x'\n[prompts]\nhand = [\"a\\u0007 {}\"]", "hand: control characters"),
        ("name = 'x'\n[cupl]\nrule = 1", r"cupl\.rule: Expected `str`"),
        ("name = 'x'\n[cupl]\nkeys = ['a']", r"cupl\.keys: Expected `object`"),
        ("name = 'x'\n[cupl.keys]\na = 1", r"cupl\.keys\[...\]: Expected `str`"),
        ("name = 'x'\n[classnames]\nrename = 'a'", r"classnames\.rename: Expected `object`"),
        ("name = 'x'\n[classnames]\nsha256 = 'abc'", r"classnames\.sha256: "),
        ("name = 'x'\n[images]\nwhite = 1" + "0" * 400, "white must be a number"),
        ("name = 'x'\nfolder = 'a'\nreader = 'coop-split'\n[options]\nfile = 3", "file: Expected `str`"),
        ("name = 'x'\nfolder = 'a'\nreader = 'coop-split'", "names no split file"),
        ("name = 'x'\nreader = 'scenes'\n[options]\nartists = 'openmoji'", "artists: Expected `array`"),
        ("name = 'x'\nreader = 'scenes'\n[options]\nglyphs = ['a']", "glyphs: Expected `object`"),
        ("name = 'x'\nreader = 'scenes'\n[options.glyphs]\na = 3", "glyphs: .*: Expected `str | array`"),
        ("name = 'x'\nfolder = 'birds'\nreader = 'wnid-folders'\n[options]\nwnids = ['n1']", "wnids: .*n1"),
        (
            "name = 'x'\nfolder = 'birds'\nreader = 'number-folders'\n[options]\nclasses = '/etc/passwd'",
            "no class list",
        ),
        (
            "name = 'x'\nfolder = 'birds'\nreader = 'number-folders'\n[options]\nclasses = 'emoji.toml'",
            "no class list",
        ),
    ],
)
def test_odd_descriptions(lines: str, says: str, tmp_path: Path) -> None:
    disk.class_folder(tmp_path / "birds" / "owl", 3)
    file = tmp_path / "mine.toml"
    file.write_text(lines + "\n", encoding="utf-8")
    with pytest.raises(BenchError, match=says) as error:
        catalog.find(str(file), None)
    one_line(error, "x: " if "folder = 'birds'" in lines or "names no" in says else "")


ONE_SCENE = (
    "name = 'x'\nreader = 'scenes'\n[counts]\nclasses = 1\ntest = 1\n[options]\nglyphs = {a = '1f415'}\n"
)


@pytest.mark.parametrize(
    "lines",
    [
        ONE_SCENE + "style = 'none'",
        ONE_SCENE + "artists = ['nobody']",
        ONE_SCENE + "artists = []",
        ONE_SCENE + "classes = ['b']",
        ONE_SCENE.replace("1f415", "zz"),
        ONE_SCENE.replace("1f415", "../../x"),
        ONE_SCENE.replace("'1f415'", "[]"),
        ONE_SCENE.replace("'1f415'", "['1f415', '1f415', '1f415']"),
        "name = 'x'\nreader = 'scenes'\nsource = 'nowhere'",
        "name = 'x'\nreader = 'scenes'",
    ],
)
def test_odd_scenes(lines: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(lines, encoding="utf-8")
    with pytest.raises(BenchError) as error:
        dataset = catalog.find(str(file), None)
        dataset.source.open(dataset.test.paths[0])
    one_line(error, "")


def test_a_name_with_slashes_stays_a_name(tmp_path: Path) -> None:
    for kind in ("owl", "tit"):
        disk.class_folder(tmp_path / "birds" / kind, 8)
    file = tmp_path / "mine.toml"
    file.write_text('name = "../../a/b"\nfolder = "birds"\nget = """\none\n\ttwo"""\n')
    assert catalog.find(str(file), None).name == "a-b"


@pytest.mark.slow
def test_reading_again_and_again_leaves_the_memory_whole(tmp_path: Path) -> None:
    for _ in range(5):
        suite._read.cache_clear()
        suite.load(suite_file(tmp_path))
        with pytest.raises(BenchError):
            suite._read.cache_clear()
            suite.load(suite_file(tmp_path, shots="[0]"))
        gc.collect()
