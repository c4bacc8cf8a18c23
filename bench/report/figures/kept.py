"""Read, for figures of one dataset, what the evaluations of each method keep of every test image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from bench.errors import BenchError
from bench.metrics import Outputs
from bench.names import canonical
from bench.report import select
from bench.report.coordinates import IMPORTED
from bench.report.figures import outcomes, series
from bench.report.outputs import stacked_outputs
from bench.report.select import Choice
from bench.report.wording import kept_of, listed, shots_list, shots_text


@dataclass(frozen=True)
class Kept:
    """What one method keeps of the test images: its outputs by seed, all over the same classes."""

    method: str
    title: str
    shots: int
    seeds: tuple[int, ...]
    outputs: tuple[Outputs, ...]


def rows_of(frame: pd.DataFrame, choice: Choice, what: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows that the figure ``what`` shows, and notes.

    They are default rows with one backbone, on the own test images of one dataset, at one number of shots
    or at none. Raises BenchError if a choice is left open or nothing is recorded.
    """
    whole, notes = select.for_figures(frame[frame["target"] == frame["dataset"]], choice)
    own = select.one_backbone(select.plain(whole, choice))
    if not len(own):
        raise BenchError(
            f"plot {what}: no records to draw; make some with `{select.run_command(choice, '')}`"
        )
    select.require_one(own, "dataset", f"plot {what} shows one dataset, and there are several", "datasets")
    numbers = sorted(set(own["shots"]) - {0})
    if len(numbers) > 1:
        raise BenchError(f"plot {what}: records of {shots_list(numbers)}: choose one number with --shots")
    several = own.groupby("method")["prompts"].nunique()
    if several.max() > 1:
        raise BenchError(
            f"{several.idxmax()} has several of the prompt sets {', '.join(choice.prompts)}: "
            "choose one with --prompts"
        )
    return own, [*notes, *_prompt_notes(own, whole), *_missing(own, frame, choice)]


def _prompt_notes(own: pd.DataFrame, whole: pd.DataFrame) -> list[str]:
    """Say which prompt sets the methods have here, and which others were recorded."""
    sets: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for method, group in own.groupby("method"):
        drawn = str(group["prompts"].iloc[0])
        if drawn != IMPORTED:
            sets.setdefault(drawn, []).append(str(method))
        rows = whole[(whole["method"] == method) & (whole["variant"] == "")]
        for name in sorted(set(rows["prompts"]) - {drawn}):
            others.setdefault(name, []).append(str(method))
    notes = []
    if sets:
        several = [f"{name} ({listed(of, len(of))})" for name, of in sorted(sets.items())]
        said = several if len(sets) > 1 else list(sets)
        notes.append(f"Prompt set{'s' if len(sets) > 1 else ''}: {', '.join(said)}.")
    if others:
        away = "; ".join(f"{name} of {listed(of, len(of))}" for name, of in sorted(others.items()))
        notes.append(f"Left out: prompts {away}; --prompts chooses others.")
    return notes


def _missing(own: pd.DataFrame, frame: pd.DataFrame, choice: Choice) -> list[str]:
    """Name the methods that were asked for and have no row that fits the other options."""
    there = set(own["method"].map(canonical))
    named = {canonical(str(name)): str(name) for name in frame["method"].unique()}
    lost = [named.get(canonical(name), name) for name in choice.methods if canonical(name) not in there]
    if not lost:
        return []
    of = f" with prompts {' or '.join(choice.prompts)}" if choice.prompts else ""
    at = f" at {shots_list(choice.shots)}" if choice.shots else ""
    has = "has" if len(lost) == 1 else "have"
    return [
        f"Left out: {listed(lost, len(lost))}, which {has} no records of unchanged settings{of}{at} here."
    ]


