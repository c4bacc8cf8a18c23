"""Helpers for the tests of hostile weights files."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.clip import backbone
from bench.errors import BenchError


def refused(name: str, says: str = ".", allow: bool = False) -> str:
    """What a name of weights is refused with, from resolving to the built model: one line with the file."""
    with pytest.raises(BenchError, match=says) as caught:
        backbone.load(backbone.resolve(name, allow_torchscript=allow))
    line = str(caught.value)
    assert "\n" not in line and Path(name.partition("@")[2]).name in line, line
    return line
