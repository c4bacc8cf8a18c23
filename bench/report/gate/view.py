"""Write a verdict as text, as JSON, and as a GitHub job summary with annotations."""

from __future__ import annotations

import json
from collections import Counter

from bench.names import counted, in_json, shown
from bench.report.gate.speed import Speed
from bench.report.gate.verdict import Finding, Group, Verdict
from bench.report.render_markdown import escape

FORMATS = ("text", "github", "json")
_MARKS: dict[Finding, str] = {"held": "✅", "failed": "❌", "worse": "❌", "undecided": "❔", "changed": "❗"}
_WORDS: dict[Finding, tuple[str, str]] = {  # verbs for several groups and for one
    "failed": ("failed", "failed"),
    "worse": ("got worse", "got worse"),
    "undecided": ("are undecided", "is undecided"),
    "changed": ("changed", "changed"),
}


def text(verdict: Verdict, speed: Speed | None = None) -> str:
    """Write one line per method and shots, then notes, warnings, what is known of speed, and the outcome."""
    width = max(len(group.name) for group in verdict.groups)
    marks: dict[str, str] = {"held": "ok", "worse": "FAIL", "failed": "FAIL"}
    lines = [f"{marks.get(g.finding, g.finding):<9}  {g.name:<{width}}  {g.reason}" for g in verdict.groups]
    lines += [f"note: {note}" for note in verdict.notes]
    lines += [f"warning: {warning}" for warning in verdict.warnings]
    lines += speed.lines if speed else []
    return "\n".join([*lines, headline(verdict, speed)]) + "\n"


def headline(verdict: Verdict, speed: Speed | None = None) -> str:
    """Write the outcome in one line, with the smallest drop that the check finds in every group."""
    cells, found = sum(g.cells for g in verdict.groups), Counter(g.finding for g in verdict.groups)
    bad = [
        f"{found[one]} of {counted(len(verdict.groups), 'group')} {words[found[one] == 1]}"
        for one, words in _WORDS.items()
        if found[one]
    ]
    head = ", ".join(bad) or f"no method got worse: {counted(cells, 'cell')}"
    drops = [(g.test.smallest_drop, g.test.power) for g in verdict.groups if g.test is not None]
    could = ""
    if drops:
        drop, power = max(drops)
        could = (
            f"; a true drop of {100 * drop:.2f} points in any group is called worse "
            f"in at least {100 * power:g} % of checks"
            if drop < 1
            else "; in some groups these data can prove no drop, so take more seeds or datasets"
        )
    return f"{head}{could}{speed.tail if speed else ''}"


def summary(verdict: Verdict, speed: Speed | None = None) -> str:
    """Write Markdown for $GITHUB_STEP_SUMMARY."""
    rows = ["## bench check", "", f"**{_cell(headline(verdict, speed))}**", ""]
    rows += [
        "| | method | cells | agreement | change | interval | finds a drop of |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    rows += [_row(group) for group in verdict.groups]
    rows += ["", *(f"- {_cell(f'{g.name}: {g.reason}')}" for g in verdict.groups if not g.passed)]
    rows += [f"- {_cell(note)}" for note in verdict.notes]
    rows += [f"- warning: {_cell(warning)}" for warning in verdict.warnings]
    rows += [f"- {_cell(line)}" for line in (speed.lines if speed else ())]
    return "\n".join(rows) + "\n"


def as_json(verdict: Verdict, speed: Speed | None = None) -> str:
    """Write the verdict as JSON.

    Accuracies are in points, agreement is in percent; ``speed`` is as ``Speed.as_dict`` has it.
    ``smallest_drop_found`` is null where the data can prove no drop.
    """
    groups = []
    for g in verdict.groups:
        t = g.test
        points = (
            {}
            if t is None
            else {
                "change": t.interval.estimate,
                "at_worst": t.interval.low,
                "at_best": t.interval.high,
                "smallest_drop_found": t.smallest_drop if t.smallest_drop < 1 else None,
            }
        )
        numbers = {
            name: None if x is None else round(100 * x, 4)
            for name, x in {"agreement": g.agreement, **points}.items()
        }
        groups.append(
            {
                "name": g.name,
                "cells": g.cells,
                "passed": g.passed,
                "finding": g.finding,
                **numbers,
                "reason": g.reason,
            }
        )
    head = {
        "passed": verdict.passed and not (speed and speed.slower),
        "finding": verdict.finding,
        "speed": speed.as_dict() if speed else None,
        "headline": headline(verdict, speed),
    }
    return (
        in_json(
            json.dumps(
                {**head, "notes": verdict.notes, "warnings": verdict.warnings, "groups": groups},
                indent=1,
                ensure_ascii=False,
            )
        )
        + "\n"
    )


def commands(verdict: Verdict, speed: Speed | None = None) -> str:
    """Write GitHub workflow commands: an error for each group that failed, got worse or got slower.

    Groups that are undecided or changed, and warnings, get a warning each.
    """
    lines = [
        _command(
            "error" if g.finding in ("failed", "worse") else "warning",
            f"{g.name} {_WORDS[g.finding][1]}",
            g.reason,
        )
        for g in verdict.groups
        if not g.passed
    ]
    lines += [_command("warning", "bench check", warning) for warning in verdict.warnings]
    lines += [_command("error", f"{p.name} got slower", p.reason) for p in (speed.slower if speed else ())]
    return "".join(f"{line}\n" for line in lines)


def _row(g: Group) -> str:
    head = f"| {_MARKS[g.finding]} | {_cell(g.name)} | {g.cells} |"
    if g.test is None:
        return f"{head} ERR | | | |"
    interval = g.test.interval
    change, low, high = (f"{100 * x:+.2f}" for x in (interval.estimate, interval.low, interval.high))
    drop = f"{100 * g.test.smallest_drop:.2f}" if g.test.smallest_drop < 1 else "-"
    return f"{head} {100 * g.agreement:.2f} % | {change} | {low} to {high} | {drop} |"


def _cell(line: str) -> str:
    """Escape text for Markdown, so that names cannot break the table or bring markup along."""
    return escape(shown(line.replace("\n", " ")))


def _command(level: str, title: str, message: str) -> str:
    return f"::{level} title={_escaped(title, prop=True)}::{_escaped(message)}"


def _escaped(value: str, prop: bool = False) -> str:
    """Escape a value for workflow commands. Properties need two escapes more."""
    for sign, code in (
        ("%", "%25"),
        ("\r", "%0D"),
        ("\n", "%0A"),
        *(((":", "%3A"), (",", "%2C")) if prop else ()),
    ):
        value = value.replace(sign, code)
    return value
