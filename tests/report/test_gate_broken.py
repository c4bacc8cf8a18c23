"""A method that got worse is found by the gate, from a plugin's run to the exit code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.report.frame import load_results
from bench.report.gate import baseline as baselines
from bench.report.gate import cells
from bench.report.gate.baseline import Baseline
from tests.report.test_gate import bench

PLUGIN = """
import torch
from bench.interface import EVAL, POOLED, Method, Recipe, cosine_logits, unit


class Blend(Method):
    name = "blend"
    title = "Text and class means"
    settings = {"text": 1.0}

    def recipe(self, settings, facts):
        return Recipe(support={POOLED: (EVAL,)})

    def solve(self, task, consts, values):
        f_NC = unit(task.features(POOLED, EVAL))
        return {"means_KC": unit(torch.zeros_like(task.W_KC).index_add(0, task.labels_N, f_NC))}

    def logits(self, params, consts, features, values):
        f_BC = features[POOLED]
        text_BK = cosine_logits(f_BC, consts["W_KC"], TEXT_SCALE)
        return values["text"] * text_BK + cosine_logits(f_BC, params["means_KC"], MEAN_SCALE)
"""
RIGHT = {"TEXT_SCALE": "1.0", "MEAN_SCALE": 'consts["scale"]'}


def plugin(folder: Path, **scales: str) -> Path:
    folder.mkdir()
    text = PLUGIN
    for name, value in {**RIGHT, **scales}.items():
        text = text.replace(name, value)
    (folder / "blend.py").write_text(text, encoding="utf-8")
    return folder / "blend.py"


@pytest.mark.slow
def test_a_broken_method_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On real cells run again with a wrong sign, scale and an exception; the accuracy rule sees them too."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    good, file, results = plugin(tmp_path / "good"), tmp_path / "b.json", tmp_path / "results"
    grid = (
        "--datasets",
        "digits",
        "--methods",
        "blend",
        "--shots",
        16,
        "--seeds",
        "1,2",
        "--set",
        "blend.text=0.5",
    )
    assert bench("run", "--plugin", good, *grid, "--results", results) == 0
    assert bench("check", "--baseline", file, "--results", results, "--update") == 2, (
        "changed settings are not plain cells"
    )
    baselines.save(file, Baseline(tuple(cells.collect(load_results(results)))))
    again = ("check", "--baseline", file, "--rerun", "--plugin")
    assert bench(*again, good, "--keep", results) == 2, "a rerun into records would only read them"
    assert bench(*again, good, "--keep", tmp_path / "kept") == 0 and len(load_results(tmp_path / "kept")) == 2
    assert bench(*again, good, "--update") == 0
    assert baselines.load(file).kept[0].overrides == {"blend": {"text": 0.5}}
    capsys.readouterr()
    for name, scales in (
        ("sign", {"MEAN_SCALE": '-consts["scale"]'}),
        ("scale", {"TEXT_SCALE": 'consts["scale"] ** 2'}),
        ("crash", {"MEAN_SCALE": 'consts["no such"]'}),
    ):
        broken = plugin(tmp_path / name, **scales)
        assert bench(*again, broken, "--rule", "accuracy" if name != "sign" else "auto") == 1, name
        assert re.search(r"^FAIL +blend 16 shots", capsys.readouterr().out, re.M)
    assert bench("check", "--baseline", file, "--results", results) == 0, "a rerun leaves the records alone"
