"""The folder of a classifier: what is written reads back; damage, other programs and places are refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

import bench
from bench.classifier import file, model, parts
from bench.classifier.file import JSON, TENSORS, Estimate
from bench.errors import BenchError
from bench.registry import Registry, builtin
from tests.classifier.conftest import World

Kept = Callable[[str], Path]


@pytest.fixture
def own(kept: Kept, tmp_path: Path) -> Path:
    """A classifier that a test may spoil."""
    return Path(shutil.copytree(kept("tip-adapter-f"), tmp_path / "own.clf"))


def changed(folder: Path, seal: bool = True, **fields: Any) -> None:
    """Change fields of ``about`` in a classifier's JSON; ``seal``: with the checksum that fits."""
    told = json.loads((folder / JSON).read_bytes())
    told["about"] |= fields
    (folder / JSON).write_text(json.dumps(told))
    if seal:
        typed = msgspec.json.decode((folder / JSON).read_bytes(), type=file._File)
        told["checksum"] = file._checksum(typed)
        (folder / JSON).write_text(json.dumps(told))


def test_what_is_written_reads_back(kept: Kept, tmp_path: Path) -> None:
    found = file.read(kept("tip-adapter-f"))
    about = msgspec.structs.replace(
        found.about,
        estimate=Estimate(accuracy=0.8, low=0.7, high=0.9, images=40),
        thresholds={"0.05": 0.75, "0.01": None},
    )
    file.save(file.Classifier(about, found.params, found.tensors), tmp_path / "new.clf")
    again = file.read(tmp_path / "new.clf")
    assert again.about == about and file.told(tmp_path / "new.clf") == about
    for mine, theirs in ((found.params, again.params), (found.tensors, again.tensors)):
        assert mine.keys() == theirs.keys()
        assert all(
            torch.equal(mine[name], theirs[name]) and mine[name].dtype == theirs[name].dtype for name in mine
        )
    assert sorted(os.listdir(tmp_path / "new.clf")) == [JSON, TENSORS]


def test_it_holds_no_path_of_this_machine(world: World, kept: Kept) -> None:
    for name in (JSON, TENSORS):
        assert str(world.root).encode() not in (kept("tip-adapter-f") / name).read_bytes()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: changed(f, seal=False, temperature=3.0), "not as it was written"),
        (
            lambda f: changed(f, seal=False, classnames=["banana", "apple", "broccoli"]),
            "not as it was written",
        ),
        (lambda f: (f / JSON).write_text("{"), "not readable"),
        (lambda f: (f / JSON).write_bytes((f / JSON).read_bytes()[:200]), "not readable"),
        (lambda f: changed(f, seal=False, surprise=1), "unknown field `surprise`"),
        (
            lambda f: (f / JSON).write_text((f / JSON).read_text().replace('"schema": 1', '"schema": 2')),
            "newer",
        ),
        (
            lambda f: (f / JSON).write_text((f / JSON).read_text().replace('"schema": 1', '"schema": 0')),
            "again",
        ),
        (lambda f: (f / TENSORS).write_bytes((f / TENSORS).read_bytes()[:-4]), "not the tensors"),
        (lambda f: (f / TENSORS).write_bytes((f / TENSORS).read_bytes()[:-1] + b"\1"), "not the tensors"),
        (lambda f: (f / TENSORS).unlink(), "classifier.safetensors is missing"),
        (lambda f: (f / JSON).unlink(), "classifier.json is missing"),
        (shutil.rmtree, "no such classifier"),
    ],
)
def test_damage_is_refused_in_one_line(own: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(own)
    with pytest.raises(BenchError, match=message) as error:
        bench.load(own)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": "0" * 64}, r"digest is 0{64}, and that of pocket-rn here is [0-9a-f]{64}"),
        ({"backbone": "pocket-vit"}, "other weights of pocket-vit"),
        ({"backbone": "RN50@mine.pt"}, r"--backbone RN50@FILE"),
        ({"method": "no-such-method"}, "needs the method no-such-method"),
        ({"version": 99}, "needs version 99 of tip-adapter-f, and here is version"),
        ({"source": "ab" * 32}, "another source of tip-adapter-f"),
        ({"opening": {"rule": "own9-ffffff", "background": [255, 255, 255]}}, "by the rule own9-ffffff"),
        ({"constants": ["map", {"W_KC": ["tensor", "77"]}]}, "do not fit this program"),
        ({"constants": ["function", "os", "system"]}, "may not be named|do not fit"),
        ({"constants": ["object", "bench.files", "Stamp", {}]}, "may not be named|do not fit"),
    ],
)
def test_what_this_machine_lacks_is_named(own: Path, fields: dict[str, Any], message: str) -> None:
    changed(own, **fields)
    assert file.read(own).about, "showing it needs none of this"
    with pytest.raises(BenchError, match=message) as error:
        bench.load(own)
    assert "\n" not in str(error.value)


