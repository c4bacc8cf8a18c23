"""``bench.measure`` follows ``bench run``: same records, its rows alone, errors instead of exits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import bench
from bench import process
from bench.cli.app import app
from bench.errors import BenchError

SMALL = {"methods": "zero-shot", "datasets": "digits", "device": "cpu"}


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Keywords of one quick cell, with folders of its own."""
    monkeypatch.chdir(tmp_path)
    return {**SMALL, "results": tmp_path / "results", "cache": tmp_path / "cache", "prompts": ["hand"]}


def test_it_measures_what_the_command_measures(cell: dict[str, Any], tmp_path: Path) -> None:
    words = ["--methods", "zero-shot", "--datasets", "digits", "--device", "cpu", "--prompts", "hand,vanilla"]
    words += ["--cache", str(tmp_path / "cache"), "--results", str(tmp_path / "results")]
    assert CliRunner().invoke(app, ["run", *words]).exit_code == 0
    theirs = bench.load_results(tmp_path / "results")
    assert len(theirs) == 2
    (tmp_path / "results" / "runs").rename(tmp_path / "kept")
    before = process.held()
    ours = bench.measure(**cell)
    assert process.put_back(before) == []
    again = bench.measure(**cell, jobs=1, join=False)
    assert len(ours) == 1 and ours.attrs["blocked"] == []
    row, same = ours.iloc[0], theirs[theirs["prompts"] == "hand"].iloc[0]
    assert (row["fit"], row["key"], row["accuracy"]) == (same["fit"], same["key"], same["accuracy"])
    assert again["written"].tolist() == ours["written"].tolist(), "what is recorded is not run again"


def test_what_cannot_run_is_said(cell: dict[str, Any]) -> None:
    with pytest.raises(BenchError, match="nothing can run; clip-lora on digits: "):
        bench.measure(**{**cell, "methods": "clip-lora", "shots": 1, "seeds": 1})
    some = bench.measure(**{**cell, "methods": ["clip-lora", "zero-shot"], "shots": 1, "seeds": 1})
    assert some["method"].tolist() == ["zero-shot"]
    assert [line.partition(":")[0] for line in some.attrs["blocked"]] == ["clip-lora on digits"]


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"shotz": 1}, "does not know 'shotz' .did you mean 'shots'"),
        ({"dry_run": True}, "use the command"),
        ({"time_budget": 1}, "use the command"),
        ({"jobs": 0}, "^jobs=0: write a number from 1 on$"),
        ({"jobs": "two"}, "^jobs='two': write a whole number$"),
        ({"shots": "one"}, r"^shots='one': write a whole number or a list, as in shots=\[1, 16\]$"),
        ({"seeds": [1, "two"]}, "^seeds="),
        ({"shots": 1.5}, "^shots=1.5: write a whole number"),
        ({"set": {"tip-adapter.beta_steps": None}}, "'tip-adapter.beta_steps' is None: leave it out"),
        ({"join": "yes"}, "True or False"),
        ({"methods": []}, "names nothing"),
        ({"methods": "zero-shut"}, "zero-shot"),
        ({"set": {"zero-shot.lr": 1}}, "no setting 'lr'"),
    ],
)
def test_wrong_keywords_are_refused(
    cell: dict[str, Any], tmp_path: Path, keywords: dict[str, object], says: str
) -> None:
    with pytest.raises(BenchError, match=says):
        bench.measure(**{**cell, **keywords})
    assert not (tmp_path / "results").exists()


def test_keywords_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchError, match="keywords only, as in measure"):
        bench.measure("zero-shot", "digits")  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_workers_do_not_run_the_script_that_measures(cell: dict[str, Any], tmp_path: Path) -> None:
    """A script without ``if __name__ == "__main__"``, in which every worker would begin anew."""
    code = "import bench\nprint('begun')\n"
    code += f"frame = bench.measure(**{SMALL}, jobs=2, cache={str(cell['cache'])!r})\n"
    code += "print(len(frame), 'rows')\n"
    (tmp_path / "script.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("begun") == 1
    assert done.stdout.splitlines()[-1] == "2 rows"
