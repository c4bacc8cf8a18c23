"""One line says how a user's folder was read, and one line each what may change the meaning of its
numbers.
"""

from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from bench.cli import reading
from bench.cli.app import app as bench
from bench.cli.data import app
from bench.data import catalog, endings
from bench.data.dataset import Dataset
from bench.errors import BenchError, MissingData
from tests.fixtures import disk


def read(root: Path, skip_bad: bool = False) -> Dataset:
    return catalog.find(str(root), None, skip_bad=skip_bad)


def test_digests_of_folders_that_were_read_before_stay(tmp_path: Path) -> None:
    for name in ("snowy_owl", "Auk", "käuzchen"):
        disk.byte_folder(tmp_path / "cut" / name, 10)
    disk.byte_folder(tmp_path / "cut" / "Auk" / "young", 3, 50)
    (tmp_path / "cut" / "Auk" / "notes.txt").write_text("x")
    for part, count, start in (("train", 5, 0), ("valid", 2, 5), ("test", 3, 7)):
        for name in ("owl", "auk"):
            disk.byte_folder(tmp_path / "given" / part / name, count, start)
    for part, count, start in (("training", 6, 0), ("testing", 3, 7)):
        for name in ("owl", "auk"):
            disk.byte_folder(tmp_path / "carved" / part / name, count, start)
    disk.byte_folder(tmp_path / "carved" / "annotations", 2)
    assert {name: read(tmp_path / name).digest for name in ("cut", "given", "carved")} == {
        "cut": "b57b125f4be1864cfbb5c16f75fb2bd2d81b6ab73a553a02ddba835b0b1b62ab",
        "given": "02d1c51538dcf109dd00f86b9b206a16e16217cb12ac307c498e0462d880a540",
        "carved": "f8da5199fc84210d8a5d27e8855a8fcda1f56ac34e30c03ca480d0709d950fd9",
    }


def test_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "pets"
    for name, count in (("cat", 4), ("dog", 3), ("emu", 0)):
        disk.byte_folder(root / "training_set" / name, count)
    for name in ("cat", "dog"):
        disk.byte_folder(root / "val" / name, 2, 10)
        disk.byte_folder(root / "test" / name, 3, 20)
    disk.byte_folder(root / "training_set" / "cat", 1, 30, ".JFIF")
    disk.byte_folder(root / "training_set" / "cat", 7, 40, ".HEIC")
    disk.byte_folder(root / "training_set" / "cat", 1, 50, "")
    disk.byte_folder(root / "training_set", 1, 60)
    disk.touch([root / ".git" / "x.png", root / "test" / "cat" / ".DS_Store", root / "notes.txt"])
    disk.touch([root / "labels" / "x.csv"])
    (root / "test" / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "test" / "cat" / "more").symlink_to(root / "test" / "dog")
    assert reading.line(read(root, skip_bad=True)) == (
        f"read pets from {root}: 2 classes (cat, dog); "
        "train 8 (training_set/), val 4, test 6 images; left out: "
        "7 .heic (not readable here: convert to .jpg or .png), 2 hidden, 1 .txt, "
        "1 behind a dangling link (test/cat/gone.png), 1 behind a link to a folder (test/cat/more), "
        "1 beside the split (labels/), 1 not in a class folder (training_set/060.png), "
        "1 without an ending (training_set/cat/050); skipped: emu (no training images)"
    )
    for name in range(8):
        disk.byte_folder(tmp_path / "many" / "inner" / f"c{name}", 3)
    assert reading.line(read(tmp_path / "many")) == (
        f"read many from {tmp_path / 'many'} in inner/: "
        "8 classes (c0, c1, c2, c3, c4, c5 and 2 more); train 8, val 8, test 8 images"
    )
    monkeypatch.chdir(tmp_path)
    assert reading.line(read(tmp_path / "many")).startswith("read many from many in inner/: 8 classes")
    assert reading.line(catalog.find("digits", None)) == ""


