"""Make Table I (dataset x shots x method) and Table III (a source and its shifted test sets, by backbone)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.metrics import Metric
from bench.names import TEST_ORACLE
from bench.report import gaps, marks, measures, told
from bench.report.coordinates import IMPORTED, ROW
from bench.report.means import average, by_row, by_target, mean_over_seeds
from bench.report.measures import ACCURACY
from bench.report.naming import Namer
from bench.report.select import Choice, for_tables, in_order, one_backbone, run_command
from bench.report.table import AVERAGE, Row, Table
from bench.report.wording import shots_list

TARGETS_AVERAGE = "average of shifts"
# What a reader has to know about numbers made with these budgets.
PRESETS = {
    "quick": "The preset 'quick' trains briefly, with budgets for the embedded backbones instead of the "
    "published recipes. A method may therefore end below zero-shot; the page 'Protocols and presets' says "
    "why."
}


def table_1(
    frame: pd.DataFrame,
    choice: Choice,
    targets: Sequence[str] = (),
    partial: bool = False,
    bold: bool = True,
    underline: bool = True,
    metric: Metric = ACCURACY,
) -> Table:
    """Return test accuracy, or another metric, as means over seeds, with a row per method and shots.

    The columns are the datasets and, last, their average.

    A failed seed makes its entry ``ERR``. An entry may lack seeds that its row, or another row with as many
    shots, has; then it says of how many seeds it is the mean. Example: ``71.20 (2/3)``. An average over
    entries with unequal seeds is withheld unless ``partial`` is set, and then marked. A table of one dataset
    has no average.
    """
    own, notes = for_tables(frame[frame["target"] == frame["dataset"]], choice)
    own = one_backbone(own)
    if not len(own):
        raise BenchError(
            "no records match the options: choose others, leave some out, or make the records with "
            f"`{run_command(choice, '')}`"
        )
    columns = in_order(list(own["dataset"].unique()), choice.datasets)
    averages = averages_of(AVERAGE, columns)
    rows = [*lines(own, columns, averages, partial, choice.methods, metric=metric)]
    title = "Few-shot accuracy" if metric is ACCURACY else f"Few-shot {measures.heading(metric)}"
    table = Table(title, [*columns, *averages], rows, averages=averages, metric=measures.named(metric))
    told.require(table, columns, choice)
    said = measures.numbers_note(metric, seeds_text(own))
    table.notes = [f"{said} The backbone is {own['backbone'].iloc[0]}.", *measures.conventions(metric)]
    table.notes += [*preset_notes(own), *gaps.missing_notes(table, columns, partial), *notes]
    table.notes += [*gaps.untold_notes(table, columns, choice), *gaps.bound_notes(table, columns, own)]
    table.notes += frame.attrs.get("notes", ())
    return marks.mark(table, bold, underline, choice)


def table_3(
    frame: pd.DataFrame,
    choice: Choice,
    targets: Sequence[str] = (),
    partial: bool = False,
    bold: bool = True,
    underline: bool = True,
    metric: Metric = ACCURACY,
) -> Table:
    """Return the accuracy of models fitted on one source, on its own and on shifted test sets.

    The rows are grouped by backbone and shots. ``metric`` may be another one than accuracy.
    """
    chosen, notes = for_tables(frame, choice)
    sources = sorted(chosen[chosen["target"] != chosen["dataset"]]["dataset"].unique())
    if len(sources) != 1:
        several = f"shifted test sets of several sources ({', '.join(sources)}): choose one with --datasets"
        raise BenchError(
            several
            if sources
            else f"no records of shifted test sets: `{run_command(choice, '--targets')}` makes them"
        )
    source = sources[0]
    chosen = chosen[chosen["dataset"] == source]
    shifts = in_order([t for t in chosen["target"].unique() if t != source], targets)
    averages = averages_of(TARGETS_AVERAGE, shifts)
    rows = [*lines(chosen, [source, *shifts], averages, partial, choice.methods, True, metric)]
    table = Table(
        measures.titled(f"Shifted test sets of {source}", metric),
        [source, *shifts, *averages],
        rows,
        heads=("method", "shots", "backbone"),
        averages=averages,
        sources=dict.fromkeys([source, *shifts], source),
        metric=measures.named(metric),
    )
    told.require(table, [source, *shifts], choice, "--targets")
    said = measures.numbers_note(metric, seeds_text(chosen))
    table.notes = [f"{said} The models were fitted on {source} alone.", *measures.conventions(metric)]
    shown = [source, *shifts]
    table.notes += [*preset_notes(chosen), *gaps.missing_notes(table, shown, partial), *notes]
    table.notes += [*gaps.untold_notes(table, shown, choice), *gaps.bound_notes(table, shown, chosen)]
    table.notes += frame.attrs.get("notes", ())
    return marks.mark(table, bold, underline, choice)


def lines(
    frame: pd.DataFrame,
    columns: Sequence[str],
    averages: dict[str, tuple[str, ...]],
    partial: bool,
    methods: Sequence[str] = (),
    backbones: bool = False,
    metric: Metric = ACCURACY,
) -> list[Row]:
    """Build one row per coordinates of ``ROW``, with an entry per test set and per average.

    Raises BenchError if the metric has to be computed from predictions and these are gone.
    """
    frame = measures.filled(frame, metric)
    namer = Namer(frame)
    rank = {m: i for i, m in enumerate(in_order(list(frame["method"].unique()), methods))}
    rows = []
    imported = {
        tuple(key) for key in frame.loc[frame["imported"].astype(bool), list(ROW)].to_numpy().tolist()
    }
    everywhere = frame.groupby(["backbone", "shots"])["seed"].unique().to_dict()
    for values, outcomes in by_row(frame, "value"):
        key: dict[str, Any] = dict(zip(ROW, values, strict=True))
        seeds = tuple(sorted({o.seed for o in outcomes}))
        absent = tuple(sorted(set(everywhere[key["backbone"], key["shots"]].tolist()) - set(seeds)))
        here = by_target(outcomes)
        lost = [o for o in outcomes if o.lost] if backbones else []
        entries = {c: mean_over_seeds(here.get(c, ()), seeds, lost, absent, metric.digits) for c in columns}
        entries |= {
            name: average([entries[c] for c in parts], partial, seeds, absent, metric.digits)
            for name, parts in averages.items()
        }
        label, name = namer(key)
        shots = int(key["shots"])
        tail = (str(shots), str(key["backbone"])) if backbones else (str(shots),)
        rows.append(
            Row(
                (label, *tail),
                entries,
                (name, *tail),
                str(key["method"]),
                shots,
                key["protocol"] == TEST_ORACLE,
                block=(key["backbone"], shots),
                seeds=seeds,
                absent=absent,
                key=key,
                imported=tuple(values) in imported,
            )
        )
    rows.sort(key=lambda r: (*map(str, r.block[:1]), r.shots, rank[r.method], r.heads))
    return rows


def averages_of(name: str, columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the column that averages ``columns``, or no column for a single one, which it would repeat."""
    return {name: tuple(columns)} if len(columns) > 1 else {}


