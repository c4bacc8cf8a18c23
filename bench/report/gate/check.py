"""Check whether a method has got worse than its baseline.

A group is a method at a number of shots, over all its test sets and seeds. The paired difference of accuracy,
over seeds and images, decides with its interval: a group got worse if the whole interval lies below -margin,
and it held if no part of it does. Otherwise the data cannot say. The intervals of all groups hold together.

On the same kind of machine (processor or accelerator, torch version) and in the same precision, a method
predicts the same classes. There a group has changed if the predictions agree less than a limit, unless the
interval says worse.

Legend: S seeds, n test images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.names import counted, few
from bench.report.coordinates import CELL
from bench.report.gate.baseline import Baseline, Kept
from bench.report.gate.cells import collect, group_name, groups, select
from bench.report.gate.verdict import Finding, Group, Verdict, finding
from bench.report.wording import shots_text
from bench.stats import NonInferiority, non_inferiority

AGREEMENT = 0.995  # least share of equal predictions
MARGIN = 0.01  # largest drop of accuracy to accept, as a fraction
LEVEL = 0.95  # probability, on each side, that the intervals of all groups hold together
RULES = ("auto", "agreement", "accuracy")


def check(
    baseline: Baseline,
    frame: pd.DataFrame,
    margin: float = MARGIN,
    agreement: float = AGREEMENT,
    rule: str = "auto",
) -> Verdict:
    """Compare the records of a frame with a baseline. ``margin`` and ``agreement`` are fractions.

    ``rule``: 'agreement' or 'accuracy' for all cells, or 'auto' to choose by the kind of machine. Raises
    BenchError if cells have no record at all, or were measured on another test set.
    """
    if rule not in RULES:
        raise BenchError(f"--rule {rule}: choose one of {', '.join(RULES)}")
    if not baseline.kept:
        raise BenchError("the baseline has no cells; write another with --update")
    failed = _failures(frame)
    new = {k.identity: k for k in collect(select(frame, baseline))}
    missing = [k for k in baseline.kept if k.identity not in new and k.identity[: len(CELL)] not in failed]
    if missing:
        which = few(map(label, missing), 1)
        raise BenchError(
            f"there is no record of {which}: run the cells first, check with --rerun, or compare with a "
            "baseline of your own (--baseline FILE; --update writes it)"
        )
    judged = [kept for _, kept in sorted(groups(baseline.kept).items(), key=_order)]
    verdicts = tuple(_judge(old, new, failed, margin, agreement, rule, len(judged)) for old in judged)
    return Verdict(verdicts, tuple(_warnings(baseline, new)), tuple(_notes(judged, verdicts)))


def label(kept: Kept) -> str:
    """Describe a kept evaluation in words."""
    c = kept.cell
    where = f"{c['dataset']} on {kept.target}" if kept.target != c["dataset"] else c["dataset"]
    draw = f", {shots_text(c['shots'])}, seed {c['seed']}" if c["shots"] else ""
    return (
        f"{c['method']} {where}{draw} "
        f"({', '.join(filter(None, (c['backbone'], c['prompts'], kept.variant)))})"
    )


def _order(item: tuple[tuple[Any, ...], list[Kept]]) -> tuple[str, str, int, str]:
    c = item[1][0].cell
    return c["backbone"], c["method"], c["shots"], str(item[0])


def _failures(frame: pd.DataFrame) -> dict[tuple[Any, ...], str]:
    """Return the error of every cell with a failed record."""
    rows = frame[frame["status"] == "failed"]
    return dict(zip(map(tuple, rows[list(CELL)].to_numpy().tolist()), rows["error"], strict=True))


def _judge(
    old: list[Kept],
    new: Mapping[tuple[Any, ...], Kept],
    failed: Mapping[tuple[Any, ...], str],
    margin: float,
    limit: float,
    rule: str,
    family: int,
) -> Group:
    """Return the verdict on one group of a family of so many."""
    name = group_name(old[0])
    lost = [k for k in old if k.identity not in new]
    if lost:
        error = failed[lost[0].identity[: len(CELL)]]
        reason = f"{len(lost)} of {counted(len(old), 'cell')} failed: {error}"
        return Group(name, len(old), "failed", False, 0.0, None, reason)
    shares: list[float] = []
    outcomes: dict[tuple[str, str], list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]] = {}
    for kept in sorted(old, key=lambda k: k.cell["seed"]):
        now = new[kept.identity]
        if now.target_digest != kept.target_digest or now.labels is None or len(now.labels) != len(kept.top1):
            raise BenchError(
                f"{kept.target} has changed since the baseline was made: write a new one with --update"
            )
        shares.append(float((now.top1 == kept.top1).mean()))
        cell = (now.top1 == now.labels, kept.top1 == now.labels)
        outcomes.setdefault((kept.cell["dataset"], kept.target), []).append(cell)
    _check_seeds(name, old)
    pairs = [
        (np.stack([a for a, _ in cells]), np.stack([b for _, b in cells])) for cells in outcomes.values()
    ]
    test = non_inferiority(pairs, margin, LEVEL, groups=family, sources=[source for source, _ in outcomes])
    same = all(new[k.identity].kind == k.kind for k in old)
    strict = rule == "agreement" or (rule == "auto" and same)
    share = min(shares)
    found = finding(test, share, limit if strict else None)
    return Group(name, len(old), found, strict, share, test, _reason(found, same, share, limit, test))


def _check_seeds(name: str, group: list[Kept]) -> None:
    """Raise BenchError if the test sets of one fit have different seeds in a group.

    Such test sets share the luck of a draw, so the interval needs them in the same seeds.
    """
    seeds: dict[str, dict[str, set[int]]] = {}
    for k in group:
        seeds.setdefault(k.cell["dataset"], {}).setdefault(k.target, set()).add(k.cell["seed"])
    for dataset, by_target in seeds.items():
        common = set.intersection(*by_target.values())
        if any(some != common for some in by_target.values()):
            mend = f"check with --seeds {','.join(map(str, sorted(common)))}" if common else "write another"
            raise BenchError(
                f"{name}: the baseline has other seeds on some test sets of {dataset} than on others; {mend}"
            )


def _reason(found: Finding, same: bool, share: float, limit: float, test: NonInferiority) -> str:
    """Describe the finding on a group whose cells all ran.

    ``same``: whether the machines are of one kind.
    """
    if share == 1:
        return "equal predictions"
    points = f"{100 * test.margin:g} {'point' if test.margin == 0.01 else 'points'}"
    margin, agreement = f"the margin of -{points}", f"agreement {100 * share:.2f} %"
    low, high = 100 * test.interval.low, 100 * test.interval.high
    moved = f"accuracy changed by {100 * test.interval.estimate:+.2f} points ({low:+.2f} to {high:+.2f})"
    if found == "changed":
        held = "the accuracy has held" if test.passed else f"a drop beyond {margin} is not ruled out"
        where = " on the same kind of machine" if same else ""
        return (
            f"{agreement} is below {100 * limit:g} %{where}; {moved}; {held}; "
            "if the change is intended, use --update"
        )
    said: dict[Finding, str] = {
        "worse": f"all of this interval is below {margin}",
        "undecided": f"this interval reaches below {margin}, so this may be a drop, or rounding",
    }
    return f"{moved}{': ' if found in said else ''}{said.get(found, '')}; {agreement}"


def _notes(groups: list[list[Kept]], verdicts: tuple[Group, ...]) -> list[str]:
    """Return sentences about what the intervals mean and what they do not cover."""
    if not any(group.test for group in verdicts):
        return []
    together = "all intervals hold together" if len(groups) > 1 else "the interval holds"
    notes = [f"{together} with {100 * LEVEL:g} % confidence on each side"]
    one_seed = [
        verdict.name
        for kept, verdict in zip(groups, verdicts, strict=True)
        if kept[0].cell["shots"] and verdict.test and "seeds" not in verdict.test.interval.varies
    ]
    if one_seed:
        notes.append(
            f"{few(one_seed, 1)}: with one seed the interval covers other test images, "
            "but no other draw of support images; a baseline with several seeds does"
        )
    if len(datasets := {k.cell["dataset"] for kept in groups for k in kept}) == 1:
        notes.append(f"{datasets.pop()} is the only dataset, so changes that show on others are not seen")
    return notes


def _warnings(baseline: Baseline, new: Mapping[tuple[Any, ...], Kept]) -> list[str]:
    versions = {
        (k.cell["method"], k.version, new[k.identity].version)
        for k in baseline.kept
        if k.identity in new and new[k.identity].version != k.version
    }
    return [
        f"{name} has version {now}, but the baseline has version {then}"
        for name, then, now in sorted(versions, key=str)
    ]
