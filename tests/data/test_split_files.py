"""CoOp's split files are read strictly and in order, and are never replaced (datasets 2, 6.2, 6.3)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.data import catalog
from bench.data.splitfile import parse_split, read_split, split_rows
from bench.errors import BenchError, MissingData
from tests.fixtures import disk


def rows(**changes: Any) -> dict[str, Any]:
    return {
        "train": [["b/1.jpg", 1, "bee"], ["a/1.jpg", 0, "ant_lion"], ["b/2.jpg", 1, "bee"]],
        "val": [["b/3.jpg", 1, "bee"], ["a/3.jpg", 0, "ant_lion"]],
        "test": [["a/4.jpg", 0, "ant_lion"], ["b/4.jpg", 1, "bee"]],
        **changes,
    }


def test_order_is_kept_and_names_follow_labels() -> None:
    split = parse_split(rows(), "x")
    assert split.train.paths == ("b/1.jpg", "a/1.jpg", "b/2.jpg")
    assert split.train.labels == (1, 0, 1)
    assert split.classnames == ("ant_lion", "bee")
    assert split_rows(split) == rows()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "keys train, val and test"),
        ({"train": [], "test": []}, "keys train, val and test"),
        (rows(extra=[]), "keys train, val and test"),
        (rows(val={}), "val: Expected `array`, got `object`"),
        (rows(val=[["b/9.jpg", 1]]), r"val\[0\]"),
        (rows(val=[["b/9.jpg", "1", "bee"]]), r"val\[0\]"),
        (rows(val=[["b/9.jpg", True, "bee"]]), r"val\[0\]"),
        (rows(val=[["b/9.jpg", 1, "wasp"]]), "both 'bee' and 'wasp'"),
        (rows(val=[["b/9.jpg", 3, "wasp"]]), "without gaps"),
        (rows(val=[["b/9.jpg", 2, "wasp"]]), "no row in train"),
        (rows(test=[["b/1.jpg", 1, "bee"]]), "listed twice"),
        (rows(test=[["../secret.jpg", 1, "bee"]]), "leaves the image folder"),
        (rows(test=[["/etc/secret.jpg", 1, "bee"]]), "leaves the image folder"),
    ],
)
def test_what_is_not_a_split_file(content: Any, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        parse_split(content, "x")


def test_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text('{"train": [')
    with pytest.raises(BenchError, match=r"split\.json"):
        read_split(tmp_path / "split.json")


def test_missing_split_file_says_what_it_is_and_where_it_goes(tmp_path: Path) -> None:
    disk.image(tmp_path / "dtd" / "images" / "banded" / "banded_0001.jpg")
    with pytest.raises(MissingData) as error:
        catalog.find("dtd", tmp_path)
    for word in (
        "split_zhou_DescribableTextures.json",
        "CoOp",
        str(tmp_path / "dtd"),
        str(tmp_path / "splits"),
    ):
        assert word in str(error.value)


def test_no_data_root_is_named() -> None:
    with pytest.raises(MissingData, match="--data-root"):
        catalog.find("dtd", None)


@pytest.mark.parametrize("images", ["dtd/images", "dtd/dtd/images", "DTD/images"])
@pytest.mark.parametrize("split", ["dtd", "splits", "."])
def test_layouts(tmp_path: Path, images: str, split: str) -> None:
    listed = disk.split_file(
        tmp_path / split / "split_zhou_DescribableTextures.json", ["a", "b"], train=1, val=1
    )
    disk.listed_images(tmp_path / images, listed)
    dataset = catalog.find("dtd", tmp_path)
    for path in (*dataset.train.paths, *dataset.test.paths):
        assert dataset.source.open(path).mode == "RGB"


def test_lists_alone_need_no_images(tmp_path: Path) -> None:
    disk.split_file(tmp_path / "dtd" / "split_zhou_DescribableTextures.json", ["a", "b"])
    assert len(catalog.find("dtd", tmp_path, images=False).train) == 10
    with pytest.raises(MissingData) as error:
        catalog.find("dtd", tmp_path)
    for folder in ("dtd/images", "dtd/dtd/images", "DTD/images"):
        assert str(tmp_path / folder) in str(error.value)


def test_cars_and_sun_find_their_images_by_what_lies_inside(tmp_path: Path) -> None:
    for name, file, path in (
        ("stanford_cars", "stanford_cars/split_zhou_StanfordCars.json", "cars_{part}/1.jpg"),
        ("sun397", "sun397/split_zhou_SUN397.json", "a/abbey/sun_{part}.jpg"),
    ):
        content = {part: [[path.format(part=part), 0, "x"]] for part in ("train", "val", "test")}
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text(json.dumps(content))
        with pytest.raises(MissingData, match="images"):
            catalog.find(name, tmp_path)
        root = tmp_path / ("StanfordCars" if name == "stanford_cars" else "SUN397")
        disk.image(root / content["train"][0][0])
        assert catalog.find(name, tmp_path).source.open(content["train"][0][0]).mode == "RGB"


def test_label_order_is_that_of_the_labels_not_of_the_list_or_the_alphabet(tmp_path: Path) -> None:
    """Flowers and Cars begin with other labels than 0; capitals come first in Caltech; UCF ignores case."""
    names = ["Zebra", "apple", "Mango"]
    disk.split_file(tmp_path / "oxford_flowers" / "split_zhou_OxfordFlowers.json", names, order=[2, 0, 1])
    dataset = catalog.find("oxford_flowers", tmp_path, images=False)
    assert dataset.classnames == tuple(names)
    assert list(dict.fromkeys(dataset.train.labels)) == [2, 0, 1]


def test_paths_are_taken_from_the_file_not_rebuilt_from_names(tmp_path: Path) -> None:
    path = "Handstand_Pushups/v_HandStandPushups_g01_c01.jpg"
    content = {
        "train": [[path, 0, "Handstand_Pushups"]],
        "val": [[path.replace("g01", "g02"), 0, "Handstand_Pushups"]],
        "test": [[path.replace("g01", "g03"), 0, "Handstand_Pushups"]],
    }
    (tmp_path / "ucf101").mkdir()
    (tmp_path / "ucf101" / "split_zhou_UCF101.json").write_text(json.dumps(content))
    dataset = catalog.find("ucf101", tmp_path, images=False)
    assert dataset.train.paths == (path,)
    assert dataset.classnames == ("Handstand_Pushups",)


def test_digest_depends_on_order_labels_and_names_not_on_the_place(tmp_path: Path) -> None:
    digests = set()
    for number, (names, order) in enumerate([(["a", "b"], None), (["a", "c"], None), (["a", "b"], [1, 0])]):
        disk.split_file(
            tmp_path / f"{number}" / "dtd/split_zhou_DescribableTextures.json", names, order=order
        )
        digests.add(catalog.find("dtd", tmp_path / f"{number}", images=False).digest)
    assert len(digests) == 3
    disk.split_file(tmp_path / "elsewhere/splits/split_zhou_DescribableTextures.json", ["a", "b"])
    assert catalog.find("dtd", tmp_path / "elsewhere", images=False).digest in digests


def test_other_class_names_are_noted(tmp_path: Path) -> None:
    disk.split_file(tmp_path / "dtd" / "split_zhou_DescribableTextures.json", ["a", "b"])
    notes = " ".join(catalog.find("dtd", tmp_path, images=False).notes)
    assert "class names" in notes
    assert "published file" in notes
