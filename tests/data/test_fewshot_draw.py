"""The few-shot draw equals the published one (datasets 4.1), index files round-trip (datasets 4.4)."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import catalog, fewshot
from bench.data.dataset import Dataset, Items, dataset_digest, path_digest
from bench.data.imagefile import FolderSource
from bench.errors import BenchError, MissingData
from bench.files import digest
from tests.fixtures import disk

PUBLISHED = json.loads((Path(__file__).parent / "published_draws.json").read_text())
SPLITS = {
    "caltech101": "Caltech101",
    "dtd": "DescribableTextures",
    "eurosat": "EuroSAT",
    "oxford_pets": "OxfordPets",
    "oxford_flowers": "OxfordFlowers",
    "stanford_cars": "StanfordCars",
    "ucf101": "UCF101",
}
# First 12 digits of the SHA-256 of the 16-shot, seed-1 path lists (datasets 4.1).
PREFIXES = {
    "caltech101": ("e60a836bd33c", "53555d3fce94"),
    "dtd": ("daf3b28e531f", "9ef81bd9b8f3"),
    "eurosat": ("ad260707da91", "f171ab42c4e4"),
    "oxford_flowers": ("ea366f552e24", "3a88b427e7b1"),
    "oxford_pets": ("711e62ca7ba4", "b75fc02100f3"),
    "stanford_cars": ("f7d56096c792", "edeb0808f53c"),
    "ucf101": ("b88bd6d2db74", "6499ec117e62"),
}


def dataset_of(train: Items, val: Items, name: str = "dtd", **more: Any) -> Dataset:
    classes = tuple(f"class {i}" for i in range(max(train.labels, default=0) + 1))
    return Dataset(
        name,
        catalog.spec(name),
        classes,
        train,
        val,
        Items(),
        dataset_digest(classes, train, val, Items()),
        FolderSource(Path("nowhere")),
        **more,
    )


def items_of(sizes: list[list[int]], part: str) -> Items:
    """Contiguous groups of the run-length encoded sizes."""
    counts = [size for size, times in sizes for _ in range(times)]
    labels = tuple(label for label, count in enumerate(counts) for _ in range(count))
    return Items((part,) * len(labels), labels)


def lines_digest(rows: Any) -> str:
    return hashlib.sha256("\n".join(map(str, rows)).encode()).hexdigest()


@pytest.mark.parametrize("name", PUBLISHED)
def test_draws_equal_the_published_indices(name: str) -> None:
    known = PUBLISHED[name]
    dataset = dataset_of(items_of(known["train_sizes"], "train"), items_of(known["val_sizes"], "val"))
    assert len(known["draws"]) == (12 if name == "imagenet" else 15)
    for setup in known["draws"]:
        shots, seed = (int(part.split("_")[1]) for part in setup.split("-"))
        drawn = fewshot.draw(dataset, shots, seed)
        assert lines_digest(drawn.train_indices) == known["draws"][setup]["train"]["indices"], setup
        assert lines_digest(drawn.val_indices) == known["draws"][setup]["val"]["indices"], setup


@pytest.mark.parametrize("name", PUBLISHED)
def test_committed_digests_are_those_of_the_published_files(published_files: Path, name: str) -> None:
    real = published_draws(published_files, name)
    assert real.keys() == PUBLISHED[name]["draws"].keys()
    for setup, known in PUBLISHED[name]["draws"].items():
        for part, digests in known.items():
            assert digests["indices"] == lines_digest(real[setup][part]["indices"])
            assert digests["paths"] == path_digest(real[setup][part]["paths"])


def published_draws(files: Path, name: str) -> dict[str, Any]:
    """By setup (``shot_1-seed_1``) and part: the published indices, paths and labels."""
    packed = (files / "fewshot" / f"{name}.json.gz").read_bytes()
    setups: dict[str, Any] = json.loads(gzip.decompress(packed))["setups"]
    return setups


def put_split(files: Path, root: Path, name: str) -> Dataset:
    described = catalog.spec(name)
    file = root / described.folders[0] / described.extra["file"]
    file.parent.mkdir(parents=True)
    packed = files / "splits" / f"split_zhou_{SPLITS[name]}.json.gz"
    file.write_bytes(gzip.decompress(packed.read_bytes()))
    return catalog.find(name, root, images=False)


@pytest.mark.parametrize("name", SPLITS)
def test_real_split_files(published_files: Path, tmp_path: Path, name: str) -> None:
    dataset = put_split(published_files, tmp_path, name)
    assert dataset.notes == (), (
        "the description's digests of split file and class names must be the published ones"
    )
    sizes = {"classes": len(dataset.classnames), "train": len(dataset.train), "val": len(dataset.val)}
    assert {**sizes, "test": len(dataset.test)} == dataset.spec.counts
    drawn = fewshot.draw(dataset, 16, 1)
    assert tuple(path_digest(items.paths)[:12] for items in (drawn.train, drawn.val)) == PREFIXES[name]
    assert fewshot.import_index(dataset, fewshot.export_index(dataset, drawn)).digest == drawn.digest
    if name not in PUBLISHED:
        return
    setups = published_draws(published_files, name)
    assert len(setups) == 15
    for setup, real in setups.items():
        shots, seed = (int(part.split("_")[1]) for part in setup.split("-"))
        drawn = fewshot.draw(dataset, shots, seed)
        for part, items, indices in (
            ("train", drawn.train, drawn.train_indices),
            ("val", drawn.val, drawn.val_indices),
        ):
            assert list(items.paths) == real[part]["paths"]
            assert list(items.labels) == real[part]["labels"]
            assert list(indices) == real[part]["indices"]
            assert path_digest(items.paths) == PUBLISHED[name]["draws"][setup][part]["paths"]


def test_published_index_file_is_read(published_files: Path, tmp_path: Path) -> None:
    dataset = put_split(published_files, tmp_path, "dtd")
    file = published_files / "fewshot/SAMPLE_dtd_shot_1-seed_1.json"
    assert fewshot.read_index(dataset, file).digest == fewshot.draw(dataset, 1, 1).digest
    exported = fewshot.export_index(dataset, fewshot.draw(dataset, 1, 1))
    real = json.loads(file.read_text())
    for part in ("train", "val"):
        assert exported[part]["indices"] == real[part]["indices"]
        assert [f"./data/dtd/{row['impath']}" for row in exported[part]["data"]] == [
            row["impath"] for row in real[part]["data"]
        ]


@st.composite
def labelled(draw: st.DrawFn) -> Items:
    labels = draw(st.lists(st.integers(0, 5), min_size=1, max_size=80))
    return Items(tuple(f"{i}.jpg" for i in range(len(labels))), tuple(labels))


@settings(deadline=None)
@given(train=labelled(), val=labelled(), shots=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_draw_properties(train: Items, val: Items, shots: int, seed: int) -> None:
    before = random.getstate()
    drawn = fewshot.draw(dataset_of(train, val), shots, seed)
    assert random.getstate() == before, "the global generator is not touched"
    assert drawn == fewshot.draw(dataset_of(train, val), shots, seed)
    generator = random.Random(seed)
    for source, items, indices, k in (
        (train, drawn.train, drawn.train_indices, shots),
        (val, drawn.val, drawn.val_indices, min(shots, 4)),
    ):
        assert items == source.take(indices)
        assert len(set(indices)) == len(indices)
        sizes = Counter(source.labels)
        assert Counter(items.labels) == {label: min(k, size) for label, size in sizes.items()}
        assert list(dict.fromkeys(items.labels)) == list(dict.fromkeys(source.labels)), (
            "classes by first appearance"
        )
        wanted: list[str] = []
        for label in dict.fromkeys(source.labels):
            rows = [p for p, y in zip(source.paths, source.labels, strict=True) if y == label]
            wanted += generator.sample(rows, k) if len(rows) >= k else rows
        assert list(items.paths) == wanted
    short = sum(size < shots for size in Counter(train.labels).values())
    assert bool(short) == ("taken whole" in drawn.note)


def test_shots_zero_is_empty_and_negative_is_refused() -> None:
    dataset = dataset_of(Items(("a",), (0,)), Items(("b",), (0,)))
    assert len(fewshot.draw(dataset, 0, 0).train) == len(fewshot.draw(dataset, 0, 0).val) == 0
    with pytest.raises(BenchError, match="shots"):
        fewshot.draw(dataset, -1, 1)


def test_no_training_images() -> None:
    with pytest.raises(MissingData, match="no training images"):
        fewshot.draw(dataset_of(Items(), Items()), 1, 1)
    with pytest.raises(BenchError, match="run imagenet"):
        fewshot.draw(dataset_of(Items(), Items(), "imagenet_a"), 1, 1)


def test_index_files_take_the_place_of_the_draw_and_are_checked(tmp_path: Path) -> None:
    disk.split_file(tmp_path / "dtd" / "split_zhou_DescribableTextures.json", ["a", "b", "c"])
    dataset = catalog.find("dtd", tmp_path, images=False)
    own = fewshot.draw(dataset, 2, 7)
    index = tmp_path / "indices" / "dtd" / "shot_2-seed_1.json"
    index.parent.mkdir(parents=True)
    index.write_text(json.dumps(fewshot.export_index(dataset, own)))
    with_index = catalog.find("dtd", tmp_path, images=False)
    assert fewshot.draw(with_index, 2, 1).digest == own.digest != fewshot.draw(dataset, 2, 1).digest
    assert "index file" in fewshot.draw(with_index, 2, 1).note
    assert fewshot.draw(with_index, 2, 2).digest == fewshot.draw(dataset, 2, 2).digest

    content = json.loads(index.read_text())
    content["train"]["indices"][0] += 1
    with pytest.raises(BenchError, match="belongs to another split"):
        fewshot.import_index(dataset, content)
    for damaged in ([], {"train": {}}, {"train": {"data": [{}], "indices": [0]}}):
        with pytest.raises(BenchError, match="not a Cross-Modal index file"):
            fewshot.import_index(dataset, damaged)  # type: ignore[arg-type]
    content = json.loads(index.read_text())
    content["val"] = content["train"]
    with pytest.raises(BenchError):
        fewshot.import_index(dataset, content)


def test_index_files_of_another_list_are_matched_by_path() -> None:
    train, val = Items(("train/a/1", "train/a/2"), (0, 0)), Items(("train/a/3",), (0,))
    dataset = dataset_of(train, val, own_split=True)
    row = {"impath": "./data/imagenet/images/train/a/3", "label": 0, "classname": "x"}
    other = {"impath": "./data/imagenet/images/train/a/1", "label": 0, "classname": "x"}
    content = {"train": {"data": [row], "indices": [900]}, "val": {"data": [other], "indices": [7]}}
    drawn = fewshot.import_index(dataset, content)
    assert (drawn.train.paths, drawn.train_indices, drawn.val.paths) == (
        ("train/a/3",),
        (900,),
        ("train/a/1",),
    )
    with pytest.raises(BenchError, match="not among the training images"):
        fewshot.import_index(dataset, {**content, "val": {"data": [{**other, "label": 1}], "indices": [7]}})


def test_draw_digest_is_that_of_the_two_path_lists() -> None:
    dataset = dataset_of(Items(("x", "y"), (0, 1)), Items(("z", "w"), (0, 1)))
    assert path_digest(["x", "y"]) == hashlib.sha256(b"x\ny").hexdigest()
    expected = digest({"train": path_digest(["x", "y"]), "val": path_digest(["z", "w"])})
    assert fewshot.draw(dataset, 1, 1).digest == expected
