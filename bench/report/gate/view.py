"""Write a verdict as text, as JSON, and as a GitHub job summary with annotations."""

from __future__ import annotations

import json
from collections import Counter

from bench.names import counted, in_json, shown
from bench.report.gate.speed import Speed
from bench.report.gate.verdict import Finding, Group, Verdict
from bench.report.render_markdown import escape

FORMATS = ("text", "github", "json")
_WORDS: dict[Finding, tuple[str, str]] = {  # verbs for several groups and for one
    "worse": ("got worse", "got worse"),
    "undecided": ("are undecided", "is undecided"),
    "changed": ("changed", "changed"),
}


def text(verdict: Verdict, speed: Speed | None = None) -> str:
    """Write one line per method and shots, then warnings, what is known of speed, and the outcome."""
    width = max(len(group.name) for group in verdict.groups)
    marks: dict[str, str] = {"held": "ok", "worse": "FAIL"}
    lines = [f"{marks.get(g.finding, g.finding):<9}  {g.name:<{width}}  {g.reason}" for g in verdict.groups]
    lines += [f"warning: {warning}" for warning in verdict.warnings]
    lines += speed.lines if speed else []
    return "\n".join([*lines, headline(verdict, speed)]) + "\n"


def headline(verdict: Verdict, speed: Speed | None = None) -> str:
    """Write the outcome in one line, with the smallest drop that the check could have seen."""
    cells, found = sum(g.cells for g in verdict.groups), Counter(g.finding for g in verdict.groups)
    bad = [
        f"{found[one]} of {len(verdict.groups)} groups {words}"
        for one, (words, _) in _WORDS.items()
        if found[one]
    ]
    head = ", ".join(bad) or f"no method got worse: {counted(cells, 'cell')}"
    seen = [g.test.smallest_drop for g in verdict.groups if g.test is not None]
    could = f"; every group would have shown a drop of {100 * max(seen):.2f} points" if seen else ""
    return f"{head}{could}{speed.tail if speed else ''}"


def summary(verdict: Verdict, speed: Speed | None = None) -> str:
    """Write Markdown for $GITHUB_STEP_SUMMARY."""
    rows = ["## bench check", "", f"**{_cell(headline(verdict, speed))}**", ""]
    rows += [
        "| | method | cells | agreement | change | at worst | would see |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    rows += [_row(group) for group in verdict.groups]
    rows += ["", *(f"- {_cell(f'{g.name}: {g.reason}')}" for g in verdict.groups if not g.passed)]
    rows += [f"- warning: {_cell(warning)}" for warning in verdict.warnings]
    rows += [f"- {_cell(line)}" for line in (speed.lines if speed else ())]
    return "\n".join(rows) + "\n"


def as_json(verdict: Verdict, speed: Speed | None = None) -> str:
    """Write the verdict as JSON.

    Accuracies are in points, agreement is in percent; ``speed`` is as ``Speed.as_dict`` has it.
    """
    groups = []
    for g in verdict.groups:
        t = g.test
        points = (
            {}
            if t is None
            else {"change": t.interval.estimate, "at_worst": t.lower, "smallest_drop_seen": t.smallest_drop}
        )
        numbers = {name: round(100 * x, 4) for name, x in ({"agreement": g.agreement} | points).items()}
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
                {**head, "warnings": list(verdict.warnings), "groups": groups}, indent=1, ensure_ascii=False
            )
        )
        + "\n"
    )


def commands(verdict: Verdict, speed: Speed | None = None) -> str:
    """Write GitHub workflow commands: an error per failed or slower group, and a warning per warning."""
    lines = [
        _command("error", f"{g.name} {_WORDS[g.finding][1]}", g.reason)
        for g in verdict.groups
        if not g.passed
    ]
    lines += [_command("warning", "bench check", warning) for warning in verdict.warnings]
    lines += [_command("error", f"{p.name} got slower", p.reason) for p in (speed.slower if speed else ())]
    return "".join(f"{line}\n" for line in lines)


def _row(g: Group) -> str:
    mark = "✅" if g.passed else "❌"
    if g.test is None:
        return f"| {mark} | {_cell(g.name)} | {g.cells} | ERR | | | |"
    points = (100 * x for x in (g.test.interval.estimate, g.test.lower, g.test.smallest_drop))
    change, lower, drop = points
    return (
        f"| {mark} | {_cell(g.name)} | {g.cells} | {100 * g.agreement:.2f} % "
        f"| {change:+.2f} | {lower:+.2f} | {drop:.2f} |"
    )


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
