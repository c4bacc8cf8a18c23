"""Tests of ``bench weights``, which lists the weights on this machine and downloads others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from open_clip import pretrained
from typer.testing import CliRunner

from bench.cli.weights import app
from bench.clip import backbone, download
from bench.errors import BenchError

run = CliRunner()


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("BENCH_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in for open_clip's download, laid out like the hub's cache: a link to a blob."""
    asked: list[Any] = []

    def fake(settings: dict[str, Any], cache_dir: str) -> str:
        asked.append(settings)
        blob, link = (
            Path(cache_dir, "blobs", "ab12"),
            Path(cache_dir, "snapshot", "open_clip_model.safetensors"),
        )
        for path in (blob, link):
            path.parent.mkdir(exist_ok=True)
        blob.write_bytes((2).to_bytes(8, "little") + b"{}")
        link.unlink(missing_ok=True)
        link.symlink_to(blob)
        return str(link)

    monkeypatch.setattr(pretrained, "download_pretrained", fake)
    return asked


def test_get_stores_a_plain_file_that_resolve_finds(home: Path, hub: list[Any]) -> None:
    result = run.invoke(app, ["get", "RN50-quickgelu"])
    assert result.exit_code == 0, result.output
    spec = backbone.resolve("RN50")
    assert (
        spec.file == home / "RN50" / "openai" / "open_clip_model.safetensors" and not spec.file.is_symlink()
    )
    assert spec.quick_gelu and spec.preprocess.resize_mode == "shortest"
    assert not list(home.rglob(".download-*"))
    asked = len(hub)
    assert run.invoke(app, ["get", "RN50"]).exit_code == 0 and len(hub) == asked, "nothing is fetched twice"


def test_status_lists_found_and_missing(hub: list[Any]) -> None:
    download.fetch("ViT-B-32/laion2b_s34b_b79k")
    rows = {row["name"]: row for row in json.loads(run.invoke(app, ["status", "--format", "json"]).output)}
    assert rows["pocket-rn"]["state"] == "found" and len(rows["pocket-rn"]["sha256"]) == 64
    assert rows["ViT-B-32/laion2b_s34b_b79k"]["state"] == "found"
    assert rows["RN50"]["state"] == "missing" and "bench weights get RN50" in rows["RN50"]["note"]
    text = run.invoke(app, ["status"]).output
    assert "bench weights get ViT-B-16" in text and "pocket-rn" in text


def test_a_failed_download_leaves_nothing_and_says_why(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(pretrained, "download_pretrained", fail)
    with pytest.raises(BenchError, match=r"no route to host.*RN50-quickgelu@FILE") as caught:
        download.fetch("RN50")
    assert "\n" not in str(caught.value) and not [p for p in home.rglob("*") if p.is_file()]


def test_unknown_tags_are_errors_with_the_nearest(hub: list[Any]) -> None:
    with pytest.raises(BenchError, match="did you mean 'openai'"):
        download.fetch("RN50/opnai")
    assert not hub
    assert "comes with the program" in run.invoke(app, ["get", "pocket-vit"]).output
