"""The tiny measurement of tests/run; plans read and write nothing of whoever runs the tests."""

from pathlib import Path

import pytest

from tests.run.conftest import bench, cache, images

__all__ = ["bench", "cache", "images"]


@pytest.fixture(autouse=True)
def apart(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where requests find `results` and the feature store unless they name others."""
    folder = tmp_path_factory.mktemp("apart")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BENCH_CACHE", str(folder / "features"))
    return folder
