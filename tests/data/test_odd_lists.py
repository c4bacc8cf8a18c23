"""Odd or damaged split files, class lists, recorded draws and sentences lead to one line that says where."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.data import catalog, cupl, fewshot
from bench.data.spec import parse
from bench.data.splitfile import parse_split, read_split
from bench.errors import BenchError
from tests.fixtures import disk

NO_JSON: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "."),
    "torn": (b'{"train": [', "."),
    "not UTF-8": (b'{"train": ["caf\xe9"]}', "not UTF-8"),
    "a byte order mark": (b'\xef\xbb\xbf{"train": []}', "byte order mark"),
    "zeros": (b"\0" * 50, "malformed"),
    "nested": (b'{"train": ' + b"[" * 100_000, "nested|truncated|recursion|end"),
    "not a number": (b'{"train": [NaN]}', "malformed"),
    "half a letter": (b'{"train": ["\\ud800"]}', "truncated|malformed|surrogate"),
    "two documents": (b"{} {}", "malformed"),
    "a list": (b"[]", "Expected `object`, got `array`"),
    "a text": (b'"train"', "Expected `object`, got `str`"),
}


def line_of(read: Callable[[], Any], says: str, name: str) -> None:
    with pytest.raises(BenchError, match=says) as error:
        read()
    line = str(error.value)
    assert "\n" not in line and name in line and line.isprintable() and len(line) < 1000, line


@pytest.mark.parametrize("kind", NO_JSON)
def test_files_that_are_no_json(kind: str, tmp_path: Path) -> None:
    content, says = NO_JSON[kind]
    file = tmp_path / "birds.json"
    file.write_bytes(content)
    line_of(lambda: read_split(file), says, "birds.json")
    line_of(lambda: cupl.sentences(parse({"name": "birds"}, "x"), ("auk",), tmp_path), says, "birds.json")
    dataset = a_dataset(tmp_path)
    line_of(lambda: fewshot.read_index(dataset, file), says, "birds.json")


def split(**changes: Any) -> dict[str, Any]:
    return {
        "train": [["a/1.jpg", 0, "ant"], ["b/1.jpg", 1, "bee"]],
        "val": [["a/2.jpg", 0, "ant"]],
        "test": [["a/3.jpg", 0, "ant"]],
        **changes,
    }


def row(*values: Any) -> dict[str, Any]:
    return split(test=[["a/3.jpg", 0, "ant"], list(values)])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (split(train=None), "train: Expected `array`, got `null`"),
        (split(train=[]), "train holds no row"),
        (split(test=[]), "test holds no row"),
        (split(test=["a/3.jpg"]), r"test\[0\]: Expected `array`, got `str`"),
        (split(test=[{"path": "a/3.jpg"}]), r"test\[0\]: Expected `array`, got `object`"),
        (row("b/3.jpg", 1), r"test\[1\]: Expected `array` of length 3, got 2"),
        (row("b/3.jpg", 1, "bee", 0), r"test\[1\]: Expected `array` of length 3, got 4"),
        (row("b/3.jpg", True, "bee"), r"test\[1\]\[1\]: Expected `int`, got `bool`"),
        (row("b/3.jpg", 1.0, "bee"), r"test\[1\]\[1\]: Expected `int`, got `float`"),
        (row("b/3.jpg", "1", "bee"), r"test\[1\]\[1\]: Expected `int`, got `str`"),
        (row("b/3.jpg", None, "bee"), r"test\[1\]\[1\]: Expected `int`, got `null`"),
        (row("b/3.jpg", -1, "bee"), "without gaps"),
        (row("b/3.jpg", 10**30, "bee"), "without gaps"),
        (row(3, 1, "bee"), r"test\[1\]\[0\]: Expected `str`, got `int`"),
        (row("b/3.jpg", 1, 3), r"test\[1\]\[2\]: Expected `str`, got `int`"),
        (row("b/3.jpg", 1, ""), r"test\[1\]\[2\]: "),
        (row("b/3.jpg", 1, "wasp"), r"test\[1\]: class 1 is both 'bee' and 'wasp'"),
        (row("a/3.jpg", 0, "ant"), r"test\[1\]: a/3.jpg is listed twice"),
        (row("", 1, "bee"), r"test\[1\]: path '' leaves the image folder"),
        (row("a\0b", 1, "bee"), r"test\[1\]: .* leaves the image folder"),
        (row("\x1b[2J/../../x", 1, "bee"), r"test\[1\]: .* leaves the image folder"),
        (row("x" * 5000, 1, "bee"), r"test\[1\]\[0\]: Expected `str` of length <= 4096"),
        (row("b/3.jpg", 1, "x" * 5000), r"test\[1\]\[2\]: Expected `str` of length <= 4096"),
    ],
)
def test_odd_splits(content: Any, says: str) -> None:
    line_of(lambda: parse_split(content, "split.json"), says, "split.json")
    gc.collect()


def test_good_splits_stay_good(tmp_path: Path) -> None:
    file = tmp_path / "split.json"
    file.write_bytes(json.dumps(split(val=[]), indent=4).replace("\n", "\r\n").encode())
    read = read_split(file)
    assert read.classnames == ("ant", "bee") and read.train.labels == (0, 1) and not len(read.val)


AIRCRAFT = {
    "variants.txt": "707-320\n737 MAX\n",
    "images_variant_train.txt": "0000001 707-320\n0000002 737 MAX\n",
    "images_variant_val.txt": "0000003 707-320\n",
    "images_variant_test.txt": "0000004 737 MAX\n",
}


def aircraft(folder: Path, **changes: bytes) -> Callable[[], Any]:
    home = folder / "fgvc_aircraft"
    home.mkdir(exist_ok=True)
    for name, text in AIRCRAFT.items():
        stem = name.removesuffix(".txt").rpartition("_")[2]
        (home / name).write_bytes(changes.get(stem, text.encode()))
    return lambda: catalog.find("fgvc_aircraft", folder, images=False)


def test_good_lists_stay_good(tmp_path: Path) -> None:
    dataset = aircraft(tmp_path, train=b"0000001 707-320\r\n\r\n  0000002 737 MAX  \r\n")()
    assert dataset.train.paths == ("0000001.jpg", "0000002.jpg") and dataset.classnames == (
        "707-320",
        "737 MAX",
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"variants": "\ufeff707-320\n737 MAX\n".encode()}, "variants.txt: line 1: not plain text"),
        ({"variants": b"707-320\n737 MAX\n707-320\n"}, "variants.txt: '707-320' is listed twice"),
        ({"variants": b"caf\xe9"}, "variants.txt: not UTF-8"),
        ({"variants": b""}, "images_variant_train.txt: line 1: '707-320' is not in the class list"),
        ({"train": b""}, "images_variant_train.txt: lists no image"),
        ({"train": b"0000001 707-320\x0b0000002 737 MAX"}, "train.txt: line 1: .* not in the class list"),
        ({"train": b"0000001 707-320\n\0\0"}, "train.txt: line 2: not plain text"),
        ({"train": b"0000001 " + b"7" * 100_000}, "train.txt: line 1: longer than any name"),
        ({"train": b"0000001"}, "train.txt: line 1: '' is not in the class list"),
        ({"train": b"../../x 707-320"}, "train.txt: line 1: path '../../x.jpg' leaves the image folder"),
        ({"val": b"0000001 707-320"}, "val.txt: line 1: '0000001' is listed twice"),
        ({"test": b"0000004 \x1b[31m"}, r"test.txt: line 1: '\\x1b\[31m' is not in the class list"),
    ],
)
def test_odd_lists(changes: dict[str, bytes], says: str, tmp_path: Path) -> None:
    line_of(aircraft(tmp_path, **changes), says, ".txt")


def a_dataset(folder: Path) -> Any:
    disk.split_file(folder / "dtd" / "split_zhou_DescribableTextures.json", ["a", "b", "c"])
    return catalog.find("dtd", folder, images=False)


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        ("train", [], r"\(train: Expected `object`, got `array`\)"),
        ("train.data", {}, r"\(train.data: Expected `array`, got `object`\)"),
        ("train.data.0", 5, r"\(train.data\[0\]: Expected `object`, got `int`\)"),
        ("train.data.0.impath", 5, r"\(train.data\[0\].impath: Expected `str`, got `int`\)"),
        ("train.data.0.label", True, r"\(train.data\[0\].label: Expected "),
        ("train.data.0.label", 0.5, r"\(train.data\[0\].label: Expected "),
        ("train.data.0.label", "one", r"\(train.data\[0\].label: Expected "),
        ("train.data.0.label", 7, "belongs to another split"),
        ("train.indices.0", -1, "belongs to another split"),
        ("train.indices.0", 10**30, "belongs to another split"),
        ("train.indices.0", None, r"\(train.indices\[0\]: Expected "),
        ("train.indices", [0], "train: 3 images and 1 indices"),
    ],
)
def test_odd_draws(where: str, value: Any, says: str, tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path)
    content = json.loads(json.dumps(fewshot.export_index(dataset, fewshot.draw(dataset, 1, 1))))
    inner: Any = content
    *path, last = [int(part) if part.isdigit() else part for part in where.split(".")]
    for part in path:
        inner = inner[part]
    inner[last] = value
    line_of(lambda: fewshot.import_index(dataset, content), says, "index file")
    gc.collect()


def test_draws_with_numbers_as_strings_stay_good(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path)
    own = fewshot.draw(dataset, 1, 1)
    content = json.loads(json.dumps(fewshot.export_index(dataset, own)))
    content["train"]["indices"] = [str(n) for n in content["train"]["indices"]]
    content["train"]["data"][0]["label"] = str(content["train"]["data"][0]["label"])
    assert fewshot.import_index(dataset, content).digest == own.digest


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("A bird.", "'auk': Expected `array`, got `str`"),
        ([], "'auk': Expected `array` of length >= 1"),
        ([3], r"'auk'\[0\]: Expected `str`, got `int`"),
        ([["A bird."]], r"'auk'\[0\]: Expected `str`, got `array`"),
        (None, "'auk': Expected `array`, got `null`"),
        ({"a": "b"}, "'auk': Expected `array`, got `object`"),
        (["x" * 200_000], r"'auk'\[0\]: Expected `str` of length <= 100000"),
    ],
)
def test_odd_sentences(value: Any, says: str, tmp_path: Path) -> None:
    (tmp_path / "birds.json").write_text(json.dumps({"auk": value, "made by": {"any": 1}}))
    line_of(lambda: cupl.sentences(parse({"name": "birds"}, "x"), ("auk",), tmp_path), says, "birds.json")


@pytest.mark.parametrize("kind", ["suite", "description", "split", "sentences"])
def test_a_run_is_refused_in_one_line(kind: str, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    from bench.cli import main

    words = {
        "--methods": "zero-shot",
        "--datasets": "digits",
        "--prompts": "vanilla",
        "--backbone": "pocket-rn",
    }
    (tmp_path / "mine.toml").write_text("shots = [")
    if kind == "suite":
        words = {"--suite": str(tmp_path / "mine.toml")}
    elif kind == "description":
        words["--datasets"] = str(tmp_path / "mine.toml")
    elif kind == "split":
        (tmp_path / "dtd").mkdir()
        (tmp_path / "dtd" / "split_zhou_DescribableTextures.json").write_text("[")
        words |= {"--datasets": "dtd", "--data-root": str(tmp_path)}
    else:
        (tmp_path / "digits.json").write_text("[")
        words |= {"--prompts": "cupl", "--prompt-dir": str(tmp_path)}
    asked = [word for pair in words.items() for word in pair]
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["bench", "run", *asked, "--results", str(tmp_path / "results")])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2 and len(said) == 1 and str(tmp_path) in said[0], said
