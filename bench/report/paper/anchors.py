"""Read published numbers for a value of a setting (Fig. 5) or for a prompt set (Fig. 8).

The note of such a number, an anchor, says where it stands: ``beta=0.9`` or ``prompts=cupl``. If the number is
a difference, ``; change in points against beta=0`` follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

from bench.report.paper.numbers import published

PROMPTS = "prompts"


@dataclass(frozen=True)
class Anchor:
    """A published number at ``key=value``.

    ``start``: the value from which it is a change, None for an accuracy. ``value``: the number in points or
    percent; ``printed``: the same as printed. ``remark``: what else the note says.
    """

    method: str
    backbone: str
    shots: int
    dataset: str
    key: str
    at: str
    start: str | None
    value: float
    printed: str
    remark: str

    @property
    def setting(self) -> str:
        """Return the setting as ``beta=0.9 against beta=0``."""
        return f"{self.key}={self.at}" + ("" if self.start is None else f" against {self.key}={self.start}")


def anchors(source: str = "paper") -> list[Anchor]:
    """List the anchors of a source in the order of its files. Tables of other shapes have none."""
    quoted = []
    for number in published(source).to_dict("records"):
        words = [part.strip() for part in str(number["note"]).split(";")]
        place = re.fullmatch(r"(\w+)=(\S+)", words[0])
        if place is None or pd.isna(number["value"]) or pd.isna(number["shots"]):
            continue
        key, at = place.groups()
        against = [m[1] for w in words if (m := re.fullmatch(rf"change in points against {key}=(\S+)", w))]
        rest = "; ".join(w for w in words[1:] if not w.startswith("change in points"))
        start = against[0] if against else None
        where = (str(number["method"]), str(number["backbone"]), int(number["shots"]), str(number["dataset"]))
        quoted.append(Anchor(*where, key, at, start, float(number["value"]), str(number["printed"]), rest))
    return quoted
