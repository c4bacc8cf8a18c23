"""Which records a figure shows: one protocol and preset, each method as it is by default, one prompt set
each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from bench.errors import BenchError
from bench.names import canonical
from bench.report.choose import DEFAULT_PROTOCOL, Choice, at_shots, called, listed, only, shots_list
from bench.report.choose import one_backbone as one_backbone
from bench.report.tables import ORACLE

COLOURED = (
    6  # methods with colours of their own where none are asked for by name: the best lie close together
)


def narrow(frame: pd.DataFrame, choice: Choice) -> tuple[pd.DataFrame, list[str]]:
    """The rows of the choice, and notes. Raises BenchError for names without records and ambiguous
    presets.
    """
    notes = list(frame.attrs.get("notes", ()))
    for column, names in (("method", choice.methods), ("dataset", choice.datasets)):
        frame = only(frame, column, names)
    frame = only(frame, "backbone", (choice.backbone,) if choice.backbone else ())
    frame = at_shots(frame, choice.shots)
    frame = only(called(frame, choice.prompts), "prompts", choice.prompts)
    protocols = set(frame["protocol"])
    protocol = choice.protocol or (DEFAULT_PROTOCOL if DEFAULT_PROTOCOL in protocols else None)
    if protocol is None and len(protocols) > 1:
        raise BenchError(
            f"records of several protocols ({_listed(frame['protocol'])}): choose one with --protocol"
        )
    frame = only(frame, "protocol", (protocol,) if protocol else ())
    if (frame["protocol"] == ORACLE).any():
        notes.append("test-oracle: hyper-parameters were chosen on the test images")
    frame = only(frame, "preset", (choice.preset,) if choice.preset else ())
    if len(frame) and frame.groupby("backbone")["preset"].nunique().max() > 1:
        raise BenchError(f"records of several presets ({_listed(frame['preset'])}): choose one with --preset")
    return frame, notes


def plain(frame: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    """Methods with their default settings, one prompt set each: the common one where a method has it."""
    frame = frame[frame["variant"] == ""]
    if choice.prompts or not len(frame):
        return frame
    count = frame.groupby("prompts")["method"].nunique()
    usual = {p: i for i, p in enumerate(sorted(count.index, key=lambda p: (-count[p], p)))}
    best = frame.groupby("method")["prompts"].agg(lambda p: min(p.unique(), key=lambda name: usual[name]))
    return frame[frame["prompts"] == frame["method"].map(best)]


def own_tests(frame: pd.DataFrame, choice: Choice) -> tuple[pd.DataFrame, list[str]]:
    """Default rows of one backbone on each dataset's own test images, and notes."""
    own, notes = narrow(frame[frame["target"] == frame["dataset"]], choice)
    own = one_backbone(plain(own, choice))
    several = own.groupby("method")["prompts"].nunique()
    if len(several) and several.max() > 1:
        raise BenchError(
            f"{several.idxmax()} has several of {', '.join(choice.prompts)}: choose one with --prompts"
        )
    if not (own["shots"] > 0).any():
        raise BenchError(f"no few-shot records to draw; make some with `{command(choice, '--shots 1,4,16')}`")
    return own, notes


def one_method(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """The frame itself. Raises BenchError when several methods have ``what``."""
    if frame["method"].nunique() > 1:
        raise BenchError(
            f"several methods have {what} ({_listed(frame['method'])}): choose one with --methods"
        )
    return frame


def titles(frame: pd.DataFrame) -> dict[str, str]:
    """Methods' titles by name; names where two methods share a title."""
    found = dict(zip(frame["method"], frame["title"], strict=True))
    return {m: t if list(found.values()).count(t) == 1 else m for m, t in found.items()}


def command(choice: Choice, rest: str) -> str:
    """The ``bench run`` that makes the records of a choice, with ``rest``."""
    lists = (("methods", choice.methods), ("datasets", choice.datasets), ("prompts", choice.prompts))
    flags = [f"--{name} {','.join(values)}" for name, values in lists if values and f"--{name} " not in rest]
    flags += (
        [f"--shots {','.join(map(str, choice.shots))}"] if choice.shots and "--shots " not in rest else []
    )
    flags += [f"--backbone {choice.backbone}"] if choice.backbone else []
    return " ".join(["bench run", *flags, rest]).strip()


def any_shots(choice: Choice) -> Choice:
    """The same choice for every number of shots."""
    return replace(choice, shots=())


def coloured(own: pd.DataFrame, choice: Choice) -> tuple[list[str], list[str]]:
    """Methods with labels that a figure tells apart by colour, and the others: context, in one grey.

    All where they were asked for by name or are few; else those of ``choice.first``, then the best on average
    at the most shots. ``own``: rows as from ``own_tests``.
    """
    few = own[own["shots"] > 0]
    names = sorted(few["method"].unique())
    if choice.methods or len(names) <= COLOURED:
        return names, []
    means = few[few["shots"] == few["shots"].max()].groupby("method")["accuracy"].mean()
    first = {canonical(m) for m in choice.first}
    order = sorted(names, key=lambda m: (canonical(m) not in first, -means.get(m, 0.0), m))
    return sorted(order[:COLOURED]), sorted(order[COLOURED:])


def others(names: Sequence[str]) -> list[str]:
    """The note on methods in grey."""
    return [f"in grey: {', '.join(names)}; `--methods` chooses which to colour"] if names else []


def gaps(found: Mapping[tuple[str, int], Sequence[str]], panels: Sequence[str] = ()) -> list[str]:
    """Notes on points that are not drawn: which of several ``panels`` each (series, shots) is left out of.

    Series and numbers of shots that lack the same panels share a note.
    """
    names: dict[tuple[int, tuple[str, ...]], list[str]] = {}
    for (name, shots), lacking in found.items():
        names.setdefault((shots, tuple(lacking)), []).append(name)
    numbers: dict[tuple[tuple[str, ...], tuple[str, ...]], list[int]] = {}
    for (shots, some), lacking_there in names.items():
        numbers.setdefault((tuple(lacking_there), some), []).append(shots)
    notes = []
    for (series, some), shots_there in numbers.items():
        kept = [panel for panel in panels if panel not in some]
        where = f" of {listed(some, len(some))}" if kept else ""
        where = f" everywhere but on {listed(kept)}" if 0 < len(kept) < len(some) else where
        notes.append(
            f"{listed(series)}, {shots_list(shots_there)}: left out{where}, seeds or datasets are missing or "
            "failed"
        )
    return notes


def _listed(column: pd.Series) -> str:
    return ", ".join(sorted(map(str, column.unique())))
