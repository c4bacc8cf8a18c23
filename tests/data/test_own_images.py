"""Tests of a user's folder of images: the split by content, given splits, and a TOML file of six lines."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cli import reading
from bench.data import catalog, fewshot
from bench.data.cut import cut
from bench.data.splitfile import read_split
from bench.errors import BenchError
from tests.fixtures import disk


def parts_of(root: Path) -> dict[str, str]:
    """Content to part."""
    dataset = catalog.find(str(root), None)
    return {
        (root / path).read_bytes().hex(): part
        for part in ("train", "val", "test")
        for path in getattr(dataset, part).paths
    }


def test_class_folders_are_cut_and_the_split_is_written(tmp_path: Path) -> None:
    root = tmp_path / "my birds"
    disk.class_folder(root / "snowy_owl", 10)
    disk.class_folder(root / "Auk", 20)
    disk.touch([root / ".git" / "x.jpg", root / "notes.txt", root / "Auk" / "Thumbs.db"])
    dataset = catalog.find(str(root), None, out=tmp_path / "results")
    assert dataset.name == "my-birds"
    assert dataset.classnames == ("Auk", "snowy_owl")
    assert dataset.spec.templates["hand"] == ("a photo of a {}.",)
    assert dataset.spec.recipe_as == "default" and dataset.own_split
    assert Counter(dataset.train.labels) == {0: 10, 1: 5}
    assert Counter(dataset.val.labels) == {0: 4, 1: 2}
    assert Counter(dataset.test.labels) == {0: 6, 1: 3}
    assert dataset.source.open(dataset.train.paths[0]).mode == "RGB"
    written = list((tmp_path / "results" / "splits").iterdir())
    assert [file.name for file in written] == [f"my-birds-{dataset.digest[:12]}.json"]
    split = read_split(written[0])
    assert (split.train, split.val, split.test) == (dataset.train, dataset.val, dataset.test)
    assert fewshot.draw(dataset, 2, 1).train.labels == (0, 0, 1, 1)


def test_the_split_depends_on_content_alone(tmp_path: Path) -> None:
    for where in ("one", "two"):
        disk.class_folder(tmp_path / where / "sparrow", 3)
    disk.class_folder(tmp_path / "one" / "owl", 12)
    (tmp_path / "two" / "owl").mkdir(parents=True)
    for number, file in enumerate(sorted((tmp_path / "one" / "owl").iterdir(), reverse=True)):
        shutil.copy(file, tmp_path / "two" / "owl" / f"renamed {number}.png")
    assert parts_of(tmp_path / "one") == parts_of(tmp_path / "two")
    before = catalog.find(str(tmp_path / "one"), None).digest
    disk.image(tmp_path / "one" / "owl" / "003.png", (1, 2, 3))
    assert catalog.find(str(tmp_path / "one"), None).digest != before


@settings(deadline=None)
@given(contents=st.lists(st.integers(0, 12), min_size=1, max_size=60))
def test_cut_properties(contents: list[int]) -> None:
    hashes = {f"{i}.jpg": f"{content:04x}" for i, content in enumerate(contents)}
    if len(set(contents)) < 3:
        with pytest.raises(AssertionError):
            cut(hashes)
        return
    parts = cut(hashes)
    assert sorted(path for part in parts.values() for path in part) == sorted(hashes)
    sides = [{hashes[path] for path in part} for part in parts.values()]
    assert all(sides) and sum(map(len, sides)) == len(set(contents)), "identical files stay together"
    if len(set(contents)) == len(contents) >= 10:
        assert len(parts["train"]) == round(0.5 * len(contents))
        assert len(parts["val"]) == round(0.2 * len(contents))


def test_many_empty_classes_are_one_short_line(tmp_path: Path) -> None:
    for name in ("owl", "sparrow"):
        disk.class_folder(tmp_path / "a" / name, 3)
    for number in range(300):
        (tmp_path / "a" / f"class{number:03}").mkdir()
    first = ", ".join(f"class{number:03}" for number in range(10))
    with pytest.raises(BenchError, match=rf"300 of 302 .*: 300 \(no images\): {first} and 290 more; mend"):
        catalog.find(str(tmp_path / "a"), None)
    said = reading.line(catalog.find(str(tmp_path / "a"), None, skip_bad=True))
    assert said.endswith(f"; skipped: 300 (no images): {first} and 290 more")


def test_small_and_empty_classes_are_all_named_or_skipped(tmp_path: Path) -> None:
    for name, count in (("owl", 3), ("sparrow", 3), ("auk", 2), ("kiwi", 0)):
        disk.class_folder(tmp_path / "a" / name, count)
        (tmp_path / "a" / name).mkdir(exist_ok=True)
    reasons = (("auk", "2 different images where 3 are needed"), ("kiwi", "no images"))
    with pytest.raises(BenchError, match="2 of 4 class folders cannot be used") as error:
        catalog.find(str(tmp_path / "a"), None)
    assert all(f"{name} ({reason})" in str(error.value) for name, reason in reasons)
    dataset = catalog.find(str(tmp_path / "a"), None, skip_bad=True)
    assert dataset.classnames == ("owl", "sparrow") and dataset.train.labels == (0, 1)
    assert dataset.reading and dataset.reading.skipped == reasons
    shutil.rmtree(tmp_path / "a" / "auk")
    shutil.rmtree(tmp_path / "a" / "kiwi")
    assert catalog.find(str(tmp_path / "a"), None).digest == dataset.digest


def test_fewer_than_two_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(BenchError, match="no class folders"):
        catalog.find(str(tmp_path / "b"), None)
    disk.class_folder(tmp_path / "b", 3)
    with pytest.raises(BenchError, match="no class folders, but 3 images"):
        catalog.find(str(tmp_path / "b"), None)
    disk.class_folder(tmp_path / "b" / "owl", 3)
    disk.class_folder(tmp_path / "b" / "auk", 1)
    with pytest.raises(BenchError, match=r"auk \(1 different image where 3 are needed\)"):
        catalog.find(str(tmp_path / "b"), None, skip_bad=True)
    shutil.rmtree(tmp_path / "b" / "auk")
    with pytest.raises(BenchError, match="only one class, owl"):
        catalog.find(str(tmp_path / "b"), None)


def test_given_splits_are_kept(tmp_path: Path) -> None:
    for part, count, start in (("train", 4, 0), ("valid", 2, 4), ("test", 3, 6)):
        for name in ("owl", "kiwi"):
            disk.class_folder(tmp_path / "birds" / part / name, count, start)
    dataset = catalog.find(str(tmp_path / "birds"), None, out=tmp_path / "results")
    assert dataset.classnames == ("kiwi", "owl")
    assert dataset.train.paths[0] == "train/kiwi/000.png"
    assert dataset.val.paths[0] == "valid/kiwi/004.png"
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (8, 4, 6)
    assert not dataset.own_split and not dataset.notes and not (tmp_path / "results").exists()

    shutil.rmtree(tmp_path / "birds" / "valid")
    dataset = catalog.find(str(tmp_path / "birds"), None)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (6, 2, 6)
    assert dataset.own_split and "no val folder" in dataset.notes[0]

    disk.class_folder(tmp_path / "birds" / "test" / "Owl", 1, 9)
    with pytest.raises(BenchError, match=r"Owl \(in test/ but not in train/, which has owl\)"):
        catalog.find(str(tmp_path / "birds"), None)
    assert catalog.find(str(tmp_path / "birds"), None, skip_bad=True).digest == dataset.digest
    shutil.rmtree(tmp_path / "birds" / "test")
    with pytest.raises(BenchError, match="no test/"):
        catalog.find(str(tmp_path / "birds"), None)


def test_six_lines_of_toml(tmp_path: Path) -> None:
    for name in ("n01", "n02", "junk"):
        disk.class_folder(tmp_path / "pictures" / "birds" / name, 6)
    toml = tmp_path / "garden.toml"
    toml.write_text(
        'name = "garden"\nfolder = "pictures/birds"\n[prompts]\nhand = ["a photo of a {}, a type of bird."]\n'
        '[classnames]\nrename = { n01 = "snowy owl" }\ndrop = ["junk"]\n'
    )
    dataset = catalog.find(str(toml), None)
    assert (dataset.name, dataset.classnames) == ("garden", ("snowy owl", "n02"))
    assert dataset.spec.templates["hand"] == ("a photo of a {}, a type of bird.",)
    toml.write_text('name = "garden"\nfolder = "pictures/birds"\n[classnames]\nrename = { n09 = "x" }\n')
    with pytest.raises(BenchError, match="'n09'"):
        catalog.find(str(toml), None)
    toml.write_text('name = "garden"\nfolder = "pictures/cats"\n')
    with pytest.raises(BenchError, match="pictures/cats"):
        catalog.find(str(toml), None)


def test_own_split_file_through_toml(tmp_path: Path) -> None:
    listed = disk.split_file(tmp_path / "mine" / "my_split.json", ["a", "b"])
    disk.listed_images(tmp_path / "mine" / "pics", listed)
    toml = tmp_path / "mine.toml"
    toml.write_text(
        'name = "mine"\nreader = "coop-split"\n[layout]\nfolders = ["mine"]\nimages = ["pics"]\n'
        '[options]\nfile = "my_split.json"\n'
    )
    dataset = catalog.find(str(toml), None)
    assert dataset.source.open(dataset.test.paths[0]).mode == "RGB"
    assert (
        json.loads((tmp_path / "mine" / "my_split.json").read_text())["test"][0][0] == dataset.test.paths[0]
    )


def test_an_own_folder_does_not_pass_for_a_dataset_of_the_catalog(tmp_path: Path) -> None:
    for name in ("banded", "woven"):
        disk.class_folder(tmp_path / "dtd" / name, 3)
    assert catalog.find(str(tmp_path / "dtd"), None).name == "dtd-own"
