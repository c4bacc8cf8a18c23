"""`bench cache` lists what is there, and its `clear` deletes what is named after it has asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from feature_fakes import TinyTower, dataset
from typer.testing import CliRunner

from bench.cli.cache import app
from bench.errors import BenchError
from bench.features.encode import Wanted, encode
from bench.features.store import FeatureStore

run = CliRunner().invoke


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "store"))
    encode(
        TinyTower(),
        dataset(tmp_path),
        [Wanted(["a", "b", "c"], {"eval": ["dense", "pooled"]})],
        FeatureStore(),
    )
    return tmp_path / "store"


def test_list_prints_each_set_with_its_images(root: Path) -> None:
    lines = run(app, ["list"]).output.splitlines()
    assert len(lines) == 3 and all("3 images" in line for line in lines[:2])
    assert "_dense_eval_" in lines[0] and "_pooled_eval_" in lines[1] and str(root) in lines[2]


def test_list_as_json(root: Path) -> None:
    sets = json.loads(run(app, ["list", "--format", "json"]).output)
    assert [(s["key"]["tap"], s["images"]) for s in sets] == [("dense", 3), ("pooled", 3)]
    assert all(s["name"] in {f.name for f in root.iterdir()} and s["bytes"] > 0 for s in sets)


def test_list_of_another_folder_and_of_none(root: Path, tmp_path: Path) -> None:
    assert "0.0 MB  in" in run(app, ["list", "--cache", str(tmp_path / "nothing")]).output


def test_verify_deletes_what_is_damaged(root: Path) -> None:
    file = next(root.glob("*_dense_*/*.npy"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    output = run(app, ["list", "--verify"]).output
    assert "damaged" in output and "0 images" in output and "3 images" in output


def test_clear_asks_first_and_obeys_the_pattern(root: Path) -> None:
    no = run(app, ["clear"], input="n\n")
    assert no.exit_code == 0 and "nothing was deleted" in no.output
    nobody = run(app, ["clear"], input="")
    assert isinstance(nobody.exception, BenchError) and "--yes" in str(nobody.exception)
    assert len(FeatureStore(root).feature_sets()) == 2
    assert "freed" in run(app, ["clear", "*_dense_*", "--yes"]).output
    assert [entry.key.tap for entry in FeatureStore(root).feature_sets()] == ["pooled"]
    assert "nothing" in run(app, ["clear", "*_dense_*"]).output
    assert run(app, ["clear"], input="y\n").exit_code == 0
    assert FeatureStore(root).feature_sets() == []


def test_an_unknown_format_is_an_error(root: Path) -> None:
    error = run(app, ["list", "--format", "xml"]).exception
    assert isinstance(error, BenchError) and "'text' or 'json'" in str(error)
