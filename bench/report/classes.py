"""Make the table of classes: how often each class of a test set is recognised, and what it is taken for.

Legend: S seeds, n test images, K classes.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.names import TEST_ORACLE, canonical, counted
from bench.report import classnames
from bench.report.accuracy import preset_notes
from bench.report.classnames import ClassNames
from bench.report.command import command
from bench.report.coordinates import ROW
from bench.report.marks import ONE_SEED, drawn_once, most_common
from bench.report.naming import Namer
from bench.report.outputs import stacked_outputs
from bench.report.select import Choice, for_tables, in_order, one_backbone, require_one, run_command
from bench.report.table import MISSING, Row, Score, Table
from bench.report.wording import listed, seeds_list, shots_list, shots_text
from bench.stats import Interval, average_intervals

ACCURACY, INTERVAL, IMAGES, TAKEN, SHARE = "accuracy", "interval", "images", "taken for", "share"
NO_MARKS = (
    "Nothing is marked as best, and each interval holds for one class at a time: among many classes some lie "
    "far off by chance."
)
MOST = 4  # rows of predictions that stand beside one another unless methods are named
ONE_IMAGE = "A class of one test image has no interval, because one image says nothing about others."


@dataclass(frozen=True)
class Predictions:
    """The predictions of one row of a table: a method with its settings, at one number of shots.

    ``label``: its name for people; ``name``: its name in machine-readable forms. ``top1``: the predicted
    classes by seed and test image (S, n). ``labels`` (n,): the true ones. ``key``: ``coordinates.ROW``.
    """

    label: str
    name: str
    shots: int
    seeds: tuple[int, ...]
    top1: NDArray[np.int64]
    labels: NDArray[np.int64]
    key: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Taken:
    """What a class is most often taken for, and in which share of its images (0 to 1)."""

    other: int
    share: float


def table_classes(
    frame: pd.DataFrame,
    choice: Choice,
    target: str | None = None,
    top: int | None = None,
    written: Mapping[str, str] | None = None,
    data_root: Path | None = None,
) -> Table:
    """Return the accuracy of each class of one test set, the hardest class first.

    With one method, a row has the accuracy, its 95 % interval, the number of test images, the class that the
    images are most often taken for, and in which share of the images. Several methods have an accuracy and
    an interval each, and classes are then ordered by the mean over methods. What a class is taken for is a
    matter of one method, so it is left out there. If no methods are named, at most ``MOST`` are shown.

    An image that several seeds saw counts once in the images' part of an interval (``bench.stats``).
    ``target``: a shifted test set of the dataset; None means its own. ``top``: how many classes to show.
    ``written``: paths by the name of a dataset, for ``classnames``. Raises BenchError if no records match, if
    several datasets, backbones or numbers of shots do, and if seeds failed everywhere.
    """
    if top is not None and top < 1:
        raise BenchError(f"--top {top}: show at least one class")
    rows, notes = _chosen(frame, choice, target)
    there, gaps = predictions_of(rows, choice.methods)
    if not there:
        command = run_command(choice, "")
        raise BenchError(f"no method is complete here. {' '.join(gaps)} `{command}` runs what is missing")
    whole = len(there)
    there = there if choice.methods else there[:MOST]
    name = str(rows["target"].iloc[0])
    labels = there[0].labels
    if any(not np.array_equal(one.labels, labels) for one in there):
        raise BenchError(f"{name}: methods were measured on different test images; run the cells again")
    names = classnames.of_rows(rows, written, data_root)
    numbers, images = np.unique(labels, return_counts=True)
    intervals = [by_class(one.top1 == labels, labels) for one in there]
    means = np.mean([[mean for mean, _ in some] for some in intervals], axis=0)
    taken = most_taken([there[0].top1], labels)
    order = [int(i) for i in np.lexsort((numbers, means))][:top]
    columns = _columns(there)
    lines = [
        _row(
            names[int(numbers[i])],
            there,
            dict(zip(columns, (some[i] for some in intervals), strict=True)),
            int(images[i]),
            taken[i],
            names,
        )
        for i in order
    ]
    shown = [column for pair in columns for column in pair]
    few = [one.shots for one in there if one.shots]
    title = f"Classes of {name}, {shots_text(few[0] if few else 0)}"
    title += f", {there[0].label}" if len(there) == 1 else ""
    of_one = [TAKEN, SHARE] if len(there) == 1 else []
    table = Table(title, [*shown, IMAGES, *of_one], lines, heads=("class",), left=tuple(of_one[:1]))
    table.notes = [*_notes(there, str(rows["backbone"].iloc[0]), len(order), len(numbers)), NO_MARKS]
    table.notes += _other_notes(there, whole, rows, choice)
    table.notes += [ONE_IMAGE] if images.min() == 1 else []
    table.notes += [*filter(None, [names.why]), *_empty(names, numbers)]
    table.notes += [*gaps, *preset_notes(rows), *notes, *frame.attrs.get("notes", ())]
    return table


def by_class(right: NDArray[np.bool_], labels: NDArray[np.int64]) -> list[tuple[float, Interval | None]]:
    """Return the accuracy (0 to 1) of each class that has images, in the order of classes, and its interval.

    ``right`` is (S, n), ``labels`` (n,). A single image says nothing about others, so a class of one image
    has no interval.
    """
    tables = [right[:, labels == k] for k in np.unique(labels)]
    several = [one for one in tables if one.shape[1] > 1]
    intervals = iter(average_intervals([[one] for one in several]) if several else [])
    return [(float(one.mean()), next(intervals) if one.shape[1] > 1 else None) for one in tables]


def most_taken(top1: Sequence[NDArray[np.int64]], labels: NDArray[np.int64]) -> list[Taken | None]:
    """Return what each class that has images is most often taken for; None if all its images are right.

    ``top1`` has an array (S, n) for each method. Shares are averaged over seeds, then over methods. Of equal
    shares the class with the lower number is named.
    """
    found: list[Taken | None] = []
    size = 1 + max(int(one.max()) for one in top1)
    for k in np.unique(labels):
        mine = labels == k
        shares = np.mean(
            [np.bincount(one[:, mine].ravel(), minlength=size) / one[:, mine].size for one in top1], axis=0
        )
        if k < size:
            shares[k] = 0.0
        other = int(shares.argmax())
        found.append(Taken(other, float(shares[other])) if shares[other] > 0 else None)
    return found


def predictions_of(rows: pd.DataFrame, methods: Sequence[str] = ()) -> tuple[list[Predictions], list[str]]:
    """Return the predictions of every complete table row, and notes on the others.

    A row is complete if none of its seeds failed: a mean over the survivors of a failure is never shown.
    """
    namer = Namer(rows)
    rank = {m: i for i, m in enumerate(in_order(list(rows["method"].unique()), methods))}
    found, failed = [], []
    for values, group in rows.groupby(list(ROW), sort=True):
        key: dict[str, Any] = dict(zip(ROW, values, strict=True))
        label, name = namer(key)
        if (group["status"] != "ok").any():
            failed.append(label)
            continue
        group = group.sort_values("seed")
        outputs = stacked_outputs(group["path"].tolist())
        top1 = np.stack([one.top1 for one in outputs]).astype(np.int64)
        seeds = tuple(int(s) for s in group["seed"])
        labels = outputs[0].labels.astype(np.int64)
        found.append(Predictions(label, name, int(key["shots"]), seeds, top1, labels, key))
    found.sort(key=lambda one: (rank[str(one.key["method"])], one.name))
    notes = [f"Left out, because a seed failed: {listed(failed, len(failed))}."] if failed else []
    return found, notes


def _chosen(frame: pd.DataFrame, choice: Choice, target: str | None) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of one test set, backbone and number of shots (and of no shots), and notes."""
    sources = frame[["dataset", "target"]].drop_duplicates().itertuples(index=False)
    shifted = {canonical(t): (d, t) for d, t in sources if d != t}
    for name in choice.datasets:
        if canonical(name) in shifted and canonical(name) not in set(frame["dataset"].map(canonical)):
            source, shift = shifted[canonical(name)]
            raise BenchError(
                f"{shift} is a shifted test set of {source}: write --datasets {source} --target {shift}"
            )
    rows, notes = for_tables(frame, choice)
    require_one(rows, "dataset", "table classes shows one dataset, and there are several", "datasets")
    own = rows["dataset"].iloc[0] if len(rows) else ""
    wanted = canonical(target or str(own))
    there = sorted(set(rows["target"]))
    rows = rows[rows["target"].map(canonical) == wanted]
    if not len(rows):
        of = f" of test set '{target}'; {own} has {listed(there, len(there))}" if target and there else ""
        raise BenchError(
            f"no records match the options{of}: choose others, or make the records with "
            f"`{run_command(choice, '--targets' if target else '')}`"
        )
    rows = one_backbone(rows)
    numbers = sorted(set(rows["shots"]) - {0})
    if len(numbers) > 1:
        raise BenchError(f"records of {shots_list(numbers)}: choose one number with --shots")
    return rows, notes


