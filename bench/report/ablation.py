"""Make the ablation table.

Its rows differ in settings or prompt sets. Each shows how accuracy changes from a starting row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.metrics import Metric
from bench.names import canonical, nearest
from bench.records import store
from bench.records.types import EvaluationRecord
from bench.report import measures, told
from bench.report.accuracy import averages_of, lines, preset_notes, seeds_text
from bench.report.command import command
from bench.report.frame import short
from bench.report.gaps import again, bound_notes, missing_notes, untold_notes
from bench.report.marks import ONE_SEED, outcomes
from bench.report.measures import ACCURACY, Untold
from bench.report.select import Choice, for_tables, in_order
from bench.report.table import AVERAGE, MISSING, Row, Score, Table
from bench.report.wording import cells_text, p_text
from bench.stats import Interval, average_difference_interval, holm, p_value

Block = tuple[str, int, str]  # method, shots, backbone
CHANGE, INTERVAL, P = "change", "interval", "p"
_ALONE = "a number alone"  # the note of a change that is not known, because single images are not


def table_ablation(
    frame: pd.DataFrame,
    choice: Choice,
    targets: Sequence[str] = (),
    base: str | None = None,
    partial: bool = False,
    metric: Metric = ACCURACY,
) -> Table:
    """Return a table with the accuracy of each method's variants and the paired change from its plain row.

    ``metric`` may be another one than accuracy. Numbers and changes are averages over the test sets shown.
    The table varies one thing: settings; where none differ, prompt sets (also when ``choice.prompts`` names
    several); else the protocol. Methods and datasets in which it does not vary are left out unless they are
    asked for by name.

    ``base`` names another starting row: a method (all rows are measured from its plain row) or a prompt set.
    ``targets`` adds shifted test sets. Holm's correction runs over the rows of one method, number of shots
    and backbone. A change over one draw of the support set has no p. Raises BenchError if no method has
    variants, or if ``base`` has no records.
    """
    chosen, _ = for_tables(frame, replace(choice, variants=True))
    shown = {canonical(t) for t in targets}
    chosen = chosen[(chosen["target"] == chosen["dataset"]) | chosen["target"].map(canonical).isin(shown)]
    base_method, base_prompts = _base(base, chosen)
    prompts = [*([base_prompts] if base_prompts else []), *chosen["prompts"].value_counts().index]
    axis = _axis(chosen, choice)
    asked = {canonical(m) for m in choice.methods} | ({canonical(base_method)} if base_method else set())
    chosen = chosen[
        chosen["method"].isin(_varied(chosen, "method", axis)) | chosen["method"].map(canonical).isin(asked)
    ]
    columns = list(chosen["target"].unique() if choice.datasets else _varied(chosen, "target", axis))
    columns = in_order(columns, [*choice.datasets, *chosen["dataset"].unique(), *targets])
    averages = averages_of(AVERAGE, columns)
    sources = dict(zip(chosen["target"], chosen["dataset"], strict=True))
    groups: dict[Block, list[Row]] = {}
    for row in lines(
        chosen[chosen["target"].isin(columns)], columns, averages, partial, choice.methods, True, metric
    ):
        groups.setdefault((row.method, row.shots, row.heads[2]), []).append(row)
    kept: list[Row] = []
    for block, rows in groups.items():
        if len(rows) < 2 and canonical(block[0]) not in asked:
            continue
        start = _start(groups.get((base_method or block[0], *block[1:]), []), prompts)
        kept += _measured(rows, start, {c: sources[c] for c in columns}, block, metric)
    if not kept:
        raise BenchError(
            "no method among these records has variants: "
            f"`{command('run', '--suite ablation', choice.results)}` makes some, "
            "and so do its options --sweep METHOD.SETTING=A,B and --prompts A,B"
        )
    several = len({row.heads[2] for row in kept}) > 1
    if not several:
        kept = [replace(row, heads=row.heads[:2], names=row.names[:2]) for row in kept]
    heads = ("method", "shots", "backbone") if several else ("method", "shots")
    table = Table(
        measures.titled("Ablation", metric),
        [*columns, *averages, CHANGE, INTERVAL, P],
        kept,
        heads=heads,
        averages=averages,
        metric=measures.named(metric),
    )
    told.require(table, columns, choice)
    shown_rows = {(row.method, row.shots) for row in kept}
    own = chosen[[pair in shown_rows for pair in zip(chosen["method"], chosen["shots"], strict=True)]]
    table.notes = [
        measures.numbers_note(metric, seeds_text(own)),
        *measures.conventions(metric),
        f"'change' is the difference{_in(metric)} from the row marked 'start'.",
        *_plain_values(kept),
    ]
    table.notes += [*_change_notes(kept), *_unpaired_notes(kept, metric, choice)]
    table.notes += [*preset_notes(own), *missing_notes(table, columns, partial)]
    table.notes += [*untold_notes(table, columns, choice), *bound_notes(table, columns, chosen)]
    table.notes += frame.attrs.get("notes", ())
    return table


def _base(base: str | None, frame: pd.DataFrame) -> tuple[str | None, str | None]:
    """Return ``--base`` as (method, prompt set), with None for the one that it does not name."""
    if base is None:
        return None, None
    methods, prompts = ({canonical(n): str(n) for n in frame[c].unique()} for c in ("method", "prompts"))
    if canonical(base) in methods:
        return methods[canonical(base)], None
    if canonical(base) in prompts:
        return None, prompts[canonical(base)]
    raise BenchError(
        f"--base {base}: no method or prompt set with records{nearest(base, [*methods, *prompts])}"
    )


def _axis(frame: pd.DataFrame, choice: Choice) -> str:
    """Return the coordinate that an ablation of these records varies."""
    several = [c for c in ("variant", "prompts", "protocol") if _varied(frame, "method", c)]
    return (
        "prompts"
        if len(choice.prompts) > 1 and "prompts" in several
        else several[0]
        if several
        else "variant"
    )


def _varied(frame: pd.DataFrame, column: str, axis: str) -> list[str]:
    """List the values of ``column`` for which some method has rows that differ in ``axis``."""
    counts = (
        frame.groupby([column, "method"] if column != "method" else ["method"])[axis].nunique().reset_index()
    )
    return sorted(counts[counts[axis] > 1][column].unique())


def _start(rows: Sequence[Row], prompts: Sequence[str]) -> Row | None:
    """Return the row without changed settings that has the first of these prompt sets."""
    plain = [row for row in rows if not row.key["variant"]]
    return min(plain, key=lambda row: (row.oracle, prompts.index(row.key["prompts"])), default=None)


def _plain_values(rows: Sequence[Row]) -> list[str]:
    """Say which values the plain rows have for the settings that other rows change.

    The name of a plain row does not show them.
    """
    changed: dict[str, set[str]] = {}
    for row in rows:
        keys = (
            {part.partition("=")[0] for part in str(row.key["variant"]).split(", ")}
            if row.key["variant"]
            else set()
        )
        changed.setdefault(row.method, set()).update(keys)
    usual_values: dict[str, dict[str, None]] = {}
    for row in rows:
        paths = (
            [path for entry in row.entries.values() for path in entry.paths] if not row.key["variant"] else []
        )
        for path in paths:
            evaluation = store.read(Path(path))
            if not isinstance(evaluation, EvaluationRecord):
                continue
            fit = store.fit_of(Path(path), evaluation)
            usual = {**(fit.parts.settings if fit else {}), **evaluation.values}
            for key in sorted(changed[row.method] & set(usual)):
                usual_values.setdefault(f"{row.method}.{key}", {})[short(usual[key])] = None
    values = ", ".join(f"{k}={' or '.join(v)}" for k, v in usual_values.items())
    return [f"Rows without changed settings use {values}."] if values else []


def _in(metric: Metric) -> str:
    """Return the unit of changes with its preposition: `` in points``."""
    return f" in {measures.points(metric)}" if measures.points(metric) else ""


def _unpaired_notes(rows: Sequence[Row], metric: Metric, choice: Choice) -> list[str]:
    """Name the rows whose records give the metric as a number alone, so that their change is not known."""
    alone = [row for row in rows if row.entries[CHANGE].note == _ALONE]
    if not alone:
        return []
    cells = cells_text((row.names[0], row.shots) for row in alone)
    mends = again(choice, [row.imported for row in alone])
    return [
        f"No change for {cells}: the records give the {metric.title} as a number, without the values of "
        f"single images, which pairs need. {mends}"
    ]


def _change_notes(rows: Sequence[Row]) -> list[str]:
    """Say what the intervals and p-values of the changes mean, and which rows have no p."""
    changed = [row for row in rows if row.entries[INTERVAL].text != MISSING]
    once = [row for row in changed if row.entries[P].value is None]
    notes = [
        "'interval' is the 95 % interval of the change, paired on the seeds that both rows have. "
        "It says nothing about other datasets or other classes."
    ]
    if len(once) < len(changed):
        notes.append(
            "'p' is the p-value of the change after Holm's correction over the variants of a method."
        )
    if once:
        where = "" if len(once) == len(changed) else cells_text((row.names[0], row.shots) for row in once)
        notes.append(f"There is no p{f' for {where}' if where else ''}: {ONE_SEED}")
    return notes


def _measured(
    rows: Sequence[Row], start: Row | None, sources: Mapping[str, str], block: Block, metric: Metric
) -> list[Row]:
    """Add to each row its change from ``start``, with interval and Holm's p.

    Rows that cannot be paired get dashes.
    """
    changes: dict[int, Interval] = {}
    alone: set[int] = set()
    for i, row in enumerate(rows):
        if start is not None and row is not start:
            try:
                change = paired(row, start, sources, metric)
            except Untold:
                alone.add(i)
                continue
            if change is not None:
                changes[i] = change
    tested = [i for i, change in changes.items() if "seeds" in change.varies or not block[1]]
    adjusted = dict(zip(tested, holm([p_value(changes[i]) for i in tested]), strict=True))
    measured = []
    for i, row in sorted(enumerate(rows), key=lambda numbered: numbered[1] is not start):
        extra = {CHANGE: Score(note=_ALONE if i in alone else ""), INTERVAL: Score(), P: Score()}
        if row is start:
            extra[CHANGE] = Score(text="start")
        elif i in changes:
            change = changes[i]
            extra[CHANGE] = Score(metric.scale * change.estimate, measures.gap(metric, change.estimate))
            extra[INTERVAL] = Score(text=measures.span(metric, change))
        if i in adjusted:
            extra[P] = Score(float(adjusted[i]), p_text(float(adjusted[i])))
        measured.append(replace(row, entries={**row.entries, **extra}, block=block))
    return measured


def paired(row: Row, start: Row, sources: Mapping[str, str], metric: Metric = ACCURACY) -> Interval | None:
    """Return the interval of row - start, averaged over the columns, on the seeds that both have.

    ``sources``: by column, the dataset that the fits were trained on. Returns None if one of the two rows
    has no complete value in a column. Raises Untold if records give the metric as a number alone.
    """
    seeds = sorted(set(row.seeds) & set(start.seeds))
    both_rows = [r.entries[c] for r in (row, start) for c in sources]
    if not seeds or any(e.value is None or e.partial for e in both_rows):
        return None
    pairs = []
    for c in sources:
        both = [outcomes(r.entries[c], metric)[[r.seeds.index(s) for s in seeds]] for r in (row, start)]
        if both[0].shape != both[1].shape:
            return None
        pairs.append((np.asarray(both[0]), np.asarray(both[1])))
    return average_difference_interval(pairs, sources=list(sources.values()), bounds=metric.bounds)
