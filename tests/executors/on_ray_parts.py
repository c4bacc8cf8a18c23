"""Parts that tests of the Ray executor share: a grid, a method, local records, the folder of tasks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

FOUR = ("--methods", "zero-shot,tip-adapter-f,safe,safe-a")
GRID = (*FOUR, "--shots", "2,3", "--seeds", "1,2", "--set", "safe.steps=6", "--set", "safe.check_every=2")
PLAIN = """
import os
import signal
from pathlib import Path

from bench.interface import Method

HERE = Path(__file__).parent


class Plain(Method):
    name = "plain"
    title = "Plain"

    def prepare(self, task):
        return {"W": task.W_KC}

    def logits(self, params, consts, features, values):
        return features["pooled"] @ consts["W"].T
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the local executor's records of GRID lie: the first test that needs them makes them, the others
    find them.
    """
    return tmp_path_factory.mktemp("local")


@pytest.fixture(scope="module", autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where tasks put their folders."""
    folder = tmp_path_factory.mktemp("tasks")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tempfile, "tempdir", str(folder))
        patched.setenv("TMPDIR", str(folder))
        patched.setenv("RAY_TMPDIR", "/tmp")  # the paths of its sockets may not be long
        yield folder
