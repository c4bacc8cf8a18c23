"""Place the values of a setting on an axis: numbers evenly or by factors, words side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from bench.report.frame import short

_FACTOR = 10  # an axis may be logarithmic from this ratio of the largest to the smallest number on
Kind = Literal["linear", "log", "symlog", "words"]


@dataclass(frozen=True)
class Scale:
    """An axis.

    ``at``: the place of every value by its text, in order. ``symlog`` is ``log`` with a place for 0.
    """

    kind: Kind
    at: dict[str, float]

    def on(self, ax: Axes, most: int) -> None:
        """Turn the x axis of ``ax`` into this one, with about ``most`` names."""
        places = list(self.at.values())
        if self.kind == "words":
            tilted = max(map(len, self.at)) * len(places) > 5 * most
            ax.set_xticks(
                places, list(self.at), rotation=30 if tilted else 0, ha="right" if tilted else "center"
            )
            ax.set_xlim(-0.5, len(places) - 0.5)
            return
        if self.kind == "linear":
            if len(places) <= most:
                ax.set_xticks(places, list(self.at))
            else:
                ax.xaxis.set_major_locator(MaxNLocator(most))
            return
        if self.kind == "log":
            ax.set_xscale("log")
        else:
            ax.set_xscale("symlog", linthresh=min(p for p in places if p > 0))
        # Names are kept from the end, so that 0 is the first to go if there are too many.
        shown = list(self.at.items())[:: -math.ceil(len(places) / most)][::-1]
        ax.set_xticks([p for _, p in shown], [name for name, _ in shown])
        ax.xaxis.set_minor_locator(NullLocator())


def scale(values: Iterable[Any]) -> Scale:
    """Return the axis of these values.

    It has words unless all values are numbers, and is logarithmic if that spreads the numbers more evenly.
    """
    by_text = {text(v): v for v in values}
    numbers = [v for v in by_text.values() if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(by_text):
        return Scale("words", {name: float(i) for i, name in enumerate(by_text)})
    at = {name: float(by_text[name]) for name in sorted(by_text, key=lambda name: float(by_text[name]))}
    some = np.array([x for x in at.values() if x > 0])
    if min(at.values()) < 0 or len(some) < 2 or some[-1] < _FACTOR * some[0]:
        return Scale("linear", at)
    if _uneven(np.log(some)) > _uneven(some):
        return Scale("linear", at)
    return Scale("log" if len(some) == len(at) else "symlog", at)


def text(value: Any) -> str:
    """Return the text by which an axis names a value."""
    if isinstance(value, int | float) and not isinstance(value, bool) and float(f"{value:g}") == value:
        return f"{value:g}"
    return short(value)


def _uneven(places: np.ndarray) -> float:
    """Return how much the steps between places differ: 0 for equal steps, and for two places."""
    steps = np.diff(places)
    return float(steps.std() / steps.mean()) if len(steps) > 1 else 0.0
