"""Benchmarks are skipped unless they are asked for: their seconds mean something on a quiet machine only."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = config.getoption("benchmark_only", False) or "benchmark" in (config.getoption("markexpr") or "")
    for item in items:
        if HERE in item.path.parents and not asked:
            item.add_marker(pytest.mark.skip(reason="benchmark: run with --benchmark-only"))
