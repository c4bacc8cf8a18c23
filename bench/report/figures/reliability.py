"""Draw reliability diagrams: how often predictions are right, against the confidence that they have.

Each method has a panel before temperature scaling and one after it. Legend: S seeds, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bench.metrics import METRICS, TEMPERATURES, Outputs, reliability
from bench.report.figures import kept, style
from bench.report.figures.kept import Kept
from bench.report.figures.style import Drawn
from bench.report.gaps import at_bound
from bench.report.select import Choice
from bench.report.wording import cells_text

MOST = 6  # methods that a page holds
BEFORE, AFTER = "before", "after"
_NEEDS = ("logp",)
_AFTER_NEEDS = ("logp", "lse_t", "temperature")
_CONVENTION = (
    "There are 15 bins of equal width, closed on the right. A bar is the share of right predictions in its "
    "bin, over all seeds together; the hatched part reaches from there to the mean confidence. ECE is the "
    "mean over seeds. The temperature T is fitted on the few-shot validation images, never on test images."
)


def draw(frame: pd.DataFrame, choice: Choice) -> Drawn:
    """Draw the panels of each method, with the expected calibration error (ECE) in their titles.

    A method whose fits kept no temperature, or for which none was fitted (T = 1), has one panel. Raises
    BenchError if a choice is left open, or if no record has probabilities.
    """
    own, notes = kept.rows_of(frame, choice, "reliability")
    methods, remarks = kept.read(own, choice, "reliability", _NEEDS, MOST)
    stages = [(one, after) for one in methods for after in (False, True) if not after or _scaled(one)]
    points = pd.concat([_table(one, after) for one, after in stages], ignore_index=True)
    where = kept.place(own, methods)
    with style.context():
        wide = 2 if len(stages) <= 2 else 4
        figure, axes = style.canvas(len(stages), wide, style.COLUMN if wide == 2 else style.PAGE, 2.15)
        if len(stages) > wide:  # titles stay clear of the numbers above them
            figure.set_layout_engine("constrained", h_pad=0.07, w_pad=0.03)
        for i, (ax, (one, after)) in enumerate(zip(axes, stages, strict=True)):
            _panel(ax, points[(points["panel"] == one.method) & (points["series"] == _stage(after))])
            ax.set_title(_title(one, after))
            ax.set(
                xlabel="confidence (%)" if i + wide >= len(stages) else "",
                ylabel="accuracy or share (%)" if i % wide == 0 else "",
            )
        figure.suptitle(where, fontsize=7.5, fontweight="bold")
        style.below(figure, _key(), 4 if wide == 4 else 2)
    errors = "; ".join(f"{one.method} {_stage(after)} {_ece(one, after):.2f} %" for one, after in stages)
    alt = f"Accuracy against confidence on {where}, before and after temperature scaling, ECE: {errors}"
    told = [one for one in methods if _told(one)]
    plain = [one.method for one in methods if not _told(one)]
    if plain:
        remarks.append(f"Without a temperature, so only before: {', '.join(plain)}.")
    if unfitted := [one.method for one in told if not _scaled(one)]:
        remarks.append(
            "No temperature was fitted (T = 1), because there are no validation images, so only before: "
            f"{', '.join(unfitted)}."
        )
    for bound in TEMPERATURES:
        at = [o for o in told if any(outputs.temperature == bound for outputs in o.outputs)]
        remarks += at_bound(bound, [cells_text((one.method, one.shots) for one in at)] if at else [])
    return Drawn(figure, points, alt, (*notes, *remarks, _CONVENTION))


def _stage(after: bool) -> str:
    return AFTER if after else BEFORE


def _told(one: Kept) -> bool:
    """Return whether every seed has a temperature."""
    return all(outputs.has(_AFTER_NEEDS) for outputs in one.outputs)


def _scaled(one: Kept) -> bool:
    """Return whether a temperature was fitted, so that probabilities after it are others than before."""
    return _told(one) and any(outputs.temperature != 1.0 for outputs in one.outputs)


def _ece(one: Kept, after: bool) -> float:
    """Return the calibration error in percent, as tables print it: the mean over seeds."""
    metric = METRICS["ece-after" if after else "ece"]
    return float(np.mean([metric.value(outputs) for outputs in one.outputs])) * metric.scale


def _title(one: Kept, after: bool) -> str:
    temperature = f", T = {_temperature(one.outputs)}" if after else ""
    return f"{style.wrapped(one.title)}\n{_stage(after)}{temperature}\nECE {_ece(one, after):.1f} %"


def _temperature(outputs: Sequence[Outputs]) -> str:
    """Return the temperature, or the smallest and the largest over seeds: ``1.32`` or ``1.2 to 1.5``."""
    texts = sorted({f"{one.kept_temperature():.2f}" for one in outputs}, key=float)
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"


def _table(one: Kept, after: bool) -> pd.DataFrame:
    """Return the bins (panel, series, x, y, low, high, share) in percent, over all seeds together.

    ``x`` is the middle of the bin and ``y`` its share of right predictions. ``low`` and ``high`` are ``y``
    and the mean confidence, in order. ``share`` is that of the images. Empty bins are left out.
    """
    every = [reliability(outputs, after=after) for outputs in one.outputs]
    count = np.sum([r.count for r in every], axis=0)  # (B,)
    accuracy, confidence = (
        np.divide(
            np.sum([r.count * np.nan_to_num(getattr(r, name)) for r in every], axis=0),
            count,
            out=np.full(len(count), np.nan),
            where=count > 0,
        )
        for name in ("accuracy", "confidence")
    )
    middle = (every[0].edges[:-1] + every[0].edges[1:]) / 2
    bins = pd.DataFrame(
        {
            "panel": one.method,
            "series": _stage(after),
            "x": 100 * middle,
            "y": 100 * accuracy,
            "low": 100 * np.minimum(accuracy, confidence),
            "high": 100 * np.maximum(accuracy, confidence),
            "confidence": 100 * confidence,
            "share": 100 * count / count.sum(),
        }
    )
    filled: pd.DataFrame = bins[count > 0]
    return filled


def _panel(ax: Axes, bins: pd.DataFrame) -> None:
    bar, gap, _ = style.appearances((BEFORE, AFTER, "share")).values()
    width = 100 / 15
    ax.bar(bins["x"], bins["y"], width, color=bar.colour, alpha=0.75, edgecolor="white", linewidth=0.4)
    ax.bar(
        bins["x"],
        bins["high"] - bins["low"],
        width,
        bins["low"],
        facecolor="none",
        edgecolor=gap.colour,
        hatch="/////",
        linewidth=0.6,
    )
    ax.plot([0, 100], [0, 100], color=style.GREY, linestyle="--", linewidth=0.8, zorder=3)
    ax.plot(bins["x"], bins["share"], color="black", marker="o", markersize=2.2, linewidth=0.8, zorder=4)
    ax.set(xlim=(0, 100), ylim=(0, 100))
    ax.set_xticks(range(0, 101, 25))
    ax.set_yticks(range(0, 101, 25))


def _key() -> list[Line2D | Patch]:
    bar, gap, _ = style.appearances((BEFORE, AFTER, "share")).values()
    return [
        Patch(facecolor=bar.colour, alpha=0.75, label="accuracy in the bin"),
        Patch(facecolor="none", edgecolor=gap.colour, hatch="/////", label="gap to mean confidence"),
        Line2D([], [], color="black", marker="o", markersize=2.2, linewidth=0.8, label="share of images"),
        Line2D([], [], color=style.GREY, linestyle="--", linewidth=0.8, label="perfect calibration"),
    ]