def _columns(there: Sequence[Predictions]) -> list[tuple[str, str]]:
    """Return the names of the columns of accuracy and of interval, for each row of predictions."""
    if len(there) == 1:
        return [(ACCURACY, INTERVAL)]
    labels = [one.label for one in there]
    names = [one.label if labels.count(one.label) == 1 else one.name for one in there]
    return [(name, f"{INTERVAL} of {name}") for name in names]


def _row(
    label: str,
    there: Sequence[Predictions],
    intervals: Mapping[tuple[str, str], tuple[float, Interval | None]],
    images: int,
    taken: Taken | None,
    names: ClassNames,
) -> Row:
    entries = {}
    for one, ((accuracy, interval), (mean, found)) in zip(there, intervals.items(), strict=True):
        span = f"{100 * found.low:.2f} to {100 * found.high:.2f}" if found else MISSING
        entries[accuracy] = Score(100 * mean, f"{100 * mean:.2f}", seeds=one.seeds)
        entries[interval] = Score(text=span, seeds=one.seeds)
    entries[IMAGES] = Score(float(images), str(images))
    if len(there) == 1:
        entries[TAKEN] = Score(text=names[taken.other]) if taken else Score()
        entries[SHARE] = Score(100 * taken.share, f"{100 * taken.share:.2f}") if taken else Score()
    only = there[0] if len(there) == 1 else None
    return Row(
        (label,),
        entries,
        (label,),
        str(only.key["method"]) if only else "",
        max(one.shots for one in there),
        any(one.key["protocol"] == TEST_ORACLE for one in there),
        seeds=only.seeds if only else (),
        key=only.key if only else {},
    )


