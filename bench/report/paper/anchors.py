"""Published numbers at values of a setting (Fig. 5) or with a prompt set (Fig. 8).

An anchor's note says where it stands: ``beta=0.9`` or ``prompts=cupl``, then, for a number that is a
difference, ``; change in points against beta=0``.
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

    ``start``: the value that it is a change from, None for an accuracy. ``value`` in points or percent,
    ``printed`` as printed, ``remark`` what else the note says.
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
        """``beta=0.9 against beta=0``."""
        return f"{self.key}={self.at}" + ("" if self.start is None else f" against {self.key}={self.start}")


def anchors(source: str = "paper") -> list[Anchor]:
    """The anchors of a source, in the order of its files; tables of other shapes have none."""
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
