"""Shifted test sets of a person's own: their classes are those of the source by name, never by position."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from bench.cli.app import app
from bench.data import catalog
from bench.data.targets import matched
from bench.errors import BenchError


def folders(root: Path, *names: str) -> Path:
    """Class folders of six noisy images of one colour a class."""
    rng = np.random.default_rng(len(root.name))
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(6):
            colour = [40 * len(name), 200, 255 - 40 * len(name)]
            pixels = rng.normal(colour, 20, (40, 40, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_classes_are_found_by_name(tmp_path: Path) -> None:
    source = catalog.find(str(folders(tmp_path / "source", "cat", "horse", "ox")), None)
    other = catalog.find(str(folders(tmp_path / "other", "horse", "ox")), None)
    assert matched(source, source).classes is None
    assert matched(other, source).classes == (1, 2)
    assert matched(other, source).digest != other.digest, "scored by position it had this one"
    assert matched(matched(other, source), source).classes == (1, 2)
    with pytest.raises(BenchError, match="source: other has no class cat"):
        matched(source, other)


def test_a_target_with_fewer_classes_is_scored_on_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its class 0 is row 1 of the classifier; by position, horses would count as cats."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    folders(tmp_path / "source", "cat", "horse", "ox")
    folders(tmp_path / "shifted", "horse", "ox")
    Path("shifted.toml").write_text('name = "shifted"\nfolder = "shifted"\nsource = "source"\n')
    Path("source.toml").write_text('name = "source"\nfolder = "source"\ntargets = ["shifted.toml"]\n')
    words = ["run", "--datasets", "source.toml", "--targets", "--backbone", "pocket-rn"]
    words += ["--methods", "tip-adapter-f", "--shots", "2", "--seeds", "1", "--device", "cpu"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (record,) = (
        json.loads(file.read_text())
        for file in Path("results").rglob("*-*.json")
        if '"target": "shifted"' in file.read_text()
    )
    assert record["top1"] == 1.0, "the colours tell the classes"
    Path("shifted.toml").write_text(
        'name = "shifted"\nfolder = "shifted"\nsource = "source"\n[classnames]\nrename = {horse = "pony"}\n'
    )
    shutil.rmtree("results")
    blocked = CliRunner().invoke(app, words)
    assert blocked.exit_code == 0 and "source has no class pony" in blocked.output, blocked.output
    recorded = {json.loads(file.read_text()).get("target") for file in Path("results/runs").rglob("*-*.json")}
    assert recorded == {"source"}, "the shifted set alone is left out"


def test_classes_that_share_a_name_are_not_matched(tmp_path: Path) -> None:
    """By name alone, both cranes of the target would be scored on the row of the second one."""
    source = catalog.find(str(folders(tmp_path / "source", "a", "b", "cat")), None)
    target = catalog.find(str(folders(tmp_path / "target", "a", "b", "cat")), None)
    source = replace(source, classnames=("crane", "crane", "cat"))
    same = replace(target, classnames=source.classnames)
    assert matched(same, source) is same, "the same list needs no matching"
    for names in (("crane", "cat", "crane"), ("crane", "cat"), ("cat", "cat")):
        with pytest.raises(BenchError, match=r"several classes of (source|target) are called (crane|cat),"):
            matched(replace(target, classnames=names), source)
    assert matched(replace(target, classnames=("cat",)), source).classes == (2,)
