"""Write the statistics section: averages with intervals, and each method's difference from the best."""

from __future__ import annotations

import pandas as pd

from bench.errors import BenchError
from bench.report.html.text import escape
from bench.report.marks import ONE_SEED, drawn_once, most_common, outcomes
from bench.report.table import AVERAGE, Row, Table
from bench.report.wording import listed, p_text, seeds_list, shots_text
from bench.stats import Interval, Mark, column_marks, wilcoxon_holm

_TEXT = (
    "Each block compares methods with the same number of shots. The 95 % interval of an average covers other "
    "test images of these datasets and, with several seeds, other draws of the support set. Differences are "
    "paired: they compare the same draws and the same images. The intervals of the differences to the best "
    "hold for all methods of a block together. A method whose interval contains 0 is underlined: the data "
    "cannot tell it from the best. The best was picked from the same data, so such a method need not be as "
    "good. All this says nothing about other datasets or other classes. Only the signed-rank p treats the "
    "datasets as the sample, so it cannot be small with few of them. It has Holm\u2019s correction within a "
    "block."
)


def section(tables: list[Table]) -> str:
    """Write one table per backbone and number of shots that has two complete rows with the same seeds.

    It compares the rows with the seeds that most complete rows have, and names the others.
    """
    blocks: list[str] = []
    for table in tables:
        groups: dict[tuple[object, ...], list[Row]] = {}
        for row in table.rows:
            if not row.oracle and all(
                row.entries[d].value is not None and not row.entries[d].partial for d in _datasets(table)
            ):
                groups.setdefault(row.block, []).append(row)
        for rows in groups.values():
            alike, others = most_common({i: row.seeds for i, row in enumerate(rows)})
            if len(alike) > 1:
                left_out = [f"{rows[i].label} ({seeds_list(rows[i].seeds)})" for i in others]
                blocks.append(_block(table, [rows[i] for i in alike], left_out, len(tables) > 1))
    body = "".join(blocks) or "<p>No two methods have results on all datasets with the same seeds.</p>"
    return f"<p>{escape(_TEXT)}</p>{body}"


def _datasets(table: Table) -> tuple[str, ...]:
    return table.averages.get(AVERAGE, tuple(table.columns))


def _block(table: Table, rows: list[Row], left_out: list[str], several: bool) -> str:
    datasets = _datasets(table)
    try:
        cells = {str(i): [outcomes(row.entries[d]) for d in datasets] for i, row in enumerate(rows)}
        marks = column_marks(cells)
    except (BenchError, ValueError) as error:
        return f"<p>{escape(str(error))}</p>"
    best = next(i for i, m in marks.items() if m.best)
    ranks = _signed_ranks(rows, datasets, best)
    lines = sorted(marks, key=lambda i: -marks[i].interval.estimate)
    once = drawn_once(rows[0].shots, rows[0].seeds)
    body = "".join(_line(rows[int(i)].label, marks[i], ranks.get(i), not once) for i in lines)
    where = f", {rows[0].block[0]}" if several else ""
    head = (
        f"{shots_text(rows[0].shots)}{where}, "
        f"average over {len(datasets)} dataset{'s' if len(datasets) > 1 else ''}"
    )
    names = ("method", "average", "interval", "difference to best", "signed-rank p")
    heads = "".join(f'<th scope="col">{name}</th>' for name in names)
    remarks = [f"Left out, because they have other seeds: {listed(left_out)}."] if left_out else []
    if once:
        remarks.append(f"Nothing is underlined, and the intervals cover other test images alone: {ONE_SEED}")
    rest = "".join(f"<p>{escape(remark)}</p>" for remark in remarks)
    return (
        f'<div class="standing"><h3>{escape(head)}</h3>'
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{rest}</div>"
    )


def _signed_ranks(rows: list[Row], datasets: tuple[str, ...], best: str) -> dict[str, float]:
    scores = pd.DataFrame({str(i): [row.entries[d].value for d in datasets] for i, row in enumerate(rows)})
    try:
        tests = wilcoxon_holm(scores, best)
    except ValueError:
        return {}
    return dict(zip(tests["second"], tests["p_holm"], strict=True))


def _line(label: str, mark: Mark, rank: float | None, underline: bool) -> str:
    classes = "best" if mark.best else "tied" if mark.tied and underline else ""
    own, diff = mark.interval, mark.to_best
    cells = (
        f'<td class="{classes}">{100 * own.estimate:.2f}</td><td>{_span(own)}</td>'
        f"<td>{'best' if diff is None else f'{_signed(diff.estimate)} ({_span(diff, sign=True)})'}</td>"
        f"<td>{'' if rank is None or diff is None else escape(p_text(rank))}</td>"
    )
    return f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>'


def _span(i: Interval, sign: bool = False) -> str:
    show = _signed if sign else lambda x: f"{100 * x:.2f}"
    return f"{show(i.low)} to {show(i.high)}"


def _signed(x: float) -> str:
    return f"{100 * x:+.2f}".replace("-", "\u2212")
