"""Write tables for Markdown.

Every character that has a meaning there is escaped, so that names stay plain text.
"""

from __future__ import annotations

import re

from bench.report.table import Score, Table

# The signs of emphasis, code, links (bare ones too), columns, struck-out text, GitHub's formulas and emoji
# codes. HTML becomes entities.
_SIGNS = re.compile(
    r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//|[\w+-]+:)|(?<=\bwww)\.", re.IGNORECASE
)
_START = re.compile(r"^(?=[#>+=-])|^(\d+)(?=[.)])")  # starts of lines: headings, quotations, lists


def escape(text: str) -> str:
    """Return text that Markdown prints as it is, within a line."""
    return _SIGNS.sub(r"\\\g<0>", text).replace("&", "&amp;").replace("<", "&lt;")


def markdown(table: Table) -> str:
    """Write the table in GitHub's form, then its notes.

    The best numbers are bold; those that the data cannot tell from the best are underlined.
    """
    from tabulate import tabulate

    def cell(entry: Score) -> str:
        text = escape(entry.text)
        return f"**{text}**" if entry.best else f"<u>{text}</u>" if entry.tied else text

    rows = [[*map(escape, row.heads), *(cell(row.entries[c]) for c in table.columns)] for row in table.rows]
    align = [
        "left",
        *["right"] * (len(table.heads) - 1),
        *("left" if c in table.left else "right" for c in table.columns),
    ]
    heads = [*map(escape, [*table.heads, *table.columns])]
    body = tabulate(rows, heads, tablefmt="github", colalign=align, disable_numparse=True)
    return f"{body}\n\n" + "".join(_line(note) + "  \n" for note in table.notes)


def _line(note: str) -> str:
    """Return a note as a line of its own."""
    return _START.sub(lambda found: f"{found[1] or ''}\\", escape(note))
