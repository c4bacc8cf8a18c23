"""What a user gets wrong is one line that names the mend, before any work and with exit code 2."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CELL = ("--methods", "zero-shot", "--datasets", "digits", "--prompts", "vanilla")


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
        (("--jobs", "0"), "--jobs"),
        (("--workers", "-1"), "--workers"),
        (("--backbone", "RN50"), "or name a file of them: --backbone RN50-quickgelu@FILE"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_options_of_a_run(
    options: tuple[str, ...], says: str, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    assert bench("run", *CELL, *options, "--results", tmp_path, "--dry-run") == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--results", "--cache"])
def test_a_place_that_is_no_folder(option: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("")
    places = {"--results": tmp_path / "results", "--cache": tmp_path / "cache", option: tmp_path / "file"}
    assert bench("run", *CELL, "--jobs", "1", *[word for pair in places.items() for word in pair]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"bench: {tmp_path / 'file'}") and option in last


def test_other_errors_of_the_system_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.cli import app, main

    def broken() -> None:
        raise FileNotFoundError(2, "No such file or directory", "ours")

    monkeypatch.setattr(app, "app", broken)
    with pytest.raises(FileNotFoundError):
        main()


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
    assert "replace it or take it away" in said and "`bench data verify` finds damaged images" in said
