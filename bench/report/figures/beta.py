"""Draw the accuracy change against beta = 0 on a source and its shifted test sets (Fig. 5 of the paper).

Each backbone has a panel.
"""

from __future__ import annotations

import shlex
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bench.errors import BenchError
from bench.names import canonical
from bench.report import select
from bench.report.command import command
from bench.report.figures import outcomes, series, style
from bench.report.figures.style import Drawn
from bench.report.figures.swept import Setting, kind, setting_of
from bench.report.paper.anchors import Anchor, anchors
from bench.report.select import Choice
from bench.report.wording import shots_text
from bench.stats import difference_interval


def draw(frame: pd.DataFrame, choice: Choice, named: str = "beta") -> Drawn:
    """Draw lines with 95 % bands of the paired difference between two values of a setting.

    Both values have the same fits and the same images.

    Any setting that acts at evaluation only can take the place of beta, as ``named``. The number of shots is
    the largest that the sweep has, unless one is chosen. Hollow markers are changes that the paper states for
    the same method, backbone, test set and shots. Raises BenchError for a setting that changes the fit,
    because then no fit is common to two of its values.
    """
    setting, owner = setting_of(named, frame)
    if owner:
        choice = replace(choice, methods=(owner,))
    swept, notes = _swept(frame, choice, setting)
    shots = max(choice.shots) if choice.shots else int(swept["shots"].max())
    swept = swept[swept["shots"] == shots]
    if swept["dataset"].nunique() > 1:
        names = ", ".join(sorted(swept["dataset"].unique()))
        raise BenchError(f"several datasets have a {setting} sweep ({names}): choose one with --datasets")
    swept = select.one_method(swept, f"a {setting} sweep")
    method, source = swept.iloc[0]["method"], swept.iloc[0]["dataset"]
    points, gaps = _table(swept, setting)
    if not len(points):
        raise BenchError(
            f"the sweep of {setting} has gaps. {' '.join(gaps)} "
            f"`{_command(choice, setting, method)}` fills them"
        )
    backbones = sorted(points["panel"].unique())
    appearances = style.appearances([source, *sorted(set(points["series"]) - {source})])
    what = f"{series.titles(swept)[method]}, {shots_text(shots)} of {source}"
    with style.context():
        wide = min(len(backbones), 2)
        figure, axes = style.canvas(len(backbones), wide, style.PAGE if wide > 1 else style.COLUMN, 2.4)
        for i, (ax, backbone) in enumerate(zip(axes, backbones, strict=True)):
            ax.axhline(0, color=style.GREY, linewidth=0.8, zorder=1)
            mine = points[points["panel"] == backbone]
            for name, appearance in appearances.items():
                if len(own := mine[mine["series"] == name]):
                    style.series(ax, own.sort_values("x"), appearance)
            ax.set(
                title=f"{what} ({backbone})",
                xlabel=setting,
                ylabel="" if i % wide else f"accuracy change (points)\nagainst {setting} = 0",
            )
        published = [
            a for a in anchors() if (a.key, a.start, a.method, a.shots) == (setting, "0", method, shots)
        ]
        drawn = [
            _mark(ax, a, appearances)
            for ax, name in zip(axes, backbones, strict=True)
            for a in published
            if a.backbone == name
        ]
        style.key(figure, appearances, {}, 5 if wide > 1 else 3, style.published_key(any(drawn)))
    alt = f"Change of accuracy with {setting}: {what}, on {', '.join(appearances)}"
    pairing = f"{what}: each difference is paired with the same fit at {setting} = 0."
    seeds = {
        (f"{target} with {backbone}", shots): outcomes.seeds_of(some)
        for (backbone, target), some in swept.groupby(["backbone", "target"])
    }
    return Drawn(figure, points, alt, (*notes, *series.one_seed(seeds), *gaps, pairing))


def _mark(ax: Axes, anchor: Anchor, appearances: dict[str, style.Appearance]) -> bool:
    """Draw a published change if its test set is shown, and return whether it is."""
    appearance = next(
        (
            appearance
            for name, appearance in appearances.items()
            if canonical(name) == canonical(anchor.dataset)
        ),
        None,
    )
    if appearance is not None:
        ax.plot(
            [float(anchor.at)],
            [anchor.value],
            color=appearance.colour,
            marker=appearance.marker,
            **style.PUBLISHED,
        )
    return appearance is not None


def _swept(frame: pd.DataFrame, choice: Choice, setting: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of fits that were evaluated at several values of the setting and changed nothing else.

    Each of these fits was evaluated at 0 and at least two other values.
    """
    own, notes = select.for_figures(frame, select.any_shots(choice))
    own = own[own["status"] == "ok"]
    own = own[own["shots"].isin(choice.shots)] if choice.shots else own
    own = own.assign(x=[values.get(setting) for values in own["values"]])
    fits = [
        isinstance(x, int | float) and (v == "" or _only_changes(setting, v))
        for x, v in zip(own["x"], own["variant"], strict=True)
    ]
    own = own[np.asarray(fits, dtype=bool)]
    own = own.assign(x=own["x"].astype(float))
    each = own.groupby("fit")["x"]
    whole = (each.transform("nunique") >= 3) & (each.transform("min") == 0)
    if not whole.any():
        method, acts, value = kind(frame, choice, Setting(setting))
        if acts == "fit":
            raise BenchError(
                f"{setting} changes the fit of {method}, so this figure cannot pair its values; "
                f"`{_sweep(choice, setting, method)}` draws them"
            )
        if isinstance(value, bool | str):
            raise BenchError(
                f"{setting} of {method} is not a number, so this figure cannot place its values on an axis; "
                f"`{_sweep(choice, setting, method)}` draws them side by side"
            )
        raise BenchError(
            f"no records of a sweep of {setting} that starts at 0; "
            f"`{_command(choice, setting, method)}` makes them, without fitting again"
        )
    return own[whole], notes


def _only_changes(setting: str, variant: str) -> bool:
    return variant.startswith(f"{setting}=") and ", " not in variant


def _command(choice: Choice, setting: str, method: str) -> str:
    sweep = shlex.join(["--methods", method, "--sweep", f"{method}.{setting}=0:2:0.1"])
    return select.run_command(choice, f"{sweep} --targets")


def _sweep(choice: Choice, setting: str, method: str) -> str:
    return command("plot", shlex.join(["sweep", "--setting", f"{method}.{setting}"]), choice.results)


def _table(swept: pd.DataFrame, setting: str) -> tuple[pd.DataFrame, list[str]]:
    rows, notes = [], []
    for (backbone, target), group in swept.groupby(["backbone", "target"]):
        seeds = set(group["seed"])
        base = group[group["x"] == 0]
        if not outcomes.complete(base, seeds):
            notes.append(f"Left out: {target} with {backbone} has no record at {setting} = 0 for every seed.")
            continue
        frozen = outcomes.stacked(base)
        for x, cell in group.groupby("x"):
            if not outcomes.complete(cell, seeds):
                notes.append(f"Left out: {target} with {backbone} lacks seeds at {setting} = {x:g}.")
                continue
            i = difference_interval(outcomes.stacked(cell), frozen)
            # 0 is compared with itself, so that nothing can vary.
            low, high = (0.0, 0.0) if x == 0 else (100 * i.low, 100 * i.high)
            rows.append((backbone, target, x, 100 * i.estimate, low, high))
    return pd.DataFrame(rows, columns=["panel", "series", "x", "y", "low", "high"]), notes
