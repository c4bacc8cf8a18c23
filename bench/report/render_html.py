"""Write tables for a browser. Every text is escaped; there is no script and no other file."""

from __future__ import annotations

from html import escape

from bench.report.table import Score, Table

_STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:2rem}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "caption{text-align:left;font-weight:600;margin-bottom:.5rem}"
    "th,td{padding:.15rem .6rem;text-align:right;white-space:nowrap}"
    "th:first-child,.text{text-align:left}"
    "tbody th{font-weight:400}"
    "thead th{border-bottom:1px solid;vertical-align:bottom}"
    "tbody+tbody tr:first-child>*{border-top:1px solid #bbb}"
    "u{text-underline-offset:3px}"
)


def html(table: Table) -> str:
    """Write a whole page with the table and its notes."""
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(table.title)}</title>\n'
        f"<style>{_STYLE}</style>\n{fragment(table)}</html>\n"
    )


def fragment(table: Table) -> str:
    """Write the ``table`` element and its notes, to be put into another page."""
    head = "".join(
        f'<th scope="col"{_kind(c, table)}>{escape(c)}</th>' for c in (*table.heads, *table.columns)
    )
    lines = ["<table>", f"<caption>{escape(table.title)}</caption>", f"<thead><tr>{head}</tr></thead>"]
    block: object = None
    for i, row in enumerate(table.rows):
        if i == 0 or row.block != block:
            lines += ["<tbody>"] if i == 0 else ["</tbody>", "<tbody>"]
        block = row.block
        heads = "".join(f'<th scope="row">{escape(h)}</th>' for h in row.heads)
        cells = "".join(
            f"<td{_kind(c, table)}{_note(row.entries[c])}>{_cell(row.entries[c])}</td>" for c in table.columns
        )
        lines.append(f"<tr>{heads}{cells}</tr>")
    lines += ["</tbody>"] if table.rows else []
    return "\n".join([*lines, "</table>", *(f"<p>{escape(note)}</p>" for note in table.notes)]) + "\n"


def _kind(column: str, table: Table) -> str:
    return ' class="text"' if column in table.left else ""


def _note(entry: Score) -> str:
    return f' title="{escape(entry.note)}"' if entry.note else ""


def _cell(entry: Score) -> str:
    text = escape(entry.text)
    return f"<b>{text}</b>" if entry.best else f"<u>{text}</u>" if entry.tied else text
