"""Write tables for LaTeX with booktabs rules, every special character escaped."""

from __future__ import annotations

import re

from bench.report.table import Score, Table, broken

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "\u2212": "$-$",
    "\u00b1": r"$\pm$",
    "\u03b1": r"$\alpha$",
    "\u03b2": r"$\beta$",
    "\u03b3": r"$\gamma$",
}


def escape(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return "".join(_SPECIAL.get(c, c) for c in text).replace("--", "-{}-")


def latex(table: Table) -> str:
    """Write a ``table`` environment for a document that uses the package booktabs."""
    spec = (
        "l" + "r" * (len(table.heads) - 1) + "".join("l" if c in table.left else "r" for c in table.columns)
    )
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering\\small",
        "\\setlength{\\tabcolsep}{3pt}",
        f"\\caption{{{escape(table.title)}.}}",
        f"\\begin{{tabular}}{{{spec}}}",
        "\\toprule",
        " & ".join(
            [*map(escape, table.heads), *(_head(c, "l" if c in table.left else "r") for c in table.columns)]
        )
        + r" \\",
        "\\midrule",
    ]
    block = None
    for row in table.rows:
        if block is not None and row.block != block:
            lines.append("\\midrule")
        block = row.block
        lines.append(
            " & ".join([*map(_start, row.heads), *(_cell(row.entries[c]) for c in table.columns)]) + r" \\"
        )
    lines += ["\\bottomrule", "\\end{tabular}"]
    lines += [
        "\\par\\smallskip\\footnotesize\\raggedright",
        *(escape(note) + r"\par" for note in table.notes),
    ]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def _start(text: str) -> str:
    """Return text for the place after a line break.

    There LaTeX would take a leading bracket or star for an argument of the line break.
    """
    return f"{{{escape(text)}}}" if text.startswith(("[", "*")) else escape(text)


def _head(column: str, side: str) -> str:
    lines = [_start(piece.strip()) for piece in broken(column)]
    stack = r"\\".join(lines)
    return f"\\shortstack[{side}]{{{stack}}}" if len(lines) > 1 else stack


def _cell(entry: Score) -> str:
    text = "--" if entry.text == "-" else re.sub(r"(?<!\w)-(?=\d)", "$-$", escape(entry.text))
    return f"\\textbf{{{text}}}" if entry.best else f"\\underline{{{text}}}" if entry.tied else text
