"""Draw one method with several prompt sets against images per class (Fig. 8 of the paper).

Accuracies are averaged over datasets.
"""

from __future__ import annotations

import shlex

import pandas as pd

from bench.errors import BenchError
from bench.names import canonical
from bench.report import select
from bench.report.figures import outcomes, series, style
from bench.report.figures.style import Drawn
from bench.report.paper.anchors import anchors
from bench.report.select import Choice, one_backbone
from bench.stats import average_interval

_SPREAD = 0.34  # share of the step between two numbers of shots over which the prompt sets are spread


def draw(frame: pd.DataFrame, choice: Choice) -> Drawn:
    """Draw points with 95 % interval bars, one colour per prompt set, on the datasets that all of them have.

    Hollow markers are accuracies that the paper states for the same method, backbone, dataset and shots.
    """
    own, notes = _several(frame, choice)
    sets = sorted(own["prompts"].unique(), key=lambda p: _quality(own, p))
    datasets = sorted(set.intersection(*(set(own[own["prompts"] == p]["dataset"]) for p in sets)))
    if not datasets:
        raise BenchError(
            f"no dataset has all of the prompt sets {', '.join(sets)}: choose some with --prompts"
        )
    points, gaps = _table(own, sets, datasets)
    method = own.iloc[0]["method"]
    if not len(points):
        command = select.run_command(choice, shlex.join(["--methods", method]))
        raise BenchError(
            f"no prompt set has all results that the figure needs. {' '.join(gaps)} "
            f"`{command}` runs what is missing"
        )
    equal = _equal(own[own["dataset"].isin(datasets)], sets)
    labelled = set(own[own["label_prompts"].astype(bool)]["prompts"])
    shots = sorted(own["shots"].unique())
    by_name = style.appearances(sorted(sets))  # the same colours in every figure of these sets
    appearances = {name: by_name[name] for name in sets}
    cell = ("prompts", None, method, own.iloc[0]["backbone"], [canonical(d) for d in datasets])
    published = [
        a for a in anchors() if (a.key, a.start, a.method, a.backbone, [canonical(a.dataset)]) == cell
    ]
    with style.context():
        figure, (ax,) = style.canvas(1, 1, style.COLUMN, 2.5)
        for i, (name, appearance) in enumerate(appearances.items()):
            mine = points[points["series"] == name].sort_values("shots")
            aside = _SPREAD * (i / max(len(sets) - 1, 1) - 0.5)
            style.series(ax, mine.assign(x=mine["x"] + aside), appearance, band=False)
            for x, n in enumerate(shots):
                for a in published:
                    if (a.at, a.shots) == (name, n):
                        ax.plot(
                            [x + aside],
                            [a.value],
                            color=appearance.colour,
                            marker=appearance.marker,
                            **style.PUBLISHED,
                        )
        ax.set_xticks(range(len(shots)), [str(s) for s in shots])
        ax.set(xlabel=style.SHOTS, ylabel=style.accuracy(datasets), title=series.titles(own)[method])
        ax.set_xlim(-0.5, len(shots) - 0.5)
        marked = any(a.at in appearances and a.shots in shots for a in published)
        names = {p: f"{p} (uses labels)" for p in labelled} | equal
        style.key(figure, appearances, names, 3, style.published_key(marked))
    over = "average over " if len(datasets) > 1 else ""
    shown = ", ".join(equal.get(p, p) for p in sets)
    alt = f"Accuracy of {method} with the prompt sets {shown}, {over}{', '.join(datasets)}"
    return Drawn(figure, points, alt, (*notes, *gaps))


def _several(frame: pd.DataFrame, choice: Choice) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of the one method that has several prompt sets.

    Rows without labels are taken only if no method with labels has several.
    """
    own, notes = select.for_figures(
        frame[(frame["target"] == frame["dataset"]) & (frame["variant"] == "")], choice
    )
    own = one_backbone(own)
    few = own[own["shots"] > 0]
    for rows in (few, own):
        several = rows[rows.groupby("method")["prompts"].transform("nunique") > 1] if len(rows) else rows
        if len(several):
            return select.one_method(several, "several prompt sets"), notes
    method = choice.methods[0] if choice.methods else "safe"
    command = select.run_command(
        choice, shlex.join(["--methods", method, "--prompts", "class-name,vanilla,coop,hand"])
    )
    raise BenchError(f"no method has records of two prompt sets; make them with `{command}`")


def _equal(own: pd.DataFrame, sets: list[str]) -> dict[str, str]:
    """Name the sets whose texts others share on all these datasets, as ``vanilla = coop``.

    The others are not drawn.
    """
    others = {
        name: set.intersection(*map(set, own[own["prompts"] == name]["also"])) - set(sets) for name in sets
    }
    return {name: " = ".join([name, *sorted(more)]) for name, more in others.items() if more}


def _table(own: pd.DataFrame, sets: list[str], datasets: list[str]) -> tuple[pd.DataFrame, list[str]]:
    rows = []
    gaps: dict[tuple[str, int], list[str]] = {}
    seeds: dict[tuple[str, int], tuple[int, ...]] = {}
    for name in sets:
        for x, shots in enumerate(sorted(own["shots"].unique())):
            group = own[(own["prompts"] == name) & (own["shots"] == shots)]
            cells = outcomes.by_dataset(group, datasets, set(group["seed"]))
            if cells is None:
                gaps[name, int(shots)] = []
                continue
            i = average_interval(cells)
            seeds[name, int(shots)] = outcomes.seeds_of(group)
            rows.append(("", name, shots, float(x), 100 * i.estimate, 100 * i.low, 100 * i.high))
    points = pd.DataFrame(rows, columns=["panel", "series", "shots", "x", "y", "low", "high"])
    return points, [*series.one_seed(seeds), *series.other_seeds(seeds), *series.gaps(gaps)]


def _quality(own: pd.DataFrame, prompts: str) -> tuple[float, str]:
    """Return a sort key that puts the lowest accuracy first in the legend."""
    return float(own[own["prompts"] == prompts]["accuracy"].mean()), prompts
