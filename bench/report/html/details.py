"""Collect what is behind each number of the report.

By seed, these are the values that were chosen, how they were chosen, how long that took, and on which
machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from bench.errors import BenchError
from bench.records import store
from bench.records.types import EvaluationRecord, FitRecord
from bench.report.coordinates import CELL
from bench.report.marks import outcomes
from bench.report.table import Row, Score
from bench.report.wording import shots_text
from bench.stats import average_intervals

_OWN = ("written", "order", "folder")  # fields of a record's provenance that other records do not share
_DIGESTS = ("dataset", "draw", "weights", "prompts")
_encoder = msgspec.json.Encoder(order="sorted")
CURVE_POINTS = 600  # most checks of one fit in the page; the chosen configuration comes first


class Details:
    """The details of table entries. Equal settings and machines are kept once."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.rows = {str(row["path"]): row for row in frame.to_dict("records")}
        self.cells: list[dict[str, Any]] = []
        self.shared: list[Any] = []
        self._places: dict[bytes, int] = {}
        self._entries: dict[int, Score] = {}

    def add(self, row: Row, column: str, entry: Score) -> int | None:
        """Return the number of an entry's details, or None if it has none, such as an average."""
        if not entry.paths and not (entry.value is None and entry.note):
            return None
        shots = shots_text(row.shots) if row.shots else ""
        cell: dict[str, Any] = {"row": row.label, "shots": shots, "column": column, "text": entry.text}
        if entry.paths:
            cell["seeds"] = [self._seed(path) for path in entry.paths]
            cell["interval"] = None
            self._entries[len(self.cells)] = entry
        if entry.note:
            cell["note"] = entry.note
        self.cells.append(cell)
        return len(self.cells) - 1

    def payload(self) -> dict[str, Any]:
        """Return the details as JSON for the page's script."""
        intervals, lost = _intervals(self._entries)
        for number, interval in intervals.items():
            self.cells[number]["interval"] = interval
        for number, reason in lost.items():
            self.cells[number]["no_interval"] = reason
        return {"cells": self.cells, "shared": self.shared}

    def _share(self, value: Any) -> int:
        key = _encoder.encode(value)
        if key not in self._places:
            self._places[key] = len(self.shared)
            self.shared.append(value)
        return self._places[key]

    def _seed(self, path: str) -> dict[str, Any]:
        record = store.read(Path(path))
        if not isinstance(record, EvaluationRecord):
            raise BenchError(f"{path}: this record was deleted meanwhile; load the results again")
        fit = store.fit_of(Path(path), record)
        row = self.rows[path]  # its dataset's name is distinct, the record's may not be
        cell = msgspec.to_builtins(record.cell) | {name: row[name] for name in CELL}
        del cell["seed"]
        facts = {k: v for k, v in msgspec.to_builtins(record.provenance).items() if k not in _OWN}
        return {
            "seed": record.cell.seed,
            "accuracy": 100 * record.top1,
            "top5": None if record.top5 is None else 100 * record.top5,
            "images": record.n,
            **_of_fit(fit),
            "chosen": {
                **(fit.values if fit else {}),
                **{k: v for k, v in record.values.items() if v is not None},
            },
            "seconds": {}
            if record.imported
            else {**(fit.seconds if fit else {}), "evaluate": record.seconds},
            "settings": self._share(fit.parts.settings if fit else {}),
            "cell": self._share(cell | {"version": fit.parts.version if fit else None}),
            "provenance": self._share(facts),
            "digests": self._share({name: getattr(fit.parts, name) for name in _DIGESTS} if fit else {}),
            "written": str(row["written"]),
            "fit": record.fit,
            "evaluation": record.key,
        }


def _of_fit(fit: FitRecord | None) -> dict[str, Any]:
    if fit is None:
        return {"validation": None, "step": None, "budget": {}, "memory": None, "curve": [], "notes": []}
    return {
        "validation": None if fit.val_accuracy is None else 100 * fit.val_accuracy,
        "step": fit.step,
        "budget": msgspec.to_builtins(fit.budget),
        "memory": fit.peak_memory,
        "curve": curve(fit),
        "notes": fit.notes,
    }


def curve(fit: FitRecord) -> list[dict[str, Any]]:
    """Return validation accuracy (%) by step for each configuration, the chosen one first.

    At most ``CURVE_POINTS`` checks are kept, but always all of the chosen configuration.
    """
    ordered = sorted(fit.curve, key=lambda p: any(fit.values.get(k) != v for k, v in p.point.items()))
    lines: list[dict[str, Any]] = []
    left = CURVE_POINTS
    for i, line in enumerate(ordered):
        if i and len(line.checks) > left:
            break
        left -= len(line.checks)
        name = ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in line.point.items())
        lines.append(
            {"name": name, "checks": [[step, round(100 * accuracy, 2)] for step, accuracy in line.checks]}
        )
    return lines


def _intervals(entries: Mapping[int, Score]) -> tuple[dict[int, list[float]], dict[int, str]]:
    """Return the interval's ends in percent for each entry, and the reason for each entry that has none."""
    known, lost = {}, {}
    for number, entry in entries.items():
        try:
            known[number] = [outcomes(entry)]
        except BenchError as error:
            lost[number] = str(error)
    intervals = average_intervals(list(known.values())) if known else []
    return {n: [100 * i.low, 100 * i.high] for n, i in zip(known, intervals, strict=True)}, lost
