"""Tables for LaTeX: booktabs rules, every special character escaped."""

from __future__ import annotations

from bench.report.tables import Entry, Table

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "\u2212": "$-$", "\u00b1": r"$\pm$", "\u03b1": r"$\alpha$", "\u03b2": r"$\beta$", "\u03b3": r"$\gamma$",
}  # fmt: skip


def escape(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_SPECIAL.get(c, c) for c in text)


def latex(table: Table) -> str:
    """A ``table`` environment to be put into a document that uses the package booktabs."""
    spec = "l" + "r" * (len(table.heads) - 1) + "".join("l" if c in table.left else "r" for c in table.columns)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering\\small",
        "\\setlength{\\tabcolsep}{3pt}",
        f"\\caption{{{escape(table.title)}.}}",
        f"\\begin{{tabular}}{{{spec}}}",
        "\\toprule",
        " & ".join(map(escape, [*table.heads, *table.columns])) + r" \\",
        "\\midrule",
    ]
    block = None
    for row in table.rows:
        if block is not None and row.block != block:
            lines.append("\\midrule")
        block = row.block
        # A leading bracket would be read as the optional argument of the line break before it.
        cells = [*(f"{{{escape(h)}}}" if h.startswith(("[", "*")) else escape(h) for h in row.heads)]
        lines.append(" & ".join([*cells, *(_cell(row.entries[c]) for c in table.columns)]) + r" \\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    lines += ["\\par\\smallskip\\footnotesize\\raggedright", *(escape(note) + r"\par" for note in table.notes)]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def _cell(entry: Entry) -> str:
    text = escape(entry.text)
    text = f"--{text[1:]}" if text == "-" else text
    return f"\\textbf{{{text}}}" if entry.best else f"\\underline{{{text}}}" if entry.tied else text
