"""Judge whether methods have become slower than in the baseline, or say in one line why nothing was compared.

A group is a method at a number of shots, as in ``check``. The repeats of one of its cells stand for it.
``bench check --rerun --speed`` (in ``cli``) measures them; this module only compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.names import counted, few
from bench.report.gate.baseline import REFERENCE, Kept
from bench.report.gate.cells import group_name, groups
from bench.stats.speed import Finding, Ratio, Repeat, ratio

LIMIT = 1.5  # ratio of seconds up to which a method counts as equally fast
REPEATS = 5  # repeats of each timed cell
NO_TIMES = (
    "the baseline has no times to compare with; copy it, and write times of this machine into the copy with "
    "--baseline COPY --update --rerun --speed (this writes its predictions anew too)"
)
NOT_ASKED = "add --rerun --speed"
_ORDER: tuple[Finding, ...] = ("slower", "cannot be said", "not slower")
_CLOCKS = {"cpu": "processor time", "wall": "time on the clock"}

Clocks = dict[str, tuple[Sequence[Repeat], Sequence[Repeat]]]  # old and new repeats by clock


@dataclass(frozen=True)
class Pace:
    """The comparison of one group: the ratio of its seconds to the baseline's by clock, ``cpu`` and ``wall``.

    On a GPU there is only ``wall``.
    """

    name: str
    ratios: Mapping[str, Ratio]

    @property
    def finding(self) -> Finding:
        """Return ``slower`` if one clock says so, ``not slower`` if all do, and else ``cannot be said``."""
        return min((one.finding for one in self.ratios.values()), key=_ORDER.index)

    @property
    def reason(self) -> str:
        """Return the numbers behind the finding."""
        return ", ".join(
            f"{one.estimate:.2f} times the baseline's {_CLOCKS[clock]} ({one.low:.2f} to {one.high:.2f})"
            for clock, one in self.ratios.items()
        )


@dataclass(frozen=True)
class Speed:
    """The comparison of speed in a whole check.

    ``missing``: the names of the groups that were not compared, by reason. ``why``: the reason if the check
    timed nothing, and else "". ``limit``: the largest ratio to accept.
    """

    paces: tuple[Pace, ...] = ()
    missing: Mapping[str, Sequence[str]] = field(default_factory=dict)
    why: str = ""
    limit: float = LIMIT

    @property
    def slower(self) -> tuple[Pace, ...]:
        """Return the groups that got slower."""
        return tuple(pace for pace in self.paces if pace.finding == "slower")

    @property
    def lines(self) -> list[str]:
        """Return a line for each compared group, and one for each reason why groups were not compared."""
        said = {
            "slower": f"takes over {self.limit:g} times as long",
            "not slower": "not slower",
            "cannot be said": f"the check cannot say whether it takes over {self.limit:g} times as long",
        }
        lines = [f"speed of {pace.name}: {said[pace.finding]}: {pace.reason}" for pace in self.paces]
        alone = not self.paces and len(self.missing) == 1
        for reason, names in self.missing.items():
            whose = "speed" if alone else f"speed of {few(names)}"
            lines.append(f"{whose} was not compared: {reason}")
        return [*lines, *([f"speed was not compared: {self.why}"] if self.why else [])]

    @property
    def tail(self) -> str:
        """Return what the outcome of the check adds about speed; "" if nothing got slower."""
        groups = f"{len(self.slower)} of {counted(len(self.paces), 'timed group')}"
        return f"; {groups} got slower" if self.slower else ""

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison for JSON. Ratios are new to old seconds; the interval is [low, high]."""
        groups = [
            {
                "name": pace.name,
                "finding": pace.finding,
                **{clock: _rounded(one) for clock, one in pace.ratios.items()},
            }
            for pace in self.paces
        ]
        return {"limit": self.limit, "groups": groups, "lines": self.lines}


def unasked(kept: Iterable[Kept]) -> Speed:
    """Return the comparison of a check without --speed, which only says what to do."""
    return Speed(why=NOT_ASKED if any(k.timing for k in kept) else NO_TIMES)


def chosen(kept: Iterable[Kept]) -> list[Kept]:
    """Return the cell of each group that is timed: of the smallest test set, and there of the first seed."""

    def size(k: Kept) -> tuple[Any, ...]:
        other = k.target != k.cell["dataset"]
        return other, len(k.top1), k.cell["dataset"], k.target, k.cell["seed"]

    return [min(group, key=size) for group in groups(kept).values()]


def timed(kept: Iterable[Kept]) -> list[Kept]:
    """Return the cells that have times."""
    return [k for k in kept if k.timing is not None]


def unlike(old: Kept, new: Kept) -> str:
    """Return why the times of a cell in the baseline cannot be compared with times of here; "" if they can.

    ``new``: the cell as it is timed here; its machine and precision count.
    """
    if old.timing is not None and old.timing.reference != REFERENCE:
        return "another reference workload was timed beside the baseline; use --update --rerun --speed"
    if old.precision != new.precision:
        return f"the baseline's times are of {old.precision} features, these would be of {new.precision}"
    then, now = _machine(old), _machine(new)
    return "" if then == now else f"the baseline's times come from another machine ({then}, here {now})"


def compare(
    old: Iterable[Kept],
    new: Mapping[tuple[Any, ...], Kept],
    why_not: Mapping[tuple[Any, ...], str],
    limit: float = LIMIT,
) -> Speed:
    """Compare the times of a baseline's cells with new times.

    ``new``: the cells with their new times, by identity. ``why_not``: the reasons of cells that have times in
    the baseline and no new ones. The intervals hold for all groups and clocks together.
    """
    pairs: list[tuple[str, Clocks]] = []
    missing: dict[str, list[str]] = {}
    for group in groups(old).values():
        name, ours = group_name(group[0]), timed(group)
        if not ours:
            missing.setdefault(NO_TIMES, []).append(name)
        elif ours[0].identity in new:
            pairs.append((name, _by_clock(ours[0], new[ours[0].identity])))
        else:
            missing.setdefault(why_not[ours[0].identity], []).append(name)
    total = sum(len(clocks) for _, clocks in pairs)
    paces = tuple(
        Pace(name, {clock: ratio(now, then, limit, total) for clock, (then, now) in clocks.items()})
        for name, clocks in pairs
    )
    return Speed(paces, missing, limit=limit)


def _by_clock(old: Kept, new: Kept) -> Clocks:
    """Return the old and the new repeats by clock."""
    then, now = old.timing, new.timing
    assert then is not None and now is not None
    clocks = {"cpu": (then.cpu, now.cpu), "wall": (then.wall, now.wall)}
    return {clock: both for clock, both in clocks.items() if all(both)}


def _rounded(one: Ratio) -> dict[str, Any]:
    return {"ratio": round(one.estimate, 4), "interval": [round(one.low, 4), round(one.high, 4)]}


def _machine(kept: Kept) -> str:
    """Return what decides on speed: the kind of device, its name, threads and the version of torch."""
    device, name, torch, _ = kept.kind
    return ", ".join((device, name, counted(int(kept.machine.get("threads", 0)), "thread"), f"torch {torch}"))
