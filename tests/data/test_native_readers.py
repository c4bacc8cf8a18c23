"""Readers of native layouts: Aircraft, ImageNet and its shifts, IDX files (datasets 3.1, 3.7, 3.12)."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from bench.data import catalog, fewshot
from bench.data.dataset import path_digest
from bench.data.imagenet import class_list
from bench.errors import BenchError, MissingData
from tests.fixtures import disk

WNIDS = list(class_list("imagenet-classnames.txt"))
SUBSETS = json.loads((Path(__file__).parent / "published_lists.json").read_text())["subsets"]


def aircraft_files(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "variants.txt").write_text("707-320\nBAE 146-200\nF-16A/B\n")
    (folder / "images_variant_train.txt").write_text(
        "0056978 707-320\n1025794 BAE 146-200\n0000001 F-16A/B\n"
    )
    (folder / "images_variant_val.txt").write_text("0000002 707-320\n0000003 BAE 146-200\n0000004 F-16A/B\n")
    (folder / "images_variant_test.txt").write_text("0000005 F-16A/B\n0000006 BAE 146-200\n\n")
    disk.image(folder / "images" / "0056978.jpg")


@pytest.mark.parametrize("folder", ["fgvc_aircraft", "fgvc-aircraft-2013b/data"])
def test_aircraft(tmp_path: Path, folder: str) -> None:
    aircraft_files(tmp_path / folder)
    dataset = catalog.find("fgvc-aircraft", tmp_path)
    assert dataset.classnames == ("707-320", "BAE 146-200", "F-16A/B")
    assert dataset.train.paths == ("0056978.jpg", "1025794.jpg", "0000001.jpg"), (
        "ids keep their leading zeros"
    )
    assert dataset.test.labels == (2, 1)
    assert dataset.source.open("0056978.jpg").mode == "RGB"
    (tmp_path / folder / "images_variant_val.txt").write_text("0000002 Concorde\n")
    with pytest.raises(BenchError, match=r"images_variant_val\.txt: line 1: 'Concorde'"):
        catalog.find("fgvc-aircraft", tmp_path)
    (tmp_path / folder / "images_variant_val.txt").unlink()
    with pytest.raises(MissingData, match=r"images_variant_val\.txt"):
        catalog.find("fgvc-aircraft", tmp_path)


def imagenet_files(root: Path, train: int = 3) -> None:
    disk.touch(root / "val" / wnid / "ILSVRC2012_val_1.JPEG" for wnid in WNIDS)
    disk.touch(root / "train" / wnid / f"{wnid}_{i}.JPEG" for wnid in WNIDS for i in range(train))


def test_imagenet_without_a_published_split_cuts_its_own_and_says_so(tmp_path: Path) -> None:
    images = tmp_path / "imagenet" / "images"
    imagenet_files(images)
    disk.touch([images / "train" / WNIDS[0] / ".DS_Store", images / "val" / "README.txt"])
    dataset = catalog.find("imagenet", tmp_path)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (2000, 1000, 1000)
    assert dataset.own_split and "not comparable" in dataset.notes[0]
    assert dataset.test.labels == tuple(range(1000))
    assert dataset.test.paths[1] == f"val/{WNIDS[1]}/ILSVRC2012_val_1.JPEG"
    assert not set(dataset.train.paths) & set(dataset.val.paths)
    assert sorted(dataset.val.labels) == list(range(1000)), "the cut is per class"
    assert catalog.find("imagenet", tmp_path).digest == dataset.digest
    drawn = fewshot.draw(dataset, 2, 1)
    assert (len(drawn.train), len(drawn.val)) == (2000, 1000)

    index = tmp_path / "indices" / "imagenet" / "shot_1-seed_1.json"
    index.parent.mkdir(parents=True)
    content = {
        part: {
            "data": [
                {"impath": f"./data/imagenet/images/train/{w}/{w}_{i}.JPEG", "label": k, "classname": "x"}
                for k, w in enumerate(WNIDS)
            ],
            "indices": list(range(1000)),
        }
        for part, i in (("train", 1), ("val", 2))
    }
    index.write_text(json.dumps(content))
    drawn = fewshot.draw(catalog.find("imagenet", tmp_path), 1, 1)
    assert drawn.train.paths[7] == f"train/{WNIDS[7]}/{WNIDS[7]}_1.JPEG"
    assert drawn.val.labels == tuple(range(1000))


def test_imagenet_with_the_split_file(tmp_path: Path) -> None:
    names = list(class_list("imagenet-classnames.txt").items())
    content = {
        part: [[f"{folder}/{w}/{part}.JPEG", k, name] for k, (w, name) in enumerate(names)]
        for part, folder in (("train", "train"), ("val", "train"), ("test", "val"))
    }
    (tmp_path / "imagenet" / "images" / "val").mkdir(parents=True)
    file = tmp_path / "imagenet" / "split_ImageNet.json"
    file.write_text(json.dumps(content))
    dataset = catalog.find("imagenet", tmp_path)
    assert not dataset.own_split and not dataset.notes
    assert dataset.val.paths[0] == f"train/{WNIDS[0]}/val.JPEG"
    assert dataset.classnames[744] == dataset.classnames[657] == "missile"
    content["train"][3][2] = content["val"][3][2] = content["test"][3][2] = "some shark"
    file.write_text(json.dumps(content))
    with pytest.raises(BenchError, match="class names"):
        catalog.find("imagenet", tmp_path)


def test_imagenet_layout_errors(tmp_path: Path) -> None:
    with pytest.raises(MissingData) as missing:
        catalog.find("imagenet", tmp_path)
    assert str(tmp_path / "imagenet" / "images") in str(missing.value)
    disk.touch([tmp_path / "imagenet" / "val" / "ILSVRC2012_val_1.JPEG"])
    with pytest.raises(BenchError, match="lie flat"):
        catalog.find("imagenet", tmp_path)


def test_imagenet_zero_shot_needs_no_training_images(tmp_path: Path) -> None:
    disk.touch(tmp_path / "imagenet" / "val" / wnid / "1.JPEG" for wnid in WNIDS)
    dataset = catalog.find("imagenet", tmp_path)
    assert len(dataset.test) == 1000 and len(fewshot.draw(dataset, 0, 0).train) == 0
    with pytest.raises(MissingData, match="train"):
        fewshot.draw(dataset, 1, 1)


def test_v2_labels_are_the_numbers_of_the_folders(tmp_path: Path) -> None:
    root = tmp_path / "imagenetv2" / "imagenetv2-matched-frequency-format-val"
    disk.touch(root / str(k) / f"image_of_{k}.jpeg" for k in range(1000))
    dataset = catalog.find("imagenetv2", tmp_path)
    for path, label in zip(dataset.test.paths, dataset.test.labels, strict=True):
        assert path == f"{label}/image_of_{label}.jpeg"
    assert dataset.test.labels == tuple(range(1000)) and dataset.classes is None
    (root / "10" / "image_of_10.jpeg").unlink()
    with pytest.raises(BenchError, match="1 of 1000 class folders"):
        catalog.find("imagenetv2", tmp_path)


@pytest.mark.parametrize("folder", ["imagenet-sketch/sketch", "ImageNet-Sketch"])
def test_sketch(tmp_path: Path, folder: str) -> None:
    disk.touch(tmp_path / folder / wnid / "sketch_1.JPEG" for wnid in WNIDS)
    dataset = catalog.find("imagenet_sketch", tmp_path)
    assert dataset.test.labels == tuple(range(1000)) and len(dataset.train) == len(dataset.val) == 0
    with pytest.raises(BenchError, match="run imagenet"):
        fewshot.draw(dataset, 1, 1)


@pytest.mark.parametrize(
    ("name", "folder"), [("imagenet_a", "imagenet-adversarial/imagenet-a"), ("imagenet_r", "imagenet-r")]
)
def test_a_and_r_hold_the_published_subsets(tmp_path: Path, name: str, folder: str) -> None:
    wnids = catalog.spec(name).extra["wnids"]
    disk.touch(tmp_path / folder / wnid / "1.jpg" for wnid in wnids)
    disk.touch([tmp_path / folder / "README.txt"])
    dataset = catalog.find(name, tmp_path)
    assert dataset.classes is not None
    assert {"wnids": path_digest(wnids), "rows": path_digest(map(str, dataset.classes))} == SUBSETS[name]
    assert dataset.test.labels == tuple(range(200)), "labels count within the subset"
    source = list(class_list("imagenet-classnames.txt").values())
    assert dataset.classnames == tuple(source[row] for row in dataset.classes)


@pytest.mark.parametrize("name", SUBSETS)
def test_committed_digests_are_those_of_the_published_subsets(published_files: Path, name: str) -> None:
    real = json.loads((published_files / "imagenet/imagenet_a_r_subsets.json").read_text())[name]
    rows = map(str, real["indices"])
    assert {"wnids": path_digest(real["wnids"]), "rows": path_digest(rows)} == SUBSETS[name]


def test_a_and_r_subsets_are_ascending_and_overlap_as_published() -> None:
    a, r = (catalog.spec(name).extra["wnids"] for name in ("imagenet_a", "imagenet_r"))
    assert all(
        len(wnids) == 200 and wnids == sorted(set(wnids)) and set(wnids) <= set(WNIDS) for wnids in (a, r)
    )
    assert len(set(a) & set(r)) == 86


def test_idx_files(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    disk.idx_files(raw, [0, 1] * 9, [1, 0, 9])
    dataset = catalog.find("fashion-mnist", tmp_path)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (16, 2, 3)
    assert sorted(dataset.val.labels) == [0, 1]
    source = pickle.loads(pickle.dumps(dataset.source))
    picture = source.open("test/00002")
    assert (picture.mode, picture.size) == ("RGB", (4, 4)) and np.asarray(picture).max() == 2
    for path in ("test/00003", "train/-1", "other/00000", "train"):
        with pytest.raises(BenchError, match="no image"):
            source.open(path)


def test_idx_files_gzipped_have_the_same_digest(tmp_path: Path) -> None:
    disk.idx_files(tmp_path / "plain" / "FashionMNIST", [0, 1] * 9, [1, 0, 9])
    packed = tmp_path / "packed" / "FashionMNIST"
    packed.mkdir(parents=True)
    for file in (tmp_path / "plain" / "FashionMNIST").iterdir():
        (packed / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    assert len({catalog.find("fashion-mnist", tmp_path / name).digest for name in ("plain", "packed")}) == 1


def test_damaged_idx_files(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST"
    disk.idx_files(raw, [0, 1] * 9, [1, 0, 9])
    images = raw / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(BenchError, match="cut short"):
        catalog.find("fashion-mnist", tmp_path)
    images.write_bytes(b"GIF89a")
    with pytest.raises(BenchError, match="not an IDX file"):
        catalog.find("fashion-mnist", tmp_path)
