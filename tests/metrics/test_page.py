"""docs/metrics.md says what the code does: its table of metrics, and its example."""

import re
from pathlib import Path

import pytest

from bench.metrics import METRICS

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_the_table_lists_every_metric() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| *(\S*) *\| (higher|lower) \| (.*) \|$", PAGE, re.M)
    said = {
        name: (unit, better == "lower", set(re.findall(r"`(\w+)`", needs)))
        for name, unit, better, needs in rows
    }
    assert list(said) == list(METRICS)
    for name, one in METRICS.items():
        assert said[name] == (one.unit, one.lower_is_better, set(one.needs)), name


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(compile(code, "docs/metrics.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "'ece':" in printed
    assert "Interval(" in printed
