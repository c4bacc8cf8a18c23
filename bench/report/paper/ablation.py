"""Put our results beside the published numbers for swept settings and prompt sets.

Each of our changes is made of the same two rows as the published one: the same fits, or the same draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.names import canonical
from bench.report.naming import Namer
from bench.report.paper import verdicts
from bench.report.paper.anchors import PROMPTS, Anchor, anchors
from bench.report.paper.numbers import sizes, source_name
from bench.report.select import Choice, called, for_tables
from bench.report.table import FAILED, MISSING, Row, Score, Table

HEADS = ("method", "shots", "setting", "dataset", "backbone")


def against(frame: pd.DataFrame, choice: Choice, source: str = "paper") -> Table:
    """Return our results beside each anchor, then variants of ours that no anchor fits.

    An anchor has one row per result of ours that it fits.
    """
    quoted = [a for a in anchors(source) if _wanted(a, choice)]
    if not quoted:
        raise BenchError(
            f"--against {source}: it has no numbers for swept settings or prompt sets that match the "
            "options; leave out --methods, --datasets, --shots, --backbone or --prompts"
        )
    chosen, notes = for_tables(frame, choice)
    namer = Namer(chosen)
    rows: list[Row] = []
    remarks = []
    for anchor in quoted:
        own = list(_compared(anchor, chosen, namer))
        rows += own
        if anchor.remark and any(row.entries["difference"].value is not None for row in own):
            remarks.append(f"{anchor.method} on {anchor.dataset} with {anchor.setting}: {anchor.remark}")
    rows += _unpublished(chosen, quoted, namer)
    title = f"Against published numbers ({source_name(source)}), swept settings and prompt sets"
    notes = [
        f"Accuracies are in %, changes and differences in points. {verdicts.tally(rows)}",
        *notes,
        *frame.attrs.get("notes", ()),
    ]
    return Table(title, verdicts.COLUMNS, rows, [*notes, *remarks], heads=HEADS, left=("verdict",))


def _wanted(anchor: Anchor, choice: Choice) -> bool:
    """Return whether an anchor matches the options.

    If prompt sets are asked for, the anchor may need no others.
    """
    lists = (
        (choice.methods, anchor.method),
        (choice.datasets, anchor.dataset),
        ((choice.backbone,) if choice.backbone else (), anchor.backbone),
    )
    if not all(not asked or canonical(name) in map(canonical, asked) for asked, name in lists):
        return False
    if choice.shots and anchor.shots not in choice.shots:
        return False
    if choice.prompts:
        sets = {anchor.at, anchor.start or anchor.at}
        return anchor.key == PROMPTS and set(map(canonical, sets)) <= set(map(canonical, choice.prompts))
    return True


def _same_cell(anchor: Anchor, frame: pd.DataFrame) -> pd.DataFrame:
    same = frame["shots"] == anchor.shots
    for column, name in (
        ("method", anchor.method),
        ("target", anchor.dataset),
        ("backbone", anchor.backbone),
    ):
        same &= frame[column].map(canonical) == canonical(name)
    return frame[same]


def _at(frame: pd.DataFrame, key: str, value: str) -> pd.DataFrame:
    """Return the rows with this prompt set, or with this value of a setting and no other change.

    Failed fits have no values, so their rows are kept.
    """
    if key == PROMPTS:
        frame = called(frame, (value,))
        return frame[(frame["prompts"].map(canonical) == canonical(value)) & (frame["variant"] == "")]
    plain = [not v or (v.startswith(f"{key}=") and ", " not in v) for v in frame["variant"]]
    there = [_equal(values.get(key), value) if values else True for values in frame["values"]]
    return frame[[p and t for p, t in zip(plain, there, strict=True)]]


def _equal(ours: Any, theirs: str) -> bool:
    try:
        return abs(float(ours) - float(theirs)) < 1e-9
    except (TypeError, ValueError):
        return str(ours) == theirs


def _compared(anchor: Anchor, frame: pd.DataFrame, namer: Namer) -> Iterator[Row]:
    """Yield a row for each result of ours that the anchor fits, or one row that says why there is none."""
    same, own = (
        [c for c in ("dataset", "protocol", "preset", PROMPTS) if c != anchor.key],
        _same_cell(anchor, frame),
    )
    reasons = []
    for values, group in own.groupby(same, sort=True) if len(own) else ():
        key = {
            PROMPTS: anchor.at,
            "variant": "",
            "method": group.iloc[0]["method"],
            **dict(zip(same, values, strict=True)),
        }
        ours, reason = _value(anchor, group)
        if ours.value is None:
            reasons.append(reason)
            continue
        label, name = namer(key)
        gap = ours.value - anchor.value
        allowed = _tolerance(anchor)
        verdict = verdicts.verdict(gap, allowed, str(key["preset"]))
        yield _row(anchor, label, name, ours, Score(gap, f"{gap:+.2f}"), allowed, verdict)
    if len(reasons) == own[same].drop_duplicates().shape[0]:
        title = namer.titles.get(anchor.method, anchor.method)
        said = sorted(set(filter(None, reasons)))
        verdict = f"not run ({'; '.join(said)})" if said else "not run"
        ours = Score(text=FAILED if "failed" in said else MISSING)
        yield _row(anchor, title, anchor.method, ours, Score(), _tolerance(anchor), verdict)


def _tolerance(anchor: Anchor) -> float:
    """Return the tolerance of cells in tables I and III.

    For a change it is wide, because both of its numbers share their draws.
    """
    return verdicts.tolerance(anchor.shots, anchor.dataset, anchor.dataset not in sizes())


def _value(anchor: Anchor, group: pd.DataFrame) -> tuple[Score, str]:
    """Return our accuracy at the anchor's place, or its change from the start; if there is none, say why."""
    means = []
    wanted = [anchor.at, *([anchor.start] if anchor.start is not None else [])]
    parts = [_at(group, anchor.key, value) for value in wanted]
    seeds = set(pd.concat(parts)["seed"])
    for value, rows in zip(wanted, parts, strict=True):
        good = rows[rows["status"] == "ok"]
        if set(good["seed"]) != seeds or not len(good):
            failed = len(rows) > len(good)
            return Score(), "failed" if failed else f"missing: {anchor.key}={value}"
        means.append(float(good["accuracy"].mean()))
    if anchor.start is None:
        return Score(means[0], f"{means[0]:.2f}"), ""
    change = means[0] - means[1]
    return Score(change, f"{change:+.2f}"), ""


