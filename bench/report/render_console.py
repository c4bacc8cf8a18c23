"""Write tables for a terminal, in blocks of as many columns as its width holds."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len

from bench.report.table import Row, Score, Table, broken

PIPED = 200  # characters per line if no terminal says its width: room for eleven datasets, some with "(2/3)"
_NOTES = 110  # most characters in a line of the notes
_GAP = "   "  # between columns
_BOLD, _UNDERLINE, _END = "\x1b[1m", "\x1b[4m", "\x1b[0m"


class _Cell(NamedTuple):
    text: str
    style: str = ""


def console(table: Table, width: int = PIPED, styled: bool = True) -> str:
    """Write the table and its notes in lines of ``width`` characters.

    Columns that do not fit go into further blocks below; each block repeats the columns that name the rows. A
    word is never broken, so a line is longer if a word does not fit. If ``styled``, bold and underlined
    numbers get escape codes; otherwise the notes about them are left out.
    """
    heads = _heads(table, width)
    lines = [f"{_BOLD}{table.title}{_END}" if styled else table.title]
    for columns in _blocks(table, heads, width):
        lines += _block(table, heads, columns, styled)
    notes = [note for note in table.notes if styled or note not in table.styles]
    wrap = textwrap.TextWrapper(
        max(20, min(_NOTES, width)), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join([*lines, "", *(_wrapped(note, wrap) for note in notes)]) + "\n"


def _wrapped(note: str, wrap: textwrap.TextWrapper) -> str:
    """Return a note in lines, with every command between backticks on one line, so that it can be copied."""
    whole = re.sub("`[^`]+`", lambda found: found[0].replace(" ", "\u00a0"), note)
    return wrap.fill(whole).replace("\u00a0", " ")


def _width(lines: Sequence[str]) -> int:
    return max(map(cell_len, lines), default=0)


def _heads(table: Table, width: int) -> list[list[list[str]]]:
    """Return the lines of each cell of the naming columns, by row.

    The first naming column gives way to the widest other column.
    """
    rest = [_width([head, *(row.heads[i] for row in table.rows)]) for i, head in enumerate(table.heads)][1:]
    widest = max((_column_width(table, column) for column in table.columns), default=0)
    room = width - 1 - sum(w + len(_GAP) for w in (*rest, widest))
    longest = _width([word for row in table.rows for word in row.heads[0].split()])
    label = textwrap.TextWrapper(
        max(1, room, longest), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return [[label.wrap(row.heads[0]) or [""], *([text] for text in row.heads[1:])] for row in table.rows]


def _column_width(table: Table, column: str) -> int:
    return _width([*_pieces(column), *(row.entries[column].text for row in table.rows)])


def _pieces(column: str) -> list[str]:
    return [piece.strip() for piece in broken(column)]


def _blocks(table: Table, heads: Sequence[list[list[str]]], width: int) -> list[list[str]]:
    """Split the columns into blocks of at least one column."""
    naming = [
        _width([head, *(line for row in heads for line in row[i])]) for i, head in enumerate(table.heads)
    ]
    start = 1 + sum(naming) + len(_GAP) * (len(naming) - 1)
    blocks: list[list[str]] = [[]]
    used = start
    for column in table.columns:
        needed = len(_GAP) + _column_width(table, column)
        if blocks[-1] and used + needed > width:
            blocks.append([])
            used = start
        blocks[-1].append(column)
        used += needed
    return blocks


def _block(table: Table, heads: Sequence[list[list[str]]], columns: Sequence[str], styled: bool) -> list[str]:
    """Write a head, a rule and the rows, with an empty line between blocks of rows."""
    names = [[head] for head in table.heads] + [_pieces(column) for column in columns]
    left = [i == 0 for i in range(len(table.heads))] + [column in table.left for column in columns]
    depth = max(map(len, names))
    top = [[_Cell(n[i - depth + len(n)] if i >= depth - len(n) else "") for n in names] for i in range(depth)]
    body: list[list[_Cell] | None] = []
    before: Row | None = None
    for row, naming in zip(table.rows, heads, strict=True):
        if before is not None and before.block != row.block:
            body.append(None)
        before = row
        cells = [*naming, *([row.entries[c].text] for c in columns)]
        styles = [""] * len(naming) + [_style(row.entries[c]) if styled else "" for c in columns]
        for i in range(max(map(len, cells))):
            texts = [lines[i] if i < len(lines) else "" for lines in cells]
            body.append([_Cell(*pair) for pair in zip(texts, styles, strict=True)])
    widths = [
        max(cell_len(line[i].text) for line in (*top, *body) if line is not None) for i in range(len(names))
    ]
    rule = " " + "─" * (sum(widths) + len(_GAP) * (len(widths) - 1)) + " "
    return [
        "",
        *(_line(line, widths, left) for line in top),
        rule.rstrip(),
        *("" if line is None else _line(line, widths, left) for line in body),
    ]


def _style(entry: Score) -> str:
    return _BOLD if entry.best else _UNDERLINE if entry.tied else ""


def _line(cells: Sequence[_Cell], widths: Sequence[int], left: Sequence[bool]) -> str:
    padded = []
    for cell, width, to_left in zip(cells, widths, left, strict=True):
        blank = " " * (width - cell_len(cell.text))
        text = f"{cell.style}{cell.text}{_END}" if cell.style and cell.text else cell.text
        padded.append(text + blank if to_left else blank + text)
    return (" " + _GAP.join(padded)).rstrip()