def preset_notes(frame: pd.DataFrame) -> list[str]:
    """Return notes on the training budgets (presets) behind the rows that use labels and were fitted here."""
    few = frame[(frame["shots"] > 0) & (frame["prompts"] != IMPORTED)]
    return [PRESETS[name] for name in sorted(few["preset"].unique()) if name in PRESETS]


def seeds_text(frame: pd.DataFrame) -> str:
    """Say over how many seeds the rows that use labels are averaged, by shots where that differs.

    Rows without labels have one run. Example: ``each the mean over 3 seeds (zero-shot: one run)``.
    """
    few = frame[frame["shots"] > 0]
    if not len(few):
        return "each from one run, because these methods draw no images"
    counts: Any = (
        few.groupby([*ROW, "dataset", "target"])["seed"].nunique().groupby("shots").agg(["min", "max"])
    )
    numbers: dict[tuple[int, int], list[int]] = {}
    for n, low, high in counts.itertuples():
        numbers.setdefault((int(low), int(high)), []).append(int(n))
    words = {pair: f"{pair[0]} to {pair[1]}" if pair[0] < pair[1] else str(pair[0]) for pair in numbers}
    each = [f"{words[pair]} seed{'s' if pair[1] > 1 else ''}" for pair in numbers]
    several = max(high for _, high in numbers) > 1
    once = " (zero-shot: one run)" if several and (frame["shots"] == 0).any() else ""
    if len(each) == 1:
        return f"each the mean over {each[0]}{once}"
    said = (f"{text} at {shots_list(some)}" for text, some in zip(each, numbers.values(), strict=True))
    return f"each the mean over {', '.join(said)}{once}"
