"""A verb checks the places that it writes to before any work, and the check leaves nothing there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.report import compact, frame
from tests.test_user_errors import bench

CELL = ("--methods", "zero-shot", "--datasets", "digits", "--prompts", "vanilla")


@pytest.mark.parametrize(
    ("words", "flag", "file"),
    [
        (("report",), "--out", "r.html"),
        (("table",), "--out", "t.md"),
        (("table", "2", "--format", "csv"), "--out", "t"),
        (("compare", "safe", "coop"), "--out", "c.md"),
        (("compare", "safe", "coop"), "--images", ""),
        (("pack",), "--out", ""),
        (("plot",), "--out", "p.png"),
        (("explain", "maps", "digits"), "--out", "m.png"),
        (("explain", "share"), "--out", ""),
        (("explain", "maps", "digits"), "--results", ""),
        (("check", "--update"), "--baseline", "b.json"),
        (("check", "--rerun"), "--keep", ""),
        (("run", *CELL), "--results", ""),
        (("run", *CELL, "--dry-run"), "--results", ""),
        (("run", *CELL), "--cache", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_place_that_cannot_be_is_refused_first(
    words: tuple[str, ...], flag: str, file: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    for module in (frame, compact):  # `compact` has the name from its import, which must come before this
        monkeypatch.setattr(module, "load_results", lambda *_: pytest.fail("records were read"))
    monkeypatch.setattr("bench.records.store.every", lambda *_: pytest.fail("records were read"))
    monkeypatch.setattr("bench.plan.planner.make", lambda *_: pytest.fail("planned"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    place = tmp_path / "taken" / "below" / file
    assert bench(*words, flag, place) == 2
    said = capsys.readouterr().err
    assert said == f"bench: {flag} {place}: {tmp_path / 'taken'} is not a folder; choose another place\n"
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can write")
def test_a_folder_in_which_nobody_can_write(capsys: Any) -> None:
    assert bench("report", "--out", "/proc/none/r.html") == 2
    assert "--out /proc/none/r.html: cannot write in /proc" in capsys.readouterr().err
    # A dry run looks at the places without writing there; a run writes.
    assert bench("run", *CELL, "--dry-run", "--results", "/proc/none") == 2
    assert bench("run", *CELL, "--results", "/proc/self") == 2
    assert "--results /proc/self: cannot write in /proc/self" in capsys.readouterr().err
    assert bench("run", *CELL, "--dry-run", "--results", "/proc/self", "--cache", "/proc/self") == 0


def test_what_is_no_file_is_not_replaced(capsys: Any) -> None:
    assert bench("table", "--format", "csv", "--out", "/dev/null") == 2
    assert "--out /dev/null: is no file that could be replaced" in capsys.readouterr().err


def test_a_dry_run_leaves_nothing(tmp_path: Path, capsys: Any) -> None:
    places = ("--results", tmp_path / "a" / "results", "--cache", tmp_path / "b" / "cache")
    assert bench("run", *CELL, "--dry-run", *places) == 0
    assert list(tmp_path.iterdir()) == []
