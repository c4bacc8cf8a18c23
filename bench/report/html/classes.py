"""Write what the predictions on each dataset say: calibration, hard classes, confusions, sure mistakes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.metrics import METRICS, SCALING, Confusion, Metric, Outputs, confusions
from bench.names import counted
from bench.records import store
from bench.records.types import EvaluationRecord
from bench.report import classnames
from bench.report.classes import by_class, most_taken
from bench.report.classnames import ClassNames
from bench.report.command import command
from bench.report.html.gallery import Gallery
from bench.report.html.text import escape
from bench.report.outputs import stacked_outputs
from bench.report.table import MISSING, Row, Score, Table
from bench.report.wording import seeds_list, shots_list, shots_text
from bench.stats import lowered, mean_interval

MOST = 10  # classes and pairs of a dataset that are listed
_COLUMNS = ("method", "accuracy", "NLL", "ECE", "its interval", "ECE after temperature", "its interval")
_TEXT = (
    "For each dataset: how well the probabilities of each method are calibrated, and, for the method with "
    "the highest accuracy at the most shots, which classes are hard, what they are taken for, and which "
    "mistakes it is surest of. NLL is the negative log-likelihood in nats, ECE the expected calibration "
    "error in percent; of both, less is better. "
    f"{METRICS['ece'].convention} So the interval of an ECE reaches further down, and contains the true "
    f"error too. {SCALING} A dash means that the records do not tell it. Intervals are 95 % confidence "
    "intervals. One of a class holds for that class alone, and an image counts once in it, however many "
    "seeds saw it."
)


def section(
    frame: pd.DataFrame, tables: Sequence[Table], gallery: Gallery, written: Mapping[str, str] | None = None
) -> str:
    """Write a part for each dataset of each first table (``tables``).

    ``written``: paths of people's own datasets by name, to find the names of their classes.
    """
    rows = {str(row["path"]): row for row in frame.to_dict("records")}
    parts = []
    for number, table in enumerate(tables):
        for i, name in enumerate(c for c in table.columns if c not in table.averages):
            there = [row for row in table.rows if row.entries[name].paths]
            if there:
                where = f", {there[0].block[0]}" if len(tables) > 1 else ""
                body = _part(name, there, rows, gallery, written or {}, frame.attrs.get("folders", ()))
                parts.append(
                    f'<section class="dataset" id="classes-{number}-{i}"><h3>{escape(name + where)}</h3>'
                    f"{body}</section>"
                )
    cut = ""
    if gallery.cut:
        many = counted(len(gallery.cut), "dataset")
        cut = f'<p class="absent">Pictures of {many} were left out, because the page would be too large.</p>'
    return f"<p>{escape(_TEXT)}</p>{cut}{''.join(parts)}"


def _part(
    name: str,
    there: Sequence[Row],
    rows: Mapping[str, Mapping[Any, Any]],
    gallery: Gallery,
    written: Mapping[str, str],
    folders: Sequence[str] = (),
) -> str:
    """Write the part of one dataset. ``there``: the table rows that have results on it."""
    most = max(row.shots for row in there)
    best = _best([row for row in there if row.shots == most], name)
    shown = [row for row in there if row.shots in (0, most)]
    calibration = _calibration(name, shown, rows, most) + _other_shots(name, there, most, folders)
    try:
        outputs = stacked_outputs(best.entries[name].paths)
        digest = classnames.digest_of(best.entries[name].paths[0])
    except BenchError as error:
        return f'{calibration}<p class="absent">{escape(str(error))}</p>'
    names = classnames.of(name, digest, outputs[0].labels, written=written.get(name))
    seeds = f", {seeds_list(best.entries[name].seeds)}" if best.shots else ""
    of = f"<p>{escape(f'{best.label}, {shots_text(best.shots)}{seeds}')}:</p>"
    why = f'<p class="absent">{escape(names.why)}</p>' if names.why else ""
    sure = _surest(name, there, most)
    return (
        calibration
        + f"<h4>Hardest classes</h4>{of}{why}{_hardest(outputs, names)}"
        + f"<h4>Most confused pairs</h4>{of}{_pairs(confusions(outputs), names)}"
        + "<h4>Most confident mistakes</h4>"
        + _mistakes(name, sure or best, gallery, names)
    )


def _best(rows: Sequence[Row], name: str) -> Row:
    """Return the row with the highest accuracy.

    One that chose on test images, or that lacks seeds, is taken only if there is no other: a single seed may
    be a lucky one.
    """
    return max(rows, key=lambda row: _rank(row, name))


def _rank(row: Row, name: str) -> tuple[bool, bool, float]:
    """Return what makes a row better than others on a dataset."""
    entry = row.entries[name]
    return not row.oracle, not row.absent and not entry.partial, _value(entry)


def _value(entry: Score) -> float:
    return entry.value if entry.value is not None else -1.0


def _surest(name: str, there: Sequence[Row], most: int) -> Row | None:
    """Return the best row, of those at the most shots first, whose first seed keeps probabilities."""
    order = sorted(there, key=lambda row: (row.shots == most, *_rank(row, name)), reverse=True)
    return next((row for row in order if _keeps(row.entries[name].paths[0])), None)


def _keeps(path: str) -> bool:
    record = store.read(Path(path))
    return isinstance(record, EvaluationRecord) and "logp" in record.outputs


def _calibration(name: str, shown: Sequence[Row], rows: Mapping[str, Mapping[Any, Any]], most: int) -> str:
    """Write accuracy beside calibration, for rows without labels and for those at the most shots."""
    lines = []
    for row in sorted(shown, key=lambda row: -_value(row.entries[name])):
        entry = row.entries[name]
        cells = [entry.text, _mean("nll", entry.paths, rows)]
        for which in ("ece", "ece-after"):
            cells += [_mean(which, entry.paths, rows), _span(METRICS[which], entry.paths)]
        tail = "".join(f"<td>{escape(text)}</td>" for text in cells)
        label = row.label if row.shots else f"{row.label}, {shots_text(0)}"
        lines.append(f'<tr><th scope="row">{escape(label)}</th>{tail}</tr>')
    return f"<h4>Calibration beside accuracy, {escape(shots_text(most))}</h4>" + _table(
        "Calibration beside accuracy", _COLUMNS, lines
    )


def _other_shots(name: str, there: Sequence[Row], most: int, folders: Sequence[str]) -> str:
    """Say which numbers of shots have no calibration here, and the command that shows it."""
    others = sorted({row.shots for row in there} - {0, most})
    if not others:
        return ""
    flags = f"--datasets {shlex.quote(name)} --shots {','.join(map(str, others))}"
    flags += f" --backbone {shlex.quote(str(there[0].block[0]))} --metric ece"
    shows = f"<code>{escape(command('table', flags, folders))}</code>"
    return f"<p>Left out here: {escape(shots_list(others))}; {shows} shows them.</p>"


def _mean(which: str, paths: Sequence[str], rows: Mapping[str, Mapping[Any, Any]]) -> str:
    """Return the mean over seeds of a metric; a dash if a record does not tell it."""
    values = [float(rows[path][which]) for path in paths]
    return f"{np.mean(values):.{METRICS[which].digits}f}" if np.isfinite(values).all() else MISSING


def _span(shown: Metric, paths: Sequence[str]) -> str:
    """Return the interval of a calibration error; a dash if a seed keeps no probabilities."""
    try:
        outputs = stacked_outputs(paths)
    except BenchError:  # predictions are gone: the parts below say so
        return MISSING
    if not all(map(shown.can, outputs)):
        return MISSING
    interval = mean_interval(shown.per_image(outputs), bounds=shown.bounds)
    interval = lowered(interval, shown.excess(outputs))
    return f"{shown.scale * interval.low:.1f} to {shown.scale * interval.high:.1f}"


def _hardest(outputs: Sequence[Outputs], names: ClassNames) -> str:
    """Write the classes that are recognised least, with intervals and what they are taken for."""
    labels = outputs[0].labels.astype(np.int64)
    top1 = np.stack([one.top1 for one in outputs]).astype(np.int64)
    numbers, images = np.unique(labels, return_counts=True)
    found, taken = by_class(top1 == labels, labels), most_taken([top1], labels)
    order = np.lexsort((numbers, np.array([accuracy for accuracy, _ in found])))[:MOST]
    lines = []
    for at in map(int, order):
        (accuracy, interval), other = found[at], taken[at]
        span = f"{100 * interval.low:.1f} to {100 * interval.high:.1f}" if interval else MISSING
        wrong = f"{names[other.other]} ({100 * other.share:.1f} %)" if other else MISSING
        cells = (f"{100 * accuracy:.1f}", span, str(images[at]), wrong)
        tail = "".join(f"<td>{escape(text)}</td>" for text in cells)
        lines.append(f'<tr><th scope="row">{escape(names[int(numbers[at])])}</th>{tail}</tr>')
    rest = f"<p>{MOST} of {len(numbers)} classes are shown.</p>" if len(numbers) > MOST else ""
    return (
        _table(
            "Hardest classes", ("class", "accuracy", "95 % interval", "images", "most often taken for"), lines
        )
        + rest
    )


def _pairs(found: Sequence[Confusion], names: ClassNames) -> str:
    """Write which classes are taken for which, the most frequent first."""
    if not found:
        return "<p>No test image is classified wrongly.</p>"
    lines = [
        f'<tr><th scope="row">{escape(names[one.label])}</th><td>{escape(names[one.taken_for])}</td>'
        f"<td>{100 * one.share:.1f}</td><td>{one.images}</td></tr>"
        for one in found[:MOST]
    ]
    rest = f"<p>{MOST} of {len(found)} pairs are shown.</p>" if len(found) > MOST else ""
    return (
        _table(
            "Most confused pairs",
            ("class", "taken for", "share of its images (%)", "different images"),
            lines,
        )
        + rest
    )


def _mistakes(name: str, row: Row, gallery: Gallery, names: ClassNames) -> str:
    """Write the surest mistakes of a row's first seed."""
    entry = row.entries[name]
    seed = f", seed {entry.seeds[0]}" if row.shots and entry.seeds else ""
    head = f"<p>{escape(f'{row.label}, {shots_text(row.shots)}{seed}')}:</p>"
    try:
        outputs, digest = stacked_outputs(entry.paths[:1])[0], classnames.digest_of(entry.paths[0])
    except BenchError as error:
        return f'<p class="absent">{escape(str(error))}</p>'
    return head + gallery.mistakes(name, digest, outputs, names.__getitem__)


def _table(label: str, heads: Sequence[str], lines: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    return (
        f'<div class="scroll standing" tabindex="0" role="region" aria-label="{escape(label)}">'
        f"<table><thead><tr>{cells}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
