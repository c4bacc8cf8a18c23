"""Write tables as HTML.

Every number is a button that opens its details, and every heading a button that sorts.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.html.details import Details
from bench.report.html.text import escape
from bench.report.table import Row, Score, Table
from bench.report.wording import shots_text


def grid(table: Table, details: Details, name: str, caption: str) -> str:
    """Write a table that scrolls in a box of its own. ``name`` is its id."""
    heads = "".join(_head(h, "text" if i != 1 else "number") for i, h in enumerate(table.heads))
    heads += "".join(_head(c, "number") for c in table.columns)
    rows = "".join(
        _row(table, row, i and table.rows[i - 1].block != row.block, details)
        for i, row in enumerate(table.rows)
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return (
        f'<figure class="grid" id="{escape(name)}"><h3>{escape(caption)}</h3>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="results"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<figcaption><ul class="notes">{notes}</ul></figcaption></figure>\n'
    )


def shot_boxes(tables: Sequence[Table]) -> str:
    """Write a check box for each number of shots."""
    numbers = sorted({row.shots for table in tables for row in table.rows})
    boxes = "".join(
        f'<label><input type="checkbox" name="shots" value="{n}" checked><span>{shots_text(n)}</span></label>'
        for n in numbers
    )
    return f'<fieldset class="shots"><legend>Shots</legend>{boxes}</fieldset>' if len(numbers) > 1 else ""


def breakable(name: str) -> str:
    """Return an escaped name that may break after its hyphens and underscores."""
    return escape(name).replace("-", "-<wbr>").replace("_", "_<wbr>")


def _head(name: str, kind: str) -> str:
    return (
        f'<th scope="col" aria-sort="none" data-kind="{kind}">'
        f'<button type="button"><span>{breakable(name)}</span></button></th>'
    )


def _row(table: Table, row: Row, first: object, details: Details) -> str:
    marks = " ".join(mark for mark, on in (("block", first), ("oracle", row.oracle)) if on)
    head = f'<th scope="row" data-v="{escape(row.label)}">{escape(row.label)}</th>'
    rest = "".join(_plain(table.heads[i], text, row) for i, text in enumerate(row.heads) if i)
    cells = "".join(
        _cell(row, column, row.entries[column], details, column in table.averages) for column in table.columns
    )
    words = " ".join(map(str, (*row.heads, row.method)))
    return (
        f'<tr class="{marks}" data-shots="{row.shots}" data-words="{escape(words.lower())}">'
        f"{head}{rest}{cells}</tr>"
    )


def _plain(head: str, text: str, row: Row) -> str:
    value = str(row.shots) if head == "shots" else text
    return f'<td data-v="{escape(value)}">{escape(text)}</td>'


def _cell(row: Row, column: str, entry: Score, details: Details, average: bool) -> str:
    failed = bool(entry.note) and entry.value is None
    classes = (("best", entry.best), ("tied", entry.tied), ("error", failed), ("average", average))
    marks = " ".join(mark for mark, on in classes if on)
    value = "" if entry.value is None else f"{entry.value:.6f}"
    number = details.add(row, column, entry)
    text = escape(entry.text)
    if number is not None:
        label = escape(f"{row.label}, {shots_text(row.shots)}, {column}: {entry.text}")
        text = f'<button type="button" class="cell" data-cell="{number}" aria-label="{label}">{text}</button>'
    return f'<td class="{marks}" data-v="{value}">{text}</td>'
