"""Say how tables and comparisons show a metric: its numbers, its units, and the values behind its intervals.

Legend: S seeds, n test images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.metrics import METRICS, Metric, metric
from bench.names import canonical
from bench.records.outcomes import QUICK
from bench.report.frame import stacked
from bench.report.outputs import outputs_of, stacked_outputs
from bench.stats import Interval, difference_bounds

ACCURACY = METRICS["top1"]  # what tables show unless --metric names another


# What is compared with counts by class or with images when records are loaded.
_CHECKED = ("top1", "top5", "balanced", "macro-f1", *QUICK)


class Untold(BenchError):
    """The records do not keep what a metric needs of every test image."""


def chosen(name: str) -> Metric:
    """Return the metric that ``--metric`` names, as in ``ece`` or ``Macro_F1``; ``accuracy`` is ``top1``.

    Raises BenchError for an unknown name, with the nearest one, and for several names.
    """
    if "," in name:
        first = name.partition(",")[0].strip() or ACCURACY.name
        raise BenchError(f"--metric {name}: one metric at a time, as in --metric {first}")
    try:
        return ACCURACY if canonical(name) == "accuracy" else metric(canonical(name))
    except ValueError as error:
        raise BenchError(f"--metric {name}: {error}") from error


def filled(frame: pd.DataFrame, shown: Metric) -> pd.DataFrame:
    """Return the frame with a column ``value``: the metric in the unit and the scale of tables.

    Where a record does not say the number, it is computed from what is kept of its images; this reads the
    predictions of these rows. Where they cannot tell it, it is NaN. Example: a record that is older than
    metrics has a balanced accuracy, but no calibration error. Calibration errors and risks that records say
    are compared with what is kept of the images, because loading the records did not do so.

    Raises BenchError if predictions are gone or are not those of their record.
    """
    values = frame[shown.name].to_numpy(dtype=np.float64, copy=True)
    good = (frame["status"] == "ok").to_numpy()
    for i in np.flatnonzero(good if shown.name not in _CHECKED else good & np.isnan(values)):
        kept = outputs_of(frame["path"].iloc[i])  # this compares every metric of the record with them
        if np.isnan(values[i]) and shown.can(kept):
            values[i] = shown.scale * shown.value(kept)
    return frame.assign(value=values)


def outcomes(paths: Sequence[str], shown: Metric) -> NDArray[Any]:
    """Return the values (S, n) of these evaluations, one for each seed, as bench.stats takes them.

    The mean of a row is the metric of that seed in natural units (``Metric.per_image``). For accuracy the
    values are right or wrong. Raises Untold if a record does not keep what the metric needs, and BenchError
    if predictions are gone or belong to different test sets.
    """
    if shown is ACCURACY:
        return stacked(paths)  # kept in memory, a bit an image, since every accuracy is counted again
    every = stacked_outputs(paths)
    for path, one in zip(paths, every, strict=True):
        if not shown.can(one):
            raise Untold(f"{path}: it does not keep what the {shown.title} needs; run the cell again")
    values = shown.per_image(every)
    if not np.isfinite(values).all():
        raise BenchError(
            f"{paths[0]}: the {shown.title} of some image is infinite, because its true class was given the "
            "probability 0"
        )
    return values


def widest(shown: Metric) -> float:
    """Return the largest difference that two methods can have, in natural units (infinite for nats)."""
    return difference_bounds(shown.bounds)[1]


def text(shown: Metric, value: float) -> str:
    """Write a number that is in the scale of tables."""
    return f"{value:.{shown.digits}f}"


def gap(shown: Metric, value: float) -> str:
    """Write a difference in natural units with its sign: ``+1.20`` points, ``-0.0340`` nats."""
    return f"{_rounded(shown, value):+.{_finer(shown)}f}"


def span(shown: Metric, interval: Interval) -> str:
    """Write the ends of the interval of a difference: ``+0.40 to +2.00``."""
    return f"{gap(shown, interval.low)} to {gap(shown, interval.high)}"


def size(shown: Metric, value: float) -> str:
    """Write the size of a difference in natural units, with its unit: ``1.20 points``."""
    return with_unit(shown, f"{shown.scale * abs(value):.{_finer(shown)}f}")


def _finer(shown: Metric) -> int:
    """Return the decimals of differences: at least 4 for nats and scores, whose differences are small."""
    return shown.digits if shown.unit == "%" else max(4, shown.digits)


def _rounded(shown: Metric, value: float) -> float:
    """Return a difference in the scale of tables; in nats or scores, one that would print as -0 is 0."""
    scaled = shown.scale * value
    return 0.0 if shown.unit != "%" and round(scaled, _finer(shown)) == 0 else scaled


def points(shown: Metric) -> str:
    """Return the unit of differences: points for percent, else that of the metric (may be empty)."""
    return "points" if shown.unit == "%" else shown.unit


def with_unit(shown: Metric, number: str) -> str:
    """Write a difference with its unit."""
    return f"{number} {points(shown)}".rstrip()


def direction(shown: Metric) -> str:
    """Say which numbers are better: ``lower is better``."""
    return f"{'lower' if shown.lower_is_better else 'higher'} is better"


def heading(shown: Metric) -> str:
    """Name the metric with its unit: ``expected calibration error (%)``."""
    return f"{shown.title} ({shown.unit})" if shown.unit else shown.title


def titled(title: str, shown: Metric) -> str:
    """Return a table's title, which names any metric but accuracy."""
    return title if shown is ACCURACY else f"{title}: {heading(shown)}"


def named(shown: Metric) -> Metric | None:
    """Return what ``Table.metric`` holds: None for accuracy, whose tables say nothing of metrics."""
    return None if shown is ACCURACY else shown


def numbers_note(shown: Metric, seeds: str) -> str:
    """Say what the numbers of a table are. ``seeds``: over which seeds they are means."""
    if shown is ACCURACY:
        return f"The numbers are test accuracies in %, {seeds}."
    return f"{of_metric(shown)} on the test images, {seeds}; {direction(shown)}."


def of_metric(shown: Metric) -> str:
    """Begin the sentence that says what numbers are: ``The numbers are in nats: the ...``."""
    return f"The numbers are {f'in {shown.unit}: ' if shown.unit else ''}the {shown.title}"


def conventions(shown: Metric) -> list[str]:
    """Return what a note has to say about how the metric is defined; nothing for accuracy."""
    return [shown.convention] if shown.convention else []