def test_the_line_is_printed_by_the_verbs(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for i in range(3):
            disk.image(tmp_path / "pets" / name / f"{i}.png", (i, len(name), ord(name[0])))
    (tmp_path / "pets" / "emu").mkdir()
    line = f"read pets from {tmp_path / 'pets'}: 2 classes (cat, dog); train 2, val 2, test 2 images"
    line += "; skipped: emu (no images)"
    words = [str(tmp_path / "pets"), "--skip-bad"]
    verified = CliRunner().invoke(app, ["verify", *words])
    assert line in verified.stdout and "6 of 6 images open" in verified.stdout
    assert "note: no split given" in verified.stdout
    assert line in CliRunner().invoke(app, ["verify", *words, "--format", "json"]).stderr
    assert line in CliRunner().invoke(app, ["draw", *words]).stderr
    run = ["run", "--methods", "zero-shot", "--backbone", "pocket-rn", "--datasets", words[0]]
    run += ["--results", str(tmp_path / "results"), "--dry-run"]
    planned = CliRunner().invoke(bench, [*run, "--skip-bad"]).stdout
    assert f"  {line}\n" in planned and "note on pets: no split given" in planned
    assert list((tmp_path / "results" / "splits").glob("pets-*.json"))
    refused = CliRunner().invoke(bench, run).exception
    assert isinstance(refused, BenchError) and "emu (no images)" in str(refused)
    for verb in ("verify", "draw"):
        refused = CliRunner().invoke(app, [verb, words[0]]).exception
        assert isinstance(refused, BenchError) and "emu (no images)" in str(refused)


def test_endings_are_those_that_pillow_reads(tmp_path: Path) -> None:
    names = ("a.JFIF", "a.jpe", "a.TIFF", "a.jp2", "a.tga", "a.qoi", "a.pgm", "a.mpo", "a.webp")
    assert all(endings.is_picture(name) for name in names)
    others = ("a.pdf", "a.eps", "a.mpg", "a.h5", "a.ico", "a.txt", "a", "Thumbs.db", "a.heic")
    assert not any(endings.is_picture(name) for name in others)
    assert endings.is_picture("a.avif") == (".avif" in Image.registered_extensions())
    assert endings.why_not("a.MAT") == ".mat"
    assert {endings.why_not("a.0001"), endings.why_not("photo.of my cat")} == {"with an unknown ending"}


def test_a_class_of_foreign_files_only(tmp_path: Path) -> None:
    for name, ending in (("owl", ".jpe"), ("auk", ".PNG"), ("emu", ".heic")):
        disk.byte_folder(tmp_path / "x" / name, 3, ending=ending)
    (tmp_path / "x" / "emu" / "a.txt").touch()
    with pytest.raises(BenchError, match=r"x: 1 of 3 .*: emu \(no images, but 3 \.heic \(not readable here"):
        read(tmp_path / "x")


def test_the_same_pictures_in_two_parts_are_said(tmp_path: Path) -> None:
    for name in ("owl", "auk"):
        disk.byte_folder(tmp_path / "x" / "Train" / name, 6)
        disk.byte_folder(tmp_path / "x" / "val" / name, 4, 50)
        disk.byte_folder(tmp_path / "x" / "test" / name, 3, 100)
    assert read(tmp_path / "x").notes == ()
    shutil.copy(tmp_path / "x/Train/owl/004.png", tmp_path / "x/test/owl/000.png")
    shutil.copytree(tmp_path / "x/test", tmp_path / "x/val", dirs_exist_ok=True)
    assert read(tmp_path / "x").notes == (
        "1 of 7 test images are also in Train/; for example, test/owl/000.png equals Train/owl/004.png",
        "7 of 7 test images are also in val/; for example, test/auk/100.png equals val/auk/100.png",
        "1 of 15 val images are also in Train/; for example, val/owl/000.png equals Train/owl/004.png",
    )


def test_the_same_picture_in_two_classes_is_said(tmp_path: Path) -> None:
    for name, text in (("owl", ""), ("auk", "owl"), ("kiwi", "")):
        disk.byte_folder(tmp_path / "x" / name, 5, text=text)
    notes = read(tmp_path / "x").notes
    assert notes[0] == "no split given: each class is cut 50/20/30 by the contents of its images"
    order = sorted(range(5), key=lambda i: sha256(f"owl {i}".encode()).hexdigest())
    pairs = "; ".join(f"auk/00{i}.png is owl/00{i}.png" for i in order[:3])
    assert notes[1:] == (f"5 pictures lie in more than one class: {pairs} and 2 more",)


def test_class_names_that_say_nothing(tmp_path: Path) -> None:
    for name in ("0", "17", "n01440764", "cat", "n0144"):
        disk.byte_folder(tmp_path / "x" / name, 3)
    assert "3 of 5 class names are numbers (0, 17, n01440764)" in read(tmp_path / "x").notes[-1]
    assert "[classnames] rename" in read(tmp_path / "x").notes[-1]
    toml = tmp_path / "x.toml"
    toml.write_text(
        'name = "x"\nfolder = "x"\n[classnames]\nrename = { 0 = "owl", 17 = "auk", n01440764 = "tench" }\n'
    )
    assert len(read(toml).notes) == 1 and "tench" in read(toml).classnames


def test_classes_without_test_images_and_classes_made_of_folders(tmp_path: Path) -> None:
    for name in ("cat", "dog", "emu"):
        disk.byte_folder(tmp_path / "x" / "train" / name, 4)
        disk.byte_folder(tmp_path / "x" / "val" / name, 1, 5)
    disk.byte_folder(tmp_path / "x" / "test" / "dog", 4, 10)
    assert read(tmp_path / "x").notes == ("no test images of 2 of 3 classes (cat, emu)",)
    for part in ("lernen", "prüfen"):
        for name in ("cat", "dog"):
            disk.byte_folder(tmp_path / "y" / part / name, 3, text=f"{part} {name}")
    assert "class lernen is made of folders (cat, dog)" in read(tmp_path / "y").notes[-1]


def test_a_folder_that_is_gone_is_missing_data_for_lists_too(tmp_path: Path) -> None:
    toml = tmp_path / "x.toml"
    toml.write_text('name = "x"\nfolder = "gone"\n')
    with pytest.raises(MissingData, match="gone"):
        catalog.find(str(toml), None, images=False)
