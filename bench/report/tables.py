"""Make the paper's tables from a DataFrame of records.

``table`` makes 1 (dataset x shots x method), 3 (shifts), ``ablation`` (settings and prompt sets), and each of
them beside published numbers. ``classes`` has the classes of one test set. Table 2 (sizes) needs no records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from bench.errors import BenchError
from bench.metrics import Metric
from bench.names import nearest
from bench.report import measures
from bench.report.render import PrintedTable, printed
from bench.report.select import Choice
from bench.report.table import Table

WHICH = ("1", "2", "3", "ablation", "classes")
MEASURED = ("1", "3", "ablation")  # those that show any metric


def check(which: str) -> None:
    """Raise BenchError for a name that no table has."""
    if which not in WHICH:
        raise BenchError(f"no table '{which}'{nearest(which, WHICH)}; there are {', '.join(WHICH)}")


def _refuse(shown: Metric, which: str, against: str | None) -> None:
    """Raise BenchError for a table that has accuracies alone."""
    if which not in MEASURED:
        raise BenchError(f"--metric {shown.name}: table {which} does not show it; leave the option out")
    if against is not None:
        raise BenchError(
            f"--metric {shown.name}: published numbers are accuracies; leave out --against or --metric"
        )


def table(
    frame: pd.DataFrame,
    which: str = "1",
    *,
    methods: Sequence[str] = (),
    datasets: Sequence[str] = (),
    shots: Sequence[int] = (),
    backbone: str | None = None,
    prompts: Sequence[str] = (),
    protocol: str | None = None,
    preset: str | None = None,
    variants: bool = False,
    partial: bool = False,
    bold: bool = True,
    underline: bool = True,
    against: str | None = None,
    base: str | None = None,
    targets: Sequence[str] = (),
    counts: Mapping[str, Mapping[str, int]] | None = None,
    metric: str = "top1",
    target: str | None = None,
    top: int | None = None,
    written: Mapping[str, str] | None = None,
    data_root: Path | None = None,
) -> PrintedTable:
    """Make table ``which`` ('1', '2', '3', 'ablation' or 'classes') of a DataFrame from ``load_results``.

    ``metric`` names what the numbers are (``bench.metrics``): accuracy, or for tables 1, 3 and ablation any
    other. They are means over seeds, in the unit that the title says; accuracies are in percent. Names narrow
    the table down. ``variants`` adds rows with changed settings. ``partial`` shows averages over incomplete
    rows, marked. ``bold`` marks the best of a column, ``underline`` those that the data cannot tell from it
    (``marks``). ``against`` puts published numbers beside ours ('paper' or another source in results/paper).
    ``base`` is the method or prompt set from which an ablation measures changes. ``targets`` lists shifted
    test sets, in the wanted order (table 3) or to show them at all (ablation). ``counts`` has the sizes of
    datasets by name (table 2).

    Table ``classes`` has a row for each class of one test set, the hardest first: of the dataset's own, or of
    ``target``, a shifted one. ``top``: how many classes it shows. ``written`` has the path of a user's own
    dataset by its name, and ``data_root`` is the folder of downloaded datasets: the class names are read
    there.

    Raises BenchError for unknown names, for mixed backbones where the table needs one, and for a metric that
    the table does not have.
    """
    check(which)
    shown = measures.chosen(metric)
    if shown is not measures.ACCURACY:
        _refuse(shown, which, against)
    choice = Choice.of(
        frame,
        methods=methods,
        datasets=datasets,
        shots=shots,
        backbone=backbone,
        prompts=prompts,
        protocol=protocol,
        preset=preset,
        variants=variants or which == "ablation",
    )
    # Each builder is imported where it is called, so that a table does not wait for the others.
    if which == "2":
        from bench.report import sizes

        made: Table = sizes.table_2(counts or {}, frame, against)
    elif which == "classes":
        from bench.report import classes

        if against is not None:
            raise BenchError(
                "table classes: no published numbers are known for single classes; leave --against out"
            )
        made = classes.table_classes(frame, choice, target, top, written, data_root)
    elif against is not None and which == "ablation":
        from bench.report.paper import ablation as paper_ablation

        made = paper_ablation.against(frame, choice, against)
    elif against is not None:
        from bench.report.paper import accuracy as paper_accuracy

        made = paper_accuracy.against(frame, which, choice, against)
    elif which == "ablation":
        from bench.report import ablation

        made = ablation.table_ablation(frame, choice, tuple(targets), base, partial, shown)
    else:
        from bench.report import accuracy

        make = accuracy.table_1 if which == "1" else accuracy.table_3
        made = make(frame, choice, tuple(targets), partial, bold, underline, shown)
    return printed(made)
