"""Read published numbers from the CSV files in results/paper."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.names import canonical, nearest
from bench.paths import results_dir

SOURCES = {"paper": "safe-paper"}


def published(source: str = "paper") -> pd.DataFrame:
    """Return all published numbers of a source ('paper', or a name in the CSV files' column ``source``).

    ``value`` is a float, ``printed`` its text as printed. Raises BenchError for an unknown source.
    """
    folder = results_dir() / "paper"
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise BenchError(f"no published numbers: {folder} holds no CSV files")
    text = pd.concat(
        [pd.read_csv(file, dtype=str, keep_default_na=False) for file in files], ignore_index=True
    )
    name = SOURCES.get(canonical(source), canonical(source))
    known = sorted(text["source"].unique())
    if name not in known:
        hint = nearest(source, [*SOURCES, *known])
        raise BenchError(f"--against {source}: unknown source{hint}; there are paper, {', '.join(known)}")
    text = text[text["source"] == name]
    numbers = {column: pd.to_numeric(text[column], errors="coerce") for column in ("value", "shots")}
    return text.assign(printed=text["value"], **numbers).reset_index(drop=True)


def sizes(source: str = "paper") -> dict[str, dict[str, tuple[int | None, str]]]:
    """Return Table II: dataset -> classes, train, val, test -> (number, or None for "N/A"; remark)."""
    by_dataset: dict[str, dict[str, tuple[int | None, str]]] = {}
    for row in published(source).query("table == '2'").itertuples():
        value: Any = row.value
        by_dataset.setdefault(str(row.dataset), {})[str(row.method)] = (
            None if math.isnan(value) else int(value),
            str(row.note),
        )
    return by_dataset


def source_name(source: str) -> str:
    """Return the name that the files give to a source."""
    return SOURCES.get(canonical(source), source)
