"""A method that takes longer is found by ``bench check --speed``, from a plugin's run to the exit code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bench.files import read_json, write_json
from bench.report.gate import baseline as baselines
from tests.report.test_gate import bench

PLUGIN = """
import time
import torch
from bench.interface import EVAL, POOLED, Method, Recipe, cosine_logits, unit

fits = []

class Means(Method):
    name = "means"
    title = "Class means"

    def recipe(self, settings, facts):
        return Recipe(support={POOLED: (EVAL,)})

    def solve(self, task, consts, values):
        f_NC = unit(task.features(POOLED, EVAL))
        x = torch.ones(200, 200)
        for _ in range(BURN):
            x = (x @ x).softmax(1)
        time.sleep(SLEEP)
        fits.append(1)
        if len(fits) == FAILS:
            raise RuntimeError("worn out")
        return {"means_KC": unit(torch.zeros_like(task.W_KC).index_add(0, task.labels_N, f_NC))}

    def logits(self, params, consts, features, values):
        return cosine_logits(features[POOLED], params["means_KC"], consts["scale"])
"""


def plugin(folder: Path, burn: int = 10, sleep: float = 0.0, fails: int = 0) -> Path:
    """A plugin whose fits take longer, or of which the fit with the number ``fails`` fails."""
    folder.mkdir()
    text = PLUGIN.replace("BURN", str(burn)).replace("SLEEP", str(sleep)).replace("FAILS", str(fails))
    (folder / "means.py").write_text(text, encoding="utf-8")
    return folder / "means.py"


@pytest.mark.slow
def test_a_slower_method_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Busy or asleep, it fails. An unchanged one passes, as does one with times of another machine."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    same, file, results = plugin(tmp_path / "same"), tmp_path / "b.json", tmp_path / "results"
    grid = ("--datasets", "digits", "--methods", "means", "--shots", 4, "--seeds", 1)
    assert bench("run", "--plugin", same, *grid, "--results", results) == 0
    only = ("check", "--baseline", file, "--results", results)
    assert bench(*only, "--update", "--methods", "means", "--shots", 4) == 0
    assert "no times" in capsys.readouterr().out and baselines.load(file).kept[0].timing is None
    again = ("check", "--baseline", file, "--rerun", "--speed", "--repeats", 3, "--plugin")
    assert bench(*again, same, "--update") == 0
    assert "times of 1 cell" in capsys.readouterr().out
    timing = baselines.load(file).kept[0].timing
    assert timing is not None and len(timing.wall) == len(timing.cpu) == 3

    assert bench(*again, same) == 0
    said = capsys.readouterr().out
    assert re.search(r"^speed of means 4 shots \(.*\): .* times the baseline's processor time", said, re.M)
    for name, slow in (("busy", {"burn": 1500}), ("asleep", {"sleep": 1.0})):
        assert bench(*again, plugin(tmp_path / name, **slow)) == 1, name
        said = capsys.readouterr().out
        assert "means 4 shots" in said and "takes over 1.5 times as long" in said
        assert said.startswith("ok ") and said.rstrip().endswith("1 of 1 timed group got slower")
    assert bench(*again, plugin(tmp_path / "worn", fails=3)) == 0, "the cells themselves ran"
    assert "it failed when it was timed: RuntimeError: worn out" in capsys.readouterr().out
    before = file.read_bytes()
    assert bench(*again, plugin(tmp_path / "worn-2", fails=3), "--update") == 2
    assert "the baseline is not written: means on digits: it failed" in capsys.readouterr().err
    assert file.read_bytes() == before

    whole = read_json(file)
    whole["machines"][0]["device_name"] = "Another CPU"
    write_json(file, whole)
    assert bench(*again, plugin(tmp_path / "elsewhere", burn=1500), "--rule", "accuracy") == 0
    assert "speed was not compared: the baseline's times come from another" in capsys.readouterr().out
