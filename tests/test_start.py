"""The script that measures the cost of a start runs the first cells of a run and waits for the device."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.benchmarks import start
from tests.run.conftest import images

__all__ = ["images"]


def test_every_part_of_a_start_is_there(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(start._SPAWNED, str(start.BEGAN - 2.0))
    monkeypatch.setattr(start, "SETTINGS", ("safe.steps=2", "safe.check_every=1"))
    began = time.perf_counter()
    parts = {part["part"]: part for part in start.parts("cpu", "pocket-rn", str(images))}
    spent = time.perf_counter() - began
    assert parts.pop("interpreter")["seconds"] == pytest.approx(2.0)
    recording = parts.pop("of the two cells, recording")["seconds"]
    names = ["imports of the command", "plan", "imports of torch", "imports of the engine"]
    names += ["imports of open_clip", "first kernel", "model", "first texts", "encoding"]
    assert list(parts) == [*names, "first cell", "second cell"]
    assert parts["encoding"]["images"] > 0
    seconds = {name: part["seconds"] for name, part in parts.items()}
    assert 0.9 * spent < sum(seconds.values()) <= spent, "no part of the work is left out"
    assert 0 < recording < seconds["first cell"] + seconds["second cell"]
