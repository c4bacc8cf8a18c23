"""Odd names: not UTF-8, very long, with commas; and files that the system does not let the program read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from bench.cli import options
from bench.cli.data import app
from bench.data import catalog, fewshot, gather, walk
from bench.data.verify import verify
from bench.errors import BenchError
from bench.names import printable, shown
from bench.paths import from_home
from tests.fixtures import disk


def colours(folder: bytes, names: list[bytes], blue: int) -> None:
    """An image for each file name, all of different colours."""
    try:
        os.makedirs(folder)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for number, name in enumerate(names):
        with open(folder + b"/" + name, "wb") as file:
            Image.new("RGB", (8, 6), (number, 0, blue)).save(file, format="PNG")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path) + b"/\xe9t\xe9"
    colours(root + b"/caf\xe9", [b"\xe9%d.png" % i for i in range(3)] + [b"back\\slash.png"], 1)
    colours(root + b"/plain", [b"%d.png" % i for i in range(4)], 2)
    path = os.fsdecode(root)
    dataset = catalog.find(path, None, out=tmp_path / "results")
    assert dataset.classnames == ("caf\\xe9", "plain")
    assert "not UTF-8 are read as caf\\xe9;" in dataset.notes[-1]
    paths = dataset.train.paths + dataset.val.paths + dataset.test.paths
    assert "caf%E9/%E90.png" in paths and "caf%E9/back%5Cslash.png" in paths and "plain/0.png" in paths
    assert dataset.source.open("caf%E9/%E92.png").getpixel((0, 0)) == (2, 0, 1)
    assert dataset.source.open("caf%E9/back%5Cslash.png").getpixel((0, 0)) == (3, 0, 1)
    assert (verify(dataset).checked, verify(dataset).failed) == (8, 0)

    drawn = CliRunner().invoke(app, ["draw", path, "--shots", "1"])
    assert drawn.exit_code == 0
    assert (
        fewshot.import_index(dataset, json.loads(drawn.stdout)).digest == fewshot.draw(dataset, 1, 1).digest
    )
    (written,) = (tmp_path / "results" / "splits").iterdir()
    assert "caf%E9/" in written.read_text(encoding="utf-8")

    toml = tmp_path / "x.toml"
    os.rename(root, os.fsencode(tmp_path) + b"/x")
    toml.write_text('name = "x"\nfolder = "x"\n[classnames]\nrename = { \'caf\\xe9\' = "café" }\n')
    assert catalog.find(str(toml), None).classnames == ("café", "plain")


def test_two_files_of_one_stored_name_are_refused(tmp_path: Path) -> None:
    colours(os.fsencode(tmp_path) + b"/x/cat", [b"\xe9.png", b"%E9.png"], 1)
    disk.class_folder(tmp_path / "x" / "kiwi", 3)
    with pytest.raises(BenchError, match=r"cat/\\xe9\.png would be stored under the name of another file"):
        catalog.find(str(tmp_path / "x"), None)


def test_names_as_text() -> None:
    assert (printable("caf\udce9"), printable("käuz\n")) == ("caf\\xe9", "käuz\n")
    assert printable("half \ud83d") == "half \\ud83d", "in an error's text: records hold UTF-8"
    assert shown("a\n\x1b[1m\udce9é") == "a\\n\\x1b[1m\\xe9é"
    assert gather.storable("käuz/a%b.png") == "käuz/a%b.png"
    assert gather.storable("C:x/a.png") == "C%3Ax/a.png"


def test_what_cannot_be_read_is_named_or_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("auk", "kiwi", "sparrow"):
        disk.class_folder(tmp_path / "x" / name, 4)
    scandir, sha256_file = os.scandir, gather.sha256_file

    def locked(path: Path) -> object:
        if Path(path).name == "auk":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    def torn(file: Path) -> str:
        if file.name == "002.png" and file.parent.name == "kiwi":
            raise OSError(5, "Input/output error", str(file))
        return sha256_file(file)

    monkeypatch.setattr(walk.os, "scandir", locked)
    monkeypatch.setattr(gather, "sha256_file", torn)
    with pytest.raises(BenchError) as error:
        catalog.find(str(tmp_path / "x"), None)
    assert "auk (cannot be read (permission denied))" in str(error.value)
    assert "1 image file cannot be read: kiwi/002.png (input/output error)" in str(error.value)
    dataset = catalog.find(str(tmp_path / "x"), None, skip_bad=True)
    assert dataset.classnames == ("kiwi", "sparrow") and dataset.reading
    assert [(left.reason, left.example) for left in dataset.reading.left_out] == [
        ("unreadable", "kiwi/002.png")
    ]


def test_a_folder_that_leads_back_or_cannot_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "loop").symlink_to(tmp_path / "x")
    with pytest.raises(
        BenchError, match=r"/x: 1 of 1 .*: loop \(no images, but 1 behind a link to a folder\)"
    ):
        catalog.find(str(tmp_path / "x"), None)

    def locked(path: Path) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(walk.os, "scandir", locked)
    with pytest.raises(BenchError, match=r"/x: this folder cannot be read \(permission denied\)"):
        catalog.find(str(tmp_path / "x"), None)


def test_places_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no home folder of that name"):
        from_home("~nobody-of-that-name/x")
    with pytest.raises(BenchError, match="no home folder of that name"):
        catalog.describe("~nobody-of-that-name/x")
    with pytest.raises(BenchError, match="no home folder of that name"):
        options.datasets("~nobody-of-that-name/x,digits")
    with pytest.raises(BenchError, match="unknown dataset"):
        catalog.describe("a" * 300)
    with pytest.raises(BenchError, match="no such folder"):
        catalog.describe(f"/x/{'a' * 300}")
    (tmp_path / "pets.zip").touch()
    with pytest.raises(BenchError, match="this file is no TOML file"):
        catalog.describe(str(tmp_path / "pets.zip"))


@pytest.mark.parametrize("name", ["n" * 250, "é" * 120])
def test_long_names_of_folders(tmp_path: Path, name: str) -> None:
    for inner in ("auk", "kiwi"):
        disk.byte_folder(tmp_path / name / inner, 3)
    dataset = catalog.find(str(tmp_path / name), None, out=tmp_path)
    (written,) = (tmp_path / "splits").iterdir()
    assert written.name.endswith(f"-{dataset.digest[:12]}.json")


def test_a_path_is_a_path_before_it_is_a_list(tmp_path: Path) -> None:
    folder = tmp_path / "a,b"
    folder.mkdir()
    (tmp_path / "a,b,c").mkdir()
    (tmp_path / "w,1.pt").touch()
    assert options.datasets(str(folder)) == (str(folder),)
    assert options.datasets(f"digits, {folder} ,emoji") == ("digits", str(folder), "emoji")
    assert options.datasets(f"{folder},c,{folder},d") == (str(tmp_path / "a,b,c"), str(folder), "d")
    assert options.datasets("digits,emoji,,") == ("digits", "emoji")
    assert options.datasets(None) == options.datasets("") == ()
    file = f"RN50@{tmp_path}/w,1.pt"
    assert options.backbones(f"{file},pocket-rn") == (file, "pocket-rn")
    assert options.backbones("RN50,pocket-rn") == ("RN50", "pocket-rn")