def read(
    own: pd.DataFrame, choice: Choice, what: str, needs: Sequence[str], most: int
) -> tuple[list[Kept], list[str]]:
    """Return what at most ``most`` methods keep, and notes on methods that are not drawn.

    A method is left out if one of its seeds failed. Of the others, the seeds are kept whose evaluations have
    the fields of ``needs`` (names of ``Outputs``); packed records may have them of the first seed alone. A
    method is left out if no seed has them. Of more than ``most`` methods, those of ``choice.first`` are
    drawn, then the most accurate ones. Raises BenchError if none is left, or if more than ``most`` were asked
    for by name.
    """
    titles = series.titles(own)
    failed, found = [], list[Kept]()
    without: dict[bool, list[str]] = {False: [], True: []}  # by whether the method was imported
    some: dict[str, list[str]] = {}
    for method, group in own.groupby("method"):
        if not outcomes.complete(group, set(group["seed"])):
            failed.append(str(method))
            continue
        group = group.sort_values("seed")
        outputs = stacked_outputs(group["path"].tolist())
        every = list(map(int, group["seed"]))
        kept = {seed: one for seed, one in zip(every, outputs, strict=True) if one.has(needs)}
        if not kept:
            without[bool(group["imported"].any())].append(str(method))
            continue
        if len(kept) < len(every):
            some.setdefault(kept_of([s for s in every if s not in kept], every), []).append(str(method))
        shots = int(group["shots"].max())
        found.append(Kept(str(method), titles[str(method)], shots, tuple(kept), tuple(kept.values())))
    notes = _without_notes(without, choice)
    notes += [f"{listed(names, len(names))}: {seeds} probabilities." for seeds, names in some.items()]
    if failed:
        notes.append(f"Left out, because a seed failed: {listed(failed, len(failed))}.")
    if not found:
        raise BenchError(f"plot {what}: there is nothing to draw. {' '.join(notes)}")
    drawn, others = _drawn(found, own, choice, what, most)
    if others:
        notes.append(f"Not drawn: {', '.join(others)}; --methods chooses what is drawn.")
    return drawn, [*notes, *seed_notes(drawn)]


def _without_notes(without: Mapping[bool, Sequence[str]], choice: Choice) -> list[str]:
    """Name the methods without probabilities (by whether they were imported), and what mends it."""
    notes = []
    if names := without[False]:
        again = select.run_command(choice, "--fresh")
        notes.append(
            f"Left out, because their records hold no probabilities: {listed(names, len(names))}; "
            f"`{again}` measures them again."
        )
    if names := without[True]:
        notes.append(
            f"Left out, because they were imported without probabilities: {listed(names, len(names))}; "
            "import them again with p_CLASS columns."
        )
    return notes


def place(own: pd.DataFrame, drawn: Sequence[Kept]) -> str:
    """Return the dataset and the number of shots in words: ``emoji, 16 shots``."""
    return f"{own['dataset'].iloc[0]}, {shots_text(max(one.shots for one in drawn))}"


def seed_notes(drawn: Sequence[Kept]) -> list[str]:
    """Return notes on methods with other seeds than most, and on intervals over one seed."""
    seeds = {(one.method, one.shots): one.seeds for one in drawn}
    return [*series.one_seed(seeds), *series.other_seeds(seeds)]


def _drawn(
    found: Sequence[Kept], own: pd.DataFrame, choice: Choice, what: str, most: int
) -> tuple[list[Kept], list[str]]:
    """Return the methods that are drawn, and the names of the others."""
    if choice.methods:
        wanted = [canonical(name) for name in choice.methods]
        if len(found) > most:
            raise BenchError(f"plot {what} shows at most {most} methods: name fewer with --methods")
        return sorted(found, key=lambda one: wanted.index(canonical(one.method))), []
    first = {canonical(name) for name in choice.first}
    means = own.groupby("method")["accuracy"].mean()
    order = sorted(
        found, key=lambda one: (canonical(one.method) not in first, -means[one.method], one.method)
    )
    kept = sorted(order[:most], key=lambda one: (one.shots > 0, one.method))
    return kept, sorted(one.method for one in order[most:])
