"""The parity files are all there, all described, and hold plain finite numbers and text."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.fixtures.references import PARITY, parity

DESCRIBED = re.findall(r"^\| `(\w+)\.npz` \|", (PARITY / "README.md").read_text(encoding="utf-8"), re.M)


def test_the_readme_lists_the_files() -> None:
    assert sorted(DESCRIBED) == sorted(file.stem for file in PARITY.glob("*.npz"))


@pytest.mark.parametrize("name", DESCRIBED)
def test_file_opens_without_pickles(name: str) -> None:
    arrays = parity(name)
    assert arrays
    assert {array.dtype.kind for array in arrays.values()} <= set("fiubU")
    assert all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f")
