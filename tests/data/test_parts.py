"""Folders of train, val and test images are recognised in all spellings, or refused with a reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.data import catalog
from bench.data.dataset import Dataset
from bench.data.parts import part_of
from bench.errors import BenchError
from tests.fixtures import disk

CLASSES = ("cat", "dog")


def make(root: Path, *homes: str) -> Path:
    """Class folders below each home, with other images in each."""
    for number, home in enumerate(homes):
        for name in CLASSES:
            disk.byte_folder(root / home / name, 4, 10 * number)
    return root


def read(root: Path) -> Dataset:
    return catalog.find(str(root), None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("train", ("train", "")),
        ("Train", ("train", "")),
        ("TRAINING", ("train", "")),
        ("training_set", ("train", "")),
        ("TestImages", ("test", "")),
        ("testset", ("test", "")),
        ("seg_train", ("train", "seg")),
        ("Pets-Validation", ("val", "pets")),
        ("val2017", ("val", "2017")),
        ("dev", ("val", "")),
        ("train_station", ("train", "station")),
        ("trainval", None),
        ("train_test", None),
        ("trainer", None),
        ("contest", None),
        ("cat", None),
        ("", None),
    ],
)
def test_what_a_name_says(name: str, said: tuple[str, str] | None) -> None:
    assert part_of(name) == said


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "", "Test"),
        ("TRAIN", "Valid", "TEST"),
        ("training_set", "", "test_set"),
        ("training", "dev", "testing"),
        ("seg_train/seg_train", "", "seg_test/seg_test"),
        ("pets_train", "pets_val", "pets_test"),
        ("train/images", "val/images", "test/images"),
    ],
)
def test_spellings(tmp_path: Path, train: str, val: str, test: str) -> None:
    dataset = read(make(tmp_path / "x", *filter(None, (train, test, val))))
    assert dataset.classnames == CLASSES
    assert {path.rsplit("/", 2)[0] for path in dataset.train.paths} == {train}
    assert {path.rsplit("/", 2)[0] for path in dataset.test.paths} == {test}
    assert (
        len(dataset.test) == 8
        and len(dataset.train) == (8 if val else 6)
        and len(dataset.val) == 8 - 6 * (not val)
    )
    assert dataset.reading
    assert dataset.reading.parts == {"train": train, "test": test, **({"val": val} if val else {})}


def test_wrappers_are_gone_through_and_change_nothing(tmp_path: Path) -> None:
    plain = read(make(tmp_path / "plain", ""))
    wrapped = make(tmp_path / "wrapped", "pets/pets")
    (wrapped / "readme.txt").write_text("")
    disk.byte_folder(wrapped / "__MACOSX" / "pets", 3)
    dataset = read(wrapped)
    assert (dataset.digest, dataset.classnames) == (plain.digest, CLASSES)
    assert dataset.reading and dataset.reading.inside == "pets/pets"
    split = read(make(tmp_path / "split", "data/train", "data/test"))
    assert split.reading and (split.reading.inside, sorted(split.reading.parts)) == (
        "data",
        ["test", "train"],
    )


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus", "train", "train_station"):
        disk.byte_folder(tmp_path / "x" / name, 3)
    assert read(tmp_path / "x").classnames == ("bus", "train", "train_station")
    disk.byte_folder(tmp_path / "x" / "test" / "old", 3)
    with pytest.raises(BenchError, match="train/ has no class folders, and other parts have"):
        read(tmp_path / "x")
    toml = tmp_path / "x.toml"
    toml.write_text('name = "x"\nfolder = "x"\n[classnames]\nrename = { test = "test rig" }\n')
    assert read(toml).classnames == ("bus", "test rig", "train", "train_station")


@pytest.mark.parametrize("name", ["train", "test", "val"])
def test_a_class_that_looks_like_a_part_is_said_to_need_a_name(tmp_path: Path, name: str) -> None:
    """Its sub-folders make it look like a part; the line names what lets it be a class."""
    for folder in ("bus", "car", f"{name}/steam", f"{name}/electric"):
        disk.byte_folder(tmp_path / "x" / folder, 3, len(folder))
    with pytest.raises(BenchError) as error:
        read(tmp_path / "x")
    mend = f'[classnames] rename = {{ "{name}" = "..." }}'
    assert f"has {name}/ but no " in str(error.value) and mend in str(error.value)
    (tmp_path / "x.toml").write_text(f'name = "x"\nfolder = "x"\n{mend.replace("] ", "]" + chr(10))}\n')
    assert read(tmp_path / "x.toml").classnames == ("bus", "car", "...")


def test_other_splits_beside_are_left_out_and_said(tmp_path: Path) -> None:
    root = make(tmp_path / "x", "train", "test", "train_masks", "test_masks", "annotations")
    dataset = read(root)
    assert {path.split("/")[0] for path in dataset.train.paths + dataset.test.paths} == {"train", "test"}
    assert dataset.reading
    (left,) = dataset.reading.left_out
    assert (left.reason, left.count, left.example) == ("beside the split", 3, "annotations/")


@pytest.mark.parametrize(
    ("homes", "says"),
    [
        (("val",), "has val/ but no train/"),
        (("test_set",), "has test_set/ but no train/"),
        (("seg_train",), "has seg_train/ but no test/"),
        (("Train", "val"), "has Train/ but no test/"),
        (("Train", "train", "test"), "Train/, train/ all say train"),
        (("train", "test", "val", "validation"), "val/, validation/ all say val"),
        (("a_train", "a_test", "b_train", "b_test"), "more than one split (a_train/, b_train/)"),
        (("", "test"), "has test/ but no train/"),
        (("cat/train", "cat/test"), "class cat holds test, train"),
    ],
)
def test_what_is_neither_classes_nor_a_split_is_refused(
    tmp_path: Path, homes: tuple[str, ...], says: str
) -> None:
    root = make(tmp_path / "x", *homes)
    if homes[0].startswith("cat"):
        disk.byte_folder(root / "dog", 3)
    with pytest.raises(BenchError, match=re.escape(says)):
        read(root)


def test_parts_without_class_folders_are_refused(tmp_path: Path) -> None:
    for part in ("train", "test"):
        disk.byte_folder(tmp_path / "flat" / part, 4)
    with pytest.raises(BenchError, match="test/, train/ hold images but no class folders"):
        read(tmp_path / "flat")
    disk.byte_folder(make(tmp_path / "half", "train") / "test", 4)
    with pytest.raises(BenchError, match="test/ has no class folders"):
        read(tmp_path / "half")