def _notes(there: Sequence[Predictions], backbone: str, shown: int, classes: int) -> list[str]:
    """Say what the numbers are, over which seeds, and how the classes were ordered and counted."""
    mean = " by the mean over the methods" if len(there) > 1 else ""
    notes = [
        f"The numbers are accuracies on the test images of each class in %, with 95 % intervals, the hardest "
        f"class first{mean}. The backbone is {backbone}."
    ]
    notes += _seed_notes([one for one in there if one.shots])
    if shown < classes:
        notes.append(f"These are the {shown} hardest of {classes} classes; --top {classes} shows all.")
    if len(there) == 1:
        notes.append(
            f"'{TAKEN}' names the wrong class that is predicted most often; '{SHARE}' is for which share of "
            "the class's test images it is predicted, in %, averaged over seeds."
        )
    if any(one.key["protocol"] == TEST_ORACLE for one in there):
        notes.append(f"Protocol {TEST_ORACLE}: hyper-parameters were chosen on the test images.")
    return notes


def _other_notes(there: Sequence[Predictions], whole: int, rows: pd.DataFrame, choice: Choice) -> list[str]:
    """Say which methods are not shown, and the command that says what classes are taken for."""
    notes = []
    if len(there) < whole:
        notes.append(f"These are the first {len(there)} of {whole} methods; --methods chooses others.")
    if len(there) > 1:
        one = there[0].key
        dataset, target = (str(rows[column].iloc[0]) for column in ("dataset", "target"))
        flags = {"datasets": dataset, "methods": one["method"], "target": target if target != dataset else ""}
        flags["shots"] = str(one["shots"] or "")
        flags["prompts"] = ",".join(choice.prompts)
        words = [f"--{name} {shlex.quote(value)}" for name, value in flags.items() if value]
        shows = command("table", " ".join(["classes", *words]), choice.results)
        notes.append(f"With one method the table says what classes are taken for: `{shows}`.")
    return notes


def _seed_notes(few: Sequence[Predictions]) -> list[str]:
    """Say over which seeds the methods with labels are averaged, and which of them have others."""
    if not few:
        return []
    seeds = {one.name: one.seeds for one in few}
    common, others = most_common(seeds)
    of = seeds[common[0]]
    intervals = "An image that several seeds saw counts once in its interval."
    notes = [f"Means are over {seeds_list(of)}. {intervals}"] if len(of) > 1 else []
    notes += [f"{name} has other seeds: {seeds_list(seeds[name])}." for name in others]
    once = [one.name for one in few if drawn_once(one.shots, one.seeds)]
    if once:
        which = "" if len(once) == len(few) else f" of {listed(once, len(once))}"
        notes.append(f"The intervals{which} cover other test images alone: {ONE_SEED}")
    return notes


def _empty(names: ClassNames, numbers: NDArray[np.int64]) -> list[str]:
    """Say how many classes have no test image, and therefore no row."""
    lacking = len(names.names) - len(numbers)
    if not names.names or not lacking:
        return []
    have = "has" if lacking == 1 else "have"
    return [f"{counted(lacking, 'class', 'classes')} without test images {have} no row."]
