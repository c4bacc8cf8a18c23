"""Refuse a table of nothing but dashes: no record of it can tell the metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.errors import BenchError
from bench.report.command import USUAL
from bench.report.coordinates import IMPORTED
from bench.report.select import Choice, run_command
from bench.report.table import Table


def require(table: Table, columns: Sequence[str], choice: Choice, rest: str = "") -> None:
    """Raise BenchError if no entry of ``columns`` has a value because records cannot tell the table's metric.

    The message names the command that makes the records. ``rest``: further options of that command. Records
    in a packed file stay as they are, so the command then writes into another folder.
    """
    entries = [(row, column, row.entries[column]) for row in table.rows for column in columns]
    untold = [(row, column, entry) for row, column, entry in entries if entry.untold]
    told = any(entry.value is not None or entry.failed for _, _, entry in entries)
    if table.metric is None or told or not untold:
        return
    what = f"no record keeps what the {table.metric.title} needs"
    own = [(row, column, entry) for row, column, entry in untold if row.key["prompts"] != IMPORTED]
    if not own:
        raise BenchError(f"{what}: `bench import` a file that has probabilities, or choose another --metric")
    shots = sorted({row.shots for row, _, _ in own} - {0})
    backbones = {str(row.key["backbone"]) for row, _, _ in own}
    prompts = {str(row.key["prompts"]) for row, _, _ in own}
    packed = not any(Path(path).is_file() for _, _, entry in own for path in entry.untold)
    results = choice.results
    if packed:
        results = (f"{(results or (USUAL,))[0].rstrip('/')}-again",)
    again = replace(
        choice,
        methods=choice.methods or tuple(dict.fromkeys(row.method for row, _, _ in own)),
        datasets=choice.datasets or tuple(dict.fromkeys(table.sources.get(c, c) for _, c, _ in own)),
        shots=choice.shots or tuple(shots),
        backbone=choice.backbone or (min(backbones) if len(backbones) == 1 else None),
        prompts=choice.prompts or (tuple(prompts) if len(prompts) == 1 else ()),
        results=results,
    )
    seeds = sorted({seed for row, _, _ in own if row.shots for seed in row.seeds})
    flags = [f"--seeds {','.join(map(str, seeds))}" if seeds else "", rest, "" if packed else "--fresh"]
    raise BenchError(
        f"{what}: `{run_command(again, ' '.join(filter(None, flags)))}` makes them again with it"
        f"{', beside the packed ones' if packed else ''}"
    )