def test_other_preprocessing_is_refused(own: Path) -> None:
    told = json.loads((own / JSON).read_bytes())
    changed(own, preprocessing={**told["about"]["preprocessing"], "name": "v1-squash64-bicubic-0"})
    with pytest.raises(BenchError, match="other preprocessing"):
        bench.load(own)


def test_a_plugins_source_must_be_the_same(own: Path, kept: Kept) -> None:
    about, registry = file.told(own), Registry()
    registry.methods = dict(builtin().methods)
    registry.digests = {**builtin().digests, "tip-adapter-f": "cd" * 32}
    with pytest.raises(BenchError, match="another source"):
        model.method_of(about, registry)
    assert model.method_of(msgspec.structs.replace(about, source="cd" * 32), registry).name == "tip-adapter-f"


def test_only_a_classifier_of_the_same_data_is_replaced(own: Path, tmp_path: Path) -> None:
    found = file.read(own)
    file.save(found, own)
    other = msgspec.structs.replace(
        found.about, made=msgspec.structs.replace(found.about.made, dataset="birds", dataset_digest="other")
    )
    with pytest.raises(BenchError, match=r"holds a classifier of other data \(shapes\).*--force"):
        file.save(file.Classifier(other, found.params, found.tensors), own)
    file.save(file.Classifier(other, found.params, found.tensors), own, force=True)
    assert file.told(own) == other
    (tmp_path / "notes").mkdir()
    file.save(found, tmp_path / "notes")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    with pytest.raises(BenchError, match="holds other files and no classifier"):
        file.save(found, tmp_path / "mine")
    with pytest.raises(BenchError, match="is no folder"):
        file.save(found, tmp_path / "mine" / "diary.txt", force=True)


def test_a_value_that_json_cannot_hold_is_refused(own: Path, tmp_path: Path) -> None:
    found = file.read(own)
    for value in (float("nan"), float("inf"), object()):
        about = msgspec.structs.replace(found.about, values={"alpha": value})
        with pytest.raises(BenchError, match="cannot be saved"):
            file.save(file.Classifier(about, found.params, found.tensors), tmp_path / "x.clf")
        assert not (tmp_path / "x.clf").exists()


def test_parts_of_the_backbone_are_references_and_the_rest_is_stored(kept: Kept) -> None:
    loaded = bench.load(kept("tip-adapter-f"))
    tower, method = loaded.tower, loaded.method
    head, weight = tower.head, tower.model.visual.conv1.weight
    consts = {
        "head": head,
        "tower": tower.text,
        "visual": tower.model.visual,
        "params": {**head.params, "own": torch.arange(3)},
        "weight": weight.detach(),
        "half": torch.ones(2, 3, dtype=torch.float16).T,
        "rest": (1, 2.5, None, "x", [True], frozenset({"a", "b"}), float("inf")),
    }
    tree, tensors = parts.packed(consts, tower, method)
    assert sorted(tuple(x.shape) for x in tensors.values()) == [(3,), (3, 2)], "the others lie in the weights"
    back = parts.unpacked(json.loads(json.dumps(tree)), tensors, tower, method)
    assert back["head"] is head and back["visual"] is tower.model.visual and back["tower"] is tower.text
    assert back["params"].keys() == consts["params"].keys() and back["rest"] == consts["rest"]
    assert all(torch.equal(x, consts["params"][name]) for name, x in back["params"].items())
    assert torch.equal(back["weight"], weight) and torch.equal(back["half"], consts["half"])


@pytest.mark.parametrize(
    "odd", [object(), torch.nn.Linear(2, 2), lambda x: x, {1: 2}, torch.ones(2).to_sparse()]
)
def test_constants_that_no_file_can_hold_are_refused(kept: Kept, odd: object) -> None:
    loaded = bench.load(kept("tip-adapter-f"))
    with pytest.raises(
        parts.Unstorable, match=r"tip-adapter-f cannot be saved as a classifier: its constants\.odd"
    ):
        parts.packed({"odd": odd}, loaded.tower, loaded.method)
