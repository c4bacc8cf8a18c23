"""Typed records for tests: whatever a test does not care about has a plausible value."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bench.files import digest
from bench.records.keys import FitKey
from bench.records.types import Cell, Provenance


def key_of(cell: Mapping[str, Any], *, dataset: str = "", **parts: Any) -> FitKey:
    """A fit key that is another for every cell."""
    usual: dict[str, Any] = {
        "method": cell["method"],
        "version": 1,
        "settings": {},
        "recipe": {},
        "dataset": dataset or digest(cell["dataset"]),
        "draw": digest([cell["dataset"], cell["shots"], cell["seed"]]),
        "shots": cell["shots"],
        "seed": cell["seed"],
        "weights": "c" * 64,
        "preprocessing": f"{cell['backbone']} {cell['preset']}",
        "prompts": digest(cell["prompts"]),
        "protocol": cell["protocol"],
        "encode_dtype": "float32",
    }
    return FitKey(**{**usual, **parts})


def cell_of(coordinates: Mapping[str, Any]) -> Cell:
    """A cell from its coordinates by name."""
    return Cell(**coordinates)


def at(written: str, folder: str = "") -> Provenance:
    """Written at a time, in a results folder."""
    return Provenance(
        written=written, order=round(datetime.fromisoformat(written).timestamp() * 1000), folder=folder
    )