def _row(anchor: Anchor, label: str, name: str, ours: Score, gap: Score, allowed: float, verdict: str) -> Row:
    tail = (str(anchor.shots), anchor.setting, anchor.dataset, anchor.backbone)
    printed = anchor.printed if anchor.start is None else f"{anchor.value:+.2f}"
    quoted = Score(anchor.value, printed, note=anchor.remark)
    entries = verdicts.entries(ours, quoted, gap, allowed, verdict)
    return Row(
        (label, *tail), entries, (name, *tail), anchor.method, anchor.shots, block=(anchor.method, anchor.key)
    )


def _unpublished(frame: pd.DataFrame, quoted: list[Anchor], namer: Namer) -> list[Row]:
    """Return what we varied without a published number, with one row per method, backbone and setting."""
    groups: dict[tuple[str, str, str, str], tuple[set[int], set[str]]] = {}
    for method, own in frame.groupby("method", sort=True):
        several = own.groupby(["backbone", "shots"])[PROMPTS].transform("nunique") > 1
        for (_, r), many in zip(own.iterrows(), several, strict=True):
            keys = [part.partition("=")[0] for part in r["variant"].split(", ") if part] or (
                [PROMPTS] if many else []
            )
            for key in keys:
                place = (str(method), str(r["backbone"]), key, _why_not(r, key, quoted))
                shots, names = groups.setdefault(place, (set(), set()))
                shots.add(int(r["shots"]))
                names.add(str(r["target"]))
    rows = []
    for (method, backbone, key, reason), (shots, names) in groups.items():
        if reason:
            where = ", ".join(sorted(names)) if len(names) <= 3 else f"{len(names)} datasets"
            tail = (", ".join(map(str, sorted(shots))), key, where, backbone)
            rows.append(
                Row(
                    (namer.titles[method], *tail),
                    verdicts.unquoted(reason),
                    (method, *tail),
                    method,
                    max(shots),
                    block=("alone",),
                )
            )
    return rows


def _why_not(r: Any, key: str, quoted: list[Anchor]) -> str:
    """Say why no anchor fits a record in which this setting was varied; empty if an anchor is of its cell."""
    reason = "no published number"
    for a in quoted:
        if a.key != key or canonical(a.method) != canonical(r["method"]):
            continue
        if canonical(a.backbone) != canonical(r["backbone"]):
            reason = "other backbone" if reason == "no published number" else reason
        elif canonical(a.dataset) != canonical(r["target"]):
            reason = "other dataset" if reason != "other shots" else reason
        elif a.shots != r["shots"]:
            reason = "other shots"
        else:
            return ""
    return reason
