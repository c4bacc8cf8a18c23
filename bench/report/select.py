"""Choose the rows of the frame that a table, a figure or a comparison shows.

Tables (``for_tables``) show every protocol and preset that is not ruled out, as rows of their own. Figures
(``for_figures``) show one protocol and one preset.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.names import RECIPE, TEST_ORACLE, canonical, nearest
from bench.report.command import command
from bench.report.coordinates import EVALUATION, ROW
from bench.report.wording import shots_list


@dataclass(frozen=True)
class Choice:
    """What to show; an empty value or None means everything that is there.

    ``variants``: show rows with changed settings too. ``first``: methods that keep their colours in a figure
    of more methods than it can tell apart. ``results``: the results folders, which printed commands name.
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
    results: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        *,
        methods: Sequence[str] = (),
        datasets: Sequence[str] = (),
        shots: Sequence[int] = (),
        backbone: str | None = None,
        prompts: Sequence[str] = (),
        protocol: str | None = None,
        preset: str | None = None,
        variants: bool = False,
        first: Sequence[str] = (),
    ) -> Choice:
        """Return what to show of a DataFrame from ``load_results``, which knows its results folders."""
        return cls(
            tuple(methods),
            tuple(datasets),
            tuple(shots),
            backbone,
            tuple(prompts),
            protocol,
            preset,
            variants,
            tuple(first),
            tuple(frame.attrs.get("folders", ())),
        )


def only(frame: pd.DataFrame, column: str, names: Sequence[str]) -> pd.DataFrame:
    """Return the rows whose ``column`` is one of ``names``, or all rows for no names.

    Raises BenchError for a name without records.
    """
    if not names:
        return frame
    known = {canonical(n): n for n in frame[column].unique()}
    for name in names:
        if canonical(name) not in known:
            digits = re.compile(re.escape(canonical(name)) + "-[0-9a-f]{6}")
            apart = [k for c, k in known.items() if digits.fullmatch(c)]
            if len(apart) > 1:
                raise BenchError(f"'{name}' is the name of several datasets: choose {' or '.join(apart)}")
            raise BenchError(f"no records of {column} '{name}'{nearest(name, known.values())}; run it first")
    return frame[frame[column].isin([known[canonical(n)] for n in names])]


def called(frame: pd.DataFrame, names: Sequence[str] = ()) -> pd.DataFrame:
    """Add rows for prompt sets that produce the same texts.

    Example: for a dataset where ``coop`` and ``hand`` have equal prompts, a fit is recorded under ``coop``
    alone. The frame then gets a copy of that row named ``hand``, unless it has one. Copies are made for names
    that the same table row has on other datasets, and for those of ``names`` that have no records at all.
    """
    own = set(frame["prompts"].map(canonical))
    some = frame[frame["also"].map(len) > 0]
    other = some.assign(prompts=some["also"]).explode("prompts").dropna(subset=["prompts"])
    wanted = other["prompts"].map(canonical).isin({canonical(n) for n in names} - own)
    wanted |= _in(other, frame, ROW)
    return pd.concat([frame, other[wanted & ~_in(other, frame, EVALUATION)]], ignore_index=True)


def _in(rows: pd.DataFrame, frame: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.bool_]:
    """Return which rows have coordinates in these columns that a row of the frame has too."""
    there = set(zip(*(frame[c].tolist() for c in columns), strict=True))
    mine = zip(*(rows[c].tolist() for c in columns), strict=True)
    return np.fromiter((one in there for one in mine), dtype=bool, count=len(rows))


def at_shots(frame: pd.DataFrame, shots: Sequence[int]) -> pd.DataFrame:
    """Return the rows with these numbers of shots and those without any.

    Raises BenchError if only other numbers of shots have records.
    """
    there = sorted(set(frame["shots"]) - {0})
    if shots and there and not set(shots) & set(there):
        raise BenchError(f"no records of {shots_list(shots)}; there are some of {shots_list(there)}")
    return frame[frame["shots"].isin([0, *shots])] if shots else frame


def for_tables(frame: pd.DataFrame, choice: Choice) -> tuple[pd.DataFrame, list[str]]:
    """Return the chosen rows, and notes on rows that were left out without being asked for.

    Raises BenchError for names without records.
    """
    frame = _named(frame, choice)
    frame = only(frame, "protocol", (choice.protocol,) if choice.protocol else ())
    frame = only(frame, "preset", (choice.preset,) if choice.preset else ())
    frame = _drawn(frame, choice)
    if choice.variants:
        return frame, []
    has_plain = set(frame[frame["variant"] == ""]["method"])
    kept = frame[(frame["variant"] == "") | ~frame["method"].isin(has_plain)]
    left_out = sorted(set(frame["method"]) & set(frame.drop(kept.index)["method"]))
    hint = (
        f"Left out: rows of {', '.join(left_out)} with changed settings; "
        f"--variants or `{command('table', 'ablation', choice.results)}` shows them."
    )
    return kept, [hint] if left_out else []


