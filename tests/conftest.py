"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference data beside the checkout (protocol/data, parity); a test that needs it skips elsewhere."""
    folder = ROOT.parent / "shared"
    if not (folder / "parity").is_dir():
        pytest.skip("needs the reference data folder ../shared beside the checkout")
    return folder
