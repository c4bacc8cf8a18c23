"""In lists, links and archives from strangers no path leaves its folder unnoticed, and no header is
trusted.
"""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.cli import compare, reading
from bench.cli.data import app
from bench.data import catalog, idx
from bench.data.imagefile import escapes, spelled
from bench.data.imagenet import images_in
from bench.data.splitfile import parse_split, read_split
from bench.errors import BenchError
from tests.fixtures import disk
from tests.fixtures.hostile import in_time


@pytest.mark.parametrize(
    "listed", ["a/x.png", "a/./x.png", "a//x.png", "./a/x.png", "a/b/../x.png", "c/../a/b/../x.png"]
)
def test_a_path_has_one_spelling(listed: str) -> None:
    assert spelled(listed) == "a/x.png"


@pytest.mark.parametrize(
    "listed",
    [
        "",
        " ",
        ".",
        "a/..",
        "../x.png",
        "a/../../x.png",
        "./../x.png",
        "/x.png",
        "//x.png",
        r"..\x",
        r"C:\x",
        r"a\..\..\x",
        "a\0",
    ],
)
def test_no_spelling_leaves_the_folder(listed: str) -> None:
    assert escapes(spelled(listed))


def test_spellings_of_one_file_are_one_row(tmp_path: Path) -> None:
    def split(path: str) -> dict[str, list[list[object]]]:
        return {"train": [["a/1.png", 0, "a"], ["b/1.png", 1, "b"]], "val": [], "test": [[path, 0, "a"]]}

    for path in ("a/./1.png", "a//1.png", "b/../a/1.png", r"a\1.png"):
        with pytest.raises(BenchError, match="listed twice"):
            parse_split(split(path), "x")
    assert parse_split(split("a/b/../2.png"), "x").test.paths == ("a/2.png",)
    assert parse_split(split(r"a\2.png"), "x").test.paths == (r"a\2.png",)  # digests of such lists stay


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
def test_a_list_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "split.json")
    with in_time(), pytest.raises(BenchError, match=r"split\.json: .*a pipe, not a regular file"):
        read_split(tmp_path / "split.json")


