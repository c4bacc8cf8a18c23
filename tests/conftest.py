"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import process

# Read when torch's OpenMP starts: threads that wait in a loop starve whatever else runs on the machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """Every test begins with them, as a process does; what computes as ``bench run`` takes them for zero."""
    yield
    if process.flushes_denormal():
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference data beside the checkout (protocol/data, parity); tests that need it skip elsewhere."""
    folder = ROOT.parent / "shared"
    if not (folder / "parity").is_dir():
        pytest.skip("needs the reference data folder ../shared beside the checkout")
    return folder
