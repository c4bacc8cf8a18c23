"""docs/records.md explains every field of a record, and no field that records do not have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec

from bench.records.types import EvaluationRecord, FitRecord

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "records.md").read_text(encoding="utf-8")


def fields(table: str) -> set[str]:
    """Return the names in the first column of a table."""
    first = re.findall(r"^\|([^|]+)\|", table, re.M)
    return {name for cell in first for name in re.findall(r"`(\w+)`", cell)}


def test_every_field_is_explained() -> None:
    _, of_fit, of_evaluation = re.split(r"^The fields of an? .*:$", PAGE, flags=re.M)
    tags = {"kind"}
    assert fields(of_fit) == {*FitRecord.__struct_fields__} | tags
    own = fields(of_evaluation.partition("\n## ")[0])
    assert own - {"kind", "values", "seconds", "temperature", "imported"} == {
        *EvaluationRecord.__struct_fields__
    } - {*FitRecord.__struct_fields__}


def test_the_example_has_fields_of_a_record() -> None:
    example = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.S)[1])  # type: ignore[index]
    assert example.pop("kind") == "fit"
    assert example.keys() <= {*FitRecord.__struct_fields__}
    types = {field.name: field.type for field in msgspec.structs.fields(FitRecord)}
    for name in ("cell", "parts", "budget", "provenance"):
        assert {*example[name]} - {"..."} <= {*types[name].__struct_fields__}, name
