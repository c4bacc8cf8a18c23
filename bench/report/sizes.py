"""Make Table II: classes and images of the datasets, ours beside the published ones."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from bench.report.paper.numbers import sizes
from bench.report.select import in_order
from bench.report.table import MISSING, Row, Score, Table
from bench.report.wording import listed

PARTS = ("classes", "train", "val", "test")


def table_2(
    counts: Mapping[str, Mapping[str, int]], frame: pd.DataFrame | None = None, against: str | None = None
) -> Table:
    """Return the sizes of datasets: ours (``counts``), the published ones, and whether they agree.

    ``evaluated`` is the number of test images behind the records in ``frame``. The published table has no
    shifted test sets and no datasets of users, so the verdict on these is a dash. ``against`` names the
    source of the published sizes, by default the paper.
    """
    published = sizes(against or "paper")
    names = list(counts) or in_order(list(published), [])
    measured = {} if frame is None else frame[frame["status"] == "ok"].groupby("target")["n"].max().to_dict()
    columns = [*PARTS, *(f"paper: {part}" for part in PARTS), "verdict", "evaluated"]
    rows, notes = [], []
    remarks: dict[tuple[str, str], list[str]] = {}
    for name in names:
        ours, theirs = counts.get(name, {}), published.get(name, {})
        entries = {part: _size(ours.get(part)) for part in PARTS}
        entries |= {f"paper: {part}": _size(theirs.get(part, (None, ""))[0]) for part in PARTS}
        different = [
            part for part in PARTS if part in theirs and theirs[part][0] not in (None, ours.get(part))
        ]
        verdict = (
            (f"differs: {', '.join(different)}" if different else "same") if theirs and ours else MISSING
        )
        entries["verdict"] = Score(text=verdict)
        entries["evaluated"] = _size(measured.get(name))
        rows.append(Row((name,), entries, (name,)))
        for remark in dict.fromkeys(note for _, note in theirs.values() if note):
            about = [part for part in theirs if theirs[part][1] == remark]
            which = "" if len(about) == len(theirs) else f", {listed(about)}"
            remarks.setdefault((which, remark), []).append(name)
        if name in measured and "test" in ours and measured[name] != ours["test"]:
            notes.append(
                f"{name}: the records evaluate {measured[name]} test images, "
                f"but the dataset has {ours['test']}."
            )
    quoted = [f"{listed(some, len(some))}{which}: {remark}" for (which, remark), some in remarks.items()]
    legend = ["'evaluated' is the number of test images behind the records."] if measured else []
    notes = [*legend, *quoted, *notes]
    return Table("Sizes of the datasets", columns, rows, notes, heads=("dataset",), left=("verdict",))


def _size(n: int | None) -> Score:
    return Score() if n is None else Score(float(n), str(int(n)))