def for_figures(frame: pd.DataFrame, choice: Choice) -> tuple[pd.DataFrame, list[str]]:
    """Return the chosen rows of one protocol and preset, and notes.

    Raises BenchError for names without records, and if the protocol or the preset is left open.
    """
    notes = list(frame.attrs.get("notes", ()))
    frame = _drawn(_named(frame, choice), choice)
    protocol = choice.protocol or usual_protocol(frame)
    frame = only(frame, "protocol", (protocol,) if protocol else ())
    require_one(frame, "protocol", "records of several protocols")
    if (frame["protocol"] == TEST_ORACLE).any():
        notes.append(f"Protocol {TEST_ORACLE}: hyper-parameters were chosen on the test images.")
    frame = only(frame, "preset", (choice.preset,) if choice.preset else ())
    if len(frame) and frame.groupby("backbone")["preset"].nunique().max() > 1:
        require_one(frame, "preset", "records of several presets")
    return frame, notes


def _named(frame: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    """Return the rows of the methods, the datasets and the backbone of a choice."""
    frame = only(frame, "method", choice.methods)
    frame = only(frame, "dataset", choice.datasets)
    return only(frame, "backbone", (choice.backbone,) if choice.backbone else ())


def _drawn(frame: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    """Return the rows with the numbers of shots and the prompt sets of a choice.

    Imported rows pass every choice of prompt sets, because nothing is known of theirs.
    """
    rows = called(at_shots(frame, choice.shots), choice.prompts)
    imported = rows["imported"].astype(bool)
    if imported.all():
        return rows
    chosen = only(rows, "prompts", choice.prompts)
    return rows[rows.index.isin(chosen.index) | imported]


def usual_protocol(frame: pd.DataFrame) -> str | None:
    """Return the protocol that counts if none is asked for, or None if no record has it."""
    return RECIPE if (frame["protocol"] == RECIPE).any() else None


def plain(frame: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    """Return the rows of methods with default settings, with one prompt set each.

    It is the most common prompt set that the method has.
    """
    frame = frame[frame["variant"] == ""]
    if choice.prompts or not len(frame):
        return frame
    count = frame.groupby("prompts")["method"].nunique()
    usual = {p: i for i, p in enumerate(sorted(count.index, key=lambda p: (-count[p], p)))}
    best = frame.groupby("method")["prompts"].agg(lambda p: min(p.unique(), key=lambda name: usual[name]))
    return frame[frame["prompts"] == frame["method"].map(best)]


def own_tests(frame: pd.DataFrame, choice: Choice) -> tuple[pd.DataFrame, list[str]]:
    """Return default rows of one backbone on each dataset's own test images, and notes.

    Raises BenchError if a choice is left open or no row uses labels.
    """
    own, notes = for_figures(frame[frame["target"] == frame["dataset"]], choice)
    own = one_backbone(plain(own, choice))
    several = own.groupby("method")["prompts"].nunique()
    if len(several) and several.max() > 1:
        raise BenchError(
            f"{several.idxmax()} has several of the prompt sets {', '.join(choice.prompts)}: "
            "choose one with --prompts"
        )
    if not (own["shots"] > 0).any():
        raise BenchError(
            f"no few-shot records to draw; make some with `{run_command(choice, '--shots 1,4,16')}`"
        )
    return own, notes


def require_one(frame: pd.DataFrame, column: str, problem: str, flag: str | None = None) -> None:
    """Raise BenchError if a column has several values.

    The message has the problem, the values and the flag that chooses one (by default the column's name).
    """
    values = sorted(map(str, frame[column].unique()))
    if len(values) > 1:
        raise BenchError(f"{problem} ({', '.join(values)}): choose one with --{flag or column}")


def one_backbone(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame itself. Raises BenchError if its records have several backbones."""
    require_one(frame, "backbone", "records of several backbones")
    return frame


def one_method(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return the frame itself. Raises BenchError if several methods have ``what``."""
    require_one(frame, "method", f"several methods have {what}", "methods")
    return frame


def run_command(choice: Choice, rest: str) -> str:
    """Return the ``bench run`` that makes the records of a choice, with ``rest`` (already quoted).

    The command names the results folder and is quoted for a shell.
    """
    lists = (("methods", choice.methods), ("datasets", choice.datasets), ("prompts", choice.prompts))
    flags = [
        f"--{name} {shlex.quote(','.join(values))}"
        for name, values in lists
        if values and f"--{name} " not in rest
    ]
    flags += (
        [f"--shots {','.join(map(str, choice.shots))}"] if choice.shots and "--shots " not in rest else []
    )
    flags += [f"--backbone {shlex.quote(choice.backbone)}"] if choice.backbone else []
    flags += [f"--protocol {choice.protocol}"] if choice.protocol else []
    flags += [f"--preset {choice.preset}"] if choice.preset else []
    return command("run", " ".join([*flags, rest]).strip(), choice.results)


def any_shots(choice: Choice) -> Choice:
    """Return the same choice for every number of shots."""
    return replace(choice, shots=())


def in_order(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Sort ``names`` in the order of ``wanted``, and the others behind them by name."""
    rank = {canonical(d): i for i, d in enumerate(wanted)}
    return sorted(names, key=lambda d: (rank.get(canonical(d), len(rank)), d))
