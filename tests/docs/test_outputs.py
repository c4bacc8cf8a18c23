"""Output of a page is made anew without what the page leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import outputs
from tests.test_readme import Command


@pytest.mark.parametrize(
    ("shown", "printed", "becomes"),
    [
        (["a"], ["b", "c"], ["b", "c"]),
        (["a", "..."], ["b", "c", "d"], ["b", "..."]),
        (["...", "z"], ["b", "c", "d"], ["...", "d"]),
        (["a", "...", "y", "z"], ["b", "c", "d", "e"], ["b", "...", "d", "e"]),
    ],
)
def test_left_out_lines_stay_left_out(shown: list[str], printed: list[str], becomes: list[str]) -> None:
    assert outputs.shortened(shown, printed) == becomes


def test_only_output_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def printed(command: Command, folder: Path, environment: dict[str, str]) -> list[str]:
        assert (folder / "pets").is_dir() and "BENCH_CACHE" in environment
        return [f"{command.words[1]} now"] if command.shown else ["never shown"]

    monkeypatch.setattr(outputs, "anew", printed)
    page = "```console\n$ bench run\nold\n$ bench table\n$ bench plot\nold\n```\nold\n"
    page += "<!-- not run: slow -->\n```console\n$ bench check\nold\n```\n"
    new = page.replace("run\nold", "run\nrun now").replace("plot\nold", "plot\nplot now")
    assert outputs.rewritten(page) == new