def test_a_list_that_is_nested_too_deeply(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text("[" * 100_000)
    with pytest.raises(BenchError, match=r"split\.json"):
        read_split(tmp_path / "split.json")


def test_lists_of_images_stay_inside(tmp_path: Path) -> None:
    home = tmp_path / "fgvc_aircraft"
    (home / "images").mkdir(parents=True)
    (home / "variants.txt").write_text("a\n")
    for part in ("train", "val", "test"):
        (home / f"images_variant_{part}.txt").write_text("../../secret a\n")
    with pytest.raises(BenchError, match=r"line 1: .*\.\./\.\./secret.* leaves the image folder"):
        catalog.find("fgvc-aircraft", tmp_path)


def test_images_behind_links_are_read_and_said(tmp_path: Path) -> None:
    root, other = tmp_path / "pets", tmp_path / "photos"
    for name in ("cat", "dog"):
        disk.class_folder(root / name, 4)
    disk.class_folder(other / "emu", 4)
    (root / "emu").symlink_to(other / "emu")
    (root / "cat" / "inside.png").symlink_to(root / "dog" / "000.png")
    assert len(catalog.find(str(root), None).reading.outside) == 4  # type: ignore[union-attr]
    (root / "cat" / "x.png").symlink_to(disk.image(other / "x.png"))
    found = catalog.find(str(root), None)
    assert len(list(found.listed())) == 14
    assert ", 5 of them outside it, behind links (cat/x.png, emu/000.png, emu/001.png and 2 more)" in (
        reading.line(found)
    )
    (root / "emu").unlink()
    assert ", 1 of them outside it, behind links (cat/x.png)" in reading.line(catalog.find(str(root), None))
    (root / "cat" / "x.png").unlink()
    assert "outside" not in reading.line(catalog.find(str(root), None))


def test_verify_says_links_out_of_listed_images(tmp_path: Path) -> None:
    names = ["a", "b"]
    rows = disk.split_file(tmp_path / "own" / "split.json", names)
    disk.listed_images(tmp_path / "own", rows)
    (tmp_path / "own.toml").write_text(
        'name = "own"\nfolder = "own"\nreader = "coop-split"\n[options]\nfile = "split.json"\n'
    )
    first = tmp_path / "own" / "a" / "test_0.jpg"
    first.rename(tmp_path / "elsewhere.jpg")
    first.symlink_to(tmp_path / "elsewhere.jpg")
    said = CliRunner().invoke(app, ["verify", str(tmp_path / "own.toml")])
    assert "1 image lies outside" in said.output and "a/test_0.jpg" in said.output, said.output


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
def test_what_is_no_file_is_named_when_a_folder_is_read(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        disk.class_folder(tmp_path / "pets" / name, 4)
    os.mkfifo(tmp_path / "pets" / "cat" / "pipe.png")
    with in_time():
        assert "1 that are no regular files (cat/pipe.png)" in reading.line(
            catalog.find(str(tmp_path / "pets"), None)
        )
    assert images_in(tmp_path / "pets" / "dog") == [f"{i:03d}.png" for i in range(4)]
    (tmp_path / "pets" / "dog" / "link.png").symlink_to("000.png")
    assert len(images_in(tmp_path / "pets" / "dog")) == 5
    (tmp_path / "pets" / "cat" / "folder.png").mkdir()
    with pytest.raises(BenchError, match=r"cat: 2 of its images are no regular files \(.*pipe\.png"):
        images_in(tmp_path / "pets" / "cat")


def idx_file(file: Path, *shape: int, body: bytes = b"") -> Path:
    head = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(head + body, 9) if file.suffix == ".gz" else head + body)
    return file


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_headers_are_looked_at_first(tmp_path: Path, ending: str) -> None:
    file = idx_file(tmp_path / f"a{ending}", 60_000, 4000, 4000)
    with pytest.raises(BenchError, match="60000 x 4000 x 4000 bytes, but at most 1 GiB"):
        idx.read_idx(file)
    file = idx_file(tmp_path / f"b{ending}", 10, 2, 2, body=bytes(10**8))
    with in_time(), pytest.raises(BenchError, match=r"header says 56 bytes|longer than its header says"):
        idx.read_idx(file)
    file = idx_file(tmp_path / f"c{ending}", 10, 2, 2, body=bytes(range(40)))
    assert np.array_equal(idx.read_idx(file).ravel(), np.arange(40))
    for odd in (b"", b"\0\0\x08", b"\0\0\x08\x09" + bytes(90), b"\0\0\x08\x00", b"\0\0\x08\x03\0\0"):
        file.write_bytes(gzip.compress(odd) if ending else odd)
        idx.read_idx.cache_clear()
        with pytest.raises(BenchError, match="not an IDX file of bytes"):
            idx.read_idx(file)


def test_idx_files_that_do_not_belong_together(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST"
    disk.idx_files(raw, [0, 1] * 9, [1, 0, 9])
    idx_file(raw / "t10k-labels-idx1-ubyte", 4, body=bytes(4))
    with pytest.raises(BenchError, match=r"labels of shape \(4,\) for 3 images"):
        catalog.find("fashion-mnist", tmp_path)
    idx_file(raw / "t10k-images-idx3-ubyte", 1, 20_000, 20_000)
    with pytest.raises(
        BenchError, match=r"its images have 400\.0 million pixels, --max-pixels allows 300\.0"
    ):
        catalog.find("fashion-mnist", tmp_path, max_pixels=3 * 10**8)


@pytest.mark.parametrize("name", ["../secret", "/etc", r"..\x", "..", "", "a/b"])
def test_no_record_names_a_folder(name: str) -> None:
    with pytest.raises(BenchError, match="which is a path"):
        compare.safe(name)
    assert compare.safe("birds-4f1c2a") == "birds-4f1c2a"
