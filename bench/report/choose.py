"""Which records a table shows, and how its rows are named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.names import canonical, nearest
from bench.report.current import CELL

IDENTITY = ("backbone", "method", "shots", "prompts", "protocol", "preset", "variant")
DEFAULT_PROTOCOL = "recipe"


@dataclass(frozen=True)
class Choice:
    """What to show; empty or None means everything that is there. ``variants``: rows with changed settings
    too.

    ``first``: methods that keep their colours in a figure of more than it can tell apart.
    """

    methods: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    shots: tuple[int, ...] = ()
    backbone: str | None = None
    prompts: tuple[str, ...] = ()
    protocol: str | None = None
    preset: str | None = None
    variants: bool = False
    first: tuple[str, ...] = ()


def only(frame: pd.DataFrame, column: str, names: Sequence[str]) -> pd.DataFrame:
    """Rows whose ``column`` is one of ``names``; all for no names. BenchError for a name without records."""
    if not names:
        return frame
    known = {canonical(n): n for n in frame[column].unique()}
    for name in names:
        if canonical(name) not in known:
            raise BenchError(f"no records of {column} '{name}'{nearest(name, known.values())}; run it first")
    return frame[frame[column].isin([known[canonical(n)] for n in names])]


def called(frame: pd.DataFrame, names: Sequence[str] = ()) -> pd.DataFrame:
    """The frame with rows of equal texts under their other names too, where a cell has no row under that
    name.

    These are names that the same table row has on other datasets, and those of ``names`` that have no records
    at all.
    """
    row, own = list(IDENTITY), set(frame["prompts"].map(canonical))
    other = frame.assign(prompts=frame["also"]).explode("prompts").dropna(subset=["prompts"])
    wanted = other["prompts"].map(canonical).isin({canonical(n) for n in names} - own)
    wanted |= pd.MultiIndex.from_frame(other[row]).isin(pd.MultiIndex.from_frame(frame[row]))
    cells, more = (pd.MultiIndex.from_frame(rows[list(CELL)]) for rows in (frame, other))
    return pd.concat([frame, other[wanted & ~more.isin(cells)]], ignore_index=True)


def at_shots(frame: pd.DataFrame, shots: Sequence[int]) -> pd.DataFrame:
    """Rows with these numbers of shots, and those without any. BenchError where there are other
    numbers only.
    """
    there = sorted(set(frame["shots"]) - {0})
    if shots and there and not set(shots) & set(there):
        raise BenchError(f"no records of {shots_list(shots)}; there are some of {shots_list(there)}")
    return frame[frame["shots"].isin([0, *shots])] if shots else frame


def pick(frame: pd.DataFrame, choice: Choice) -> tuple[pd.DataFrame, list[str]]:
    """The chosen rows, and notes on what was left out without being asked for."""
    for column, names in (("method", choice.methods), ("dataset", choice.datasets)):
        frame = only(frame, column, names)
    for column, name in (
        ("backbone", choice.backbone),
        ("protocol", choice.protocol),
        ("preset", choice.preset),
    ):
        frame = only(frame, column, (name,) if name else ())
    frame = at_shots(frame, choice.shots)
    frame = only(called(frame, choice.prompts), "prompts", choice.prompts)
    if choice.variants:
        return frame, []
    has_plain = set(frame[frame["variant"] == ""]["method"])
    kept = frame[(frame["variant"] == "") | ~frame["method"].isin(has_plain)]
    left_out = sorted(set(frame["method"]) & set(frame.drop(kept.index)["method"]))
    hint = (
        f"left out: rows of {', '.join(left_out)} with changed settings (`bench table ablation`, or "
        "--variants)"
    )
    return kept, [hint] if left_out else []


def one_backbone(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame itself. Raises BenchError when its records are of several backbones."""
    names = sorted(frame["backbone"].unique())
    if len(names) > 1:
        raise BenchError(f"records of several backbones ({', '.join(names)}): choose one with --backbone")
    return frame


def in_order(found: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """``found`` in the order of ``wanted``, the others behind by name."""
    rank = {canonical(d): i for i, d in enumerate(wanted)}
    return sorted(found, key=lambda d: (rank.get(canonical(d), len(rank)), d))


class Namer:
    """Names rows by their method and by whatever tells its rows apart."""

    def __init__(self, frame: pd.DataFrame) -> None:
        by_method = (
            frame.groupby(["method", "backbone"])[["prompts", "preset"]].nunique().groupby("method").max()
        )
        self.several = {c: by_method[c].gt(1).to_dict() for c in ("prompts", "preset")}
        self.titles = dict(zip(frame["method"], frame["title"], strict=True))
        self.labelled = set(frame[frame["label_prompts"].astype(bool)]["prompts"])

    def __call__(self, key: Mapping[str, Any], variant: bool = True) -> tuple[str, str]:
        """(for people, with titles and warnings; for machines, with names) of a row with these
        coordinates.
        """
        method, prompts = str(key["method"]), str(key["prompts"])
        seen, plain = [], []
        if prompts in self.labelled:
            seen.append(f"{prompts}: uses labels")
            plain.append(prompts)
        elif self.several["prompts"].get(method):
            seen.append(prompts)
            plain.append(prompts)
        rest = [str(key["preset"])] if self.several["preset"].get(method) else []
        rest += [str(key["protocol"])] if key["protocol"] != DEFAULT_PROTOCOL else []
        rest += [str(key["variant"])] if variant and key["variant"] else []
        return _joined(self.titles.get(method, method), [*seen, *rest]), _joined(method, [*plain, *rest])


def _joined(name: str, extra: list[str]) -> str:
    if not extra:
        return name
    return f"{name[:-1]}, {', '.join(extra)})" if name.endswith(")") else f"{name} ({', '.join(extra)})"


def shots_text(n: int) -> str:
    """``16 shots``, ``1 shot``, ``zero-shot``."""
    return f"{n} shot{'s' if n > 1 else ''}" if n else "zero-shot"


def shots_list(numbers: Iterable[int]) -> str:
    """``1, 2 and 4 shots``."""
    some = sorted(set(numbers))
    return f"{listed([str(n) for n in some], len(some))} shots" if len(some) > 1 else shots_text(some[0])


def listed(names: Sequence[str], most: int = 6, noun: str = "methods") -> str:
    """``a, b and c``; more than ``most`` are counted instead: ``26 methods``."""
    if len(names) > most:
        return f"{len(names)} {noun}"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def cells_text(cells: Iterable[tuple[str, int]]) -> str:
    """(name, shots) pairs as ``a and b at 1 and 2 shots; c at 16 shots``."""
    numbers: dict[str, list[int]] = {}
    for name, n in cells:
        numbers.setdefault(name, []).append(n)
    names: dict[tuple[int, ...], list[str]] = {}
    for name, some in numbers.items():
        names.setdefault(tuple(some), []).append(name)
    return "; ".join(f"{listed(group, len(group))} at {shots_list(some)}" for some, group in names.items())
