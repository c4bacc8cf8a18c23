"""What a user gets wrong is one line that names the mend, before any work and with exit code 2."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

USUAL = {"--methods": "zero-shot", "--datasets": "digits", "--prompts": "vanilla"}
CELL = tuple(word for pair in USUAL.items() for word in pair)


def cell(*options: object) -> tuple[object, ...]:
    """One cell, with other options in place of its own: each is given once."""
    missing = (word for flag, value in USUAL.items() if flag not in options for word in (flag, value))
    return *missing, *options


def bench(*args: object) -> int:
    """The exit code of ``bench ...`` in this process."""
    from bench.cli import main

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["bench", *map(str, args)])
        main()
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--preset", "quik"), "unknown preset 'quik' (did you mean 'quick'?); one of: paper, quick"),
        (("--set", "safe.steps=-5"), "--set safe.steps=-5: not a whole number from 0 on"),
        (("--set", "tip-adapter.beta_step=50"), "(did you mean 'beta_steps'?)"),
        (("--set", "safe.beta="), "--set safe.beta=: no value after =; write one"),
        (("--suite", "nosuch"), "`bench list suites` shows all, and a path to a TOML file works too"),
        (("--jobs", "0"), "--jobs"),
        (("--keep-states", "x"), "--keep-states x: choose needed, all or none"),
        (("--device", "foo"), "--device foo: choose auto, cpu, cuda or cuda:N"),
        (("--executor", "slurm"), "--executor slurm: choose local or ray"),
        (("--ray-address", "auto"), "--ray-address auto needs --executor ray"),
        (("--executor", "ray", "--jobs", "2"), "--jobs 2 counts processes of this machine"),
        (("--time-budget", "nan"), "--time-budget nan: write minutes from 0 on"),
        (("--time-budget", "-1"), "--time-budget -1.0: write minutes from 0 on"),
        (("--seeds", "1-3"), "--seeds 1-3: write whole numbers with commas, no ranges, as in --seeds 1,2,3"),
        (("--shots", ","), "--shots ',' names nothing"),
        (
            ("--set", "safe.beta=1"),
            "--set safe.beta=1: safe is not in this run, which has zero-shot; add it to",
        ),
        (
            ("--methods", "safe-a", "--sweep", "safe.beta=0,1"),
            "--sweep safe.beta=0,1: safe is not in this run",
        ),
        (("--methods", "safe", "--set", "tip-adapter.alpha=1"), "which has safe; add it to --methods"),
        (("--workers", "-1"), "--workers"),
        (("--backbone", "RN50"), "or name a file of them: --backbone RN50-quickgelu@FILE"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_options_of_a_run(
    options: tuple[str, ...], says: str, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    assert bench("run", *cell(*options), "--results", tmp_path, "--dry-run") == 2
    assert says in capsys.readouterr().err


def test_what_is_refused_is_refused_before_the_plan(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("bench.plan.planner.make", lambda *_: pytest.fail("planned"))
    for wrong in (("--keep-states", "x"), ("--device", "foo"), ("--why",), ("--set", "safe.beta=1")):
        assert bench("run", *CELL, *wrong) == 2
    assert "--why explains a plan: add --dry-run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("methods", "prompts", "option"),
    [
        ("safe-a", "hand", "safe.steps=6"),  # what safe-a builds on
        ("zero-shot", "linear", "linear-probe-sgd-zs.steps=6"),  # what the prompts are made with
        ("SAFE_A,zero-shot", "hand", "Safe-A.lr=0.1"),
    ],
)
def test_what_a_run_fits_for_others_may_be_set(
    methods: str, prompts: str, option: str, tmp_path: Path, capsys: Any
) -> None:
    name, _, rest = option.partition(".")
    setting = rest.partition("=")[0]
    from bench.registry import builtin

    if setting not in builtin().get(name).settings:
        option = f"{name}.{next(iter(builtin().get(name).settings))}=1"
    cells = ("--methods", methods, "--prompts", prompts, "--datasets", "digits", "--shots", "1")
    assert bench("run", *cells, "--set", option, "--results", tmp_path, "--dry-run") == 0
    assert "cells to do" in capsys.readouterr().out


def test_a_plugin_that_the_run_does_not_use_is_refused(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from bench.interface import Method\n\n\nclass Mine(Method):\n    name = 'mine'\n    title = 'Mine'\n"
    )
    options = ("--plugin", file, "--results", tmp_path, "--dry-run")
    assert bench("run", *CELL, *options) == 2
    said = capsys.readouterr().err
    assert "the run has none of its methods (mine): name them, as in --methods zero-shot,mine" in said
    assert bench("run", *cell(*options, "--methods", "zero-shot,mine")) == 0


def test_targets_that_no_dataset_has_are_said(tmp_path: Path, capsys: Any) -> None:
    assert bench("run", *CELL, "--targets", "--results", tmp_path, "--dry-run") == 0
    assert "--targets: none of these datasets has shifted test sets" in capsys.readouterr().out


def test_a_method_file_that_is_not_there(tmp_path: Path, capsys: Any) -> None:
    assert bench("check-method", tmp_path / "nope.py") == 2
    assert f"bench: {tmp_path / 'nope.py'}: no such file; name a Python file" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--results", "--cache"])
def test_a_place_that_is_no_folder(option: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("")
    places = {"--results": tmp_path / "results", "--cache": tmp_path / "cache", option: tmp_path / "file"}
    assert bench("run", *CELL, "--jobs", "1", *[word for pair in places.items() for word in pair]) == 2
    said = capsys.readouterr()
    assert said.err == f"bench: {option} {tmp_path / 'file'}: is not a folder; choose another place\n"
    assert not said.out, "before the plan"


def test_listed_methods_are_those_asked_for(capsys: Any) -> None:
    assert bench("list", "methods", "--methods", "safe,gda") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["gda", "safe"]
    assert bench("list", "methods", "--methods", "saef") == 2
    assert "did you mean 'safe'" in capsys.readouterr().err


def test_a_draw_that_is_short_and_a_damaged_file_are_said(tmp_path: Path, capsys: Any) -> None:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(
                tmp_path / "pets" / name / f"{i}.png"
            )
    plan = (
        "run",
        "--methods",
        "tip-adapter",
        "--datasets",
        tmp_path / "pets",
        "--backbone",
        "pocket-rn",
        "--seeds",
        "1",
    )
    plan += ("--results", tmp_path / "results", "--cache", tmp_path / "cache", "--jobs", "1")
    assert bench(*plan, "--shots", "9", "--dry-run") == 0
    assert "2 of 2 classes have fewer than 9 training images and are taken whole" in capsys.readouterr().out
    for file in (tmp_path / "pets" / "cat").iterdir():
        file.write_bytes(file.read_bytes()[:60] + file.name.encode())  # still eight different ones
    assert bench(*plan, "--shots", "1") == 1
    said = capsys.readouterr().err
    assert "replace it or remove it" in said and "`bench data verify` finds damaged images" in said
