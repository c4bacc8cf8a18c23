"""Check whether a method has got worse than its baseline.

On the same kind of machine (processor or accelerator, torch version) and in the same precision, a method
predicts the same classes, so that an agreement below a limit fails. On other machines rounding flips some
images. There a method fails if the lower bound of the paired accuracy difference, over seeds and images, lies
below -margin.

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
from bench.report.coordinates import CELL, ROW
from bench.report.gate.baseline import Baseline, Kept
from bench.report.gate.cells import collect, select
from bench.report.gate.verdict import Group, Verdict
from bench.report.wording import shots_text
from bench.stats import NonInferiority, non_inferiority

AGREEMENT = 0.995  # least share of equal predictions
MARGIN = 0.01  # largest drop of accuracy to accept, as a fraction
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
        raise BenchError(f"there is no record of {which}: run the cells first, or check with --rerun")
    groups: dict[tuple[Any, ...], list[Kept]] = {}
    for kept in baseline.kept:
        groups.setdefault(tuple({**kept.cell, "variant": kept.variant}[name] for name in ROW), []).append(
            kept
        )
    verdicts = tuple(
        _judge(old, new, failed, margin, agreement, rule) for _, old in sorted(groups.items(), key=_order)
    )
    return Verdict(verdicts, tuple(_warnings(baseline, new)))


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
) -> Group:
    c = old[0].cell
    shots = f" {shots_text(c['shots'])}" if c["shots"] else ""
    name = f"{c['method']}{shots} ({', '.join(filter(None, (c['backbone'], c['prompts'], old[0].variant)))})"
    lost = [k for k in old if k.identity not in new]
    if lost:
        reason = failed[lost[0].identity[: len(CELL)]]
        return Group(
            name,
            len(old),
            False,
            False,
            0.0,
            None,
            f"{len(lost)} of {counted(len(old), 'cell')} failed: {reason}",
        )
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
    pairs = [
        (np.stack([a for a, _ in cells]), np.stack([b for _, b in cells])) for cells in outcomes.values()
    ]
    test = non_inferiority(pairs, margin)
    strict = rule == "agreement" or (rule == "auto" and all(new[k.identity].kind == k.kind for k in old))
    share = min(shares)
    # Equal predictions cannot have got worse, even if there are too few images for a test.
    passed = share >= limit if strict else test.passed or share == 1.0
    return Group(name, len(old), passed, strict, share, test, _reason(passed, strict, share, limit, test))


def _reason(passed: bool, strict: bool, share: float, limit: float, test: NonInferiority) -> str:
    change, lower = 100 * test.interval.estimate, 100 * test.lower
    moved = f"accuracy changed by {change:+.2f} points, at worst by {lower:+.2f}"
    if strict and not passed:
        held = "; the accuracy has held, so use --update if the change is intended" if test.passed else ""
        return (
            "predicts other classes on the same kind of machine: "
            f"agreement {100 * share:.2f} % is below {100 * limit:g} %; {moved}{held}"
        )
    if not passed:
        few = (
            ""
            if test.enough
            else f"; so few images show only drops above {100 * test.smallest_drop:.1f} points: take more"
        )
        return f"{moved}, which is below the margin of -{100 * test.margin:g}{few}"
    return (
        f"agreement {100 * share:.2f} %; {moved}; "
        f"a drop of {100 * test.smallest_drop:.2f} points would have been seen"
    )


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
