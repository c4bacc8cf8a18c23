"""Write the file that predictions are filled into: its columns, and a line for each test image."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from bench.data.dataset import Dataset
from bench.errors import BenchError
from bench.files import write_new
from bench.imported.names import Classes
from bench.imported.table import IMAGE, PREDICTED


def write(file: Path, target: Dataset) -> None:
    """Write a new CSV file with the images of a test set in its order, and empty cells beside them.

    Raises BenchError if the file is there already, because it may hold predictions.
    """
    if file.exists():
        raise BenchError(f"--template {file}: is there already; name another file, or delete this one")
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    columns = list(_columns(target))
    lines.writerow([IMAGE, PREDICTED, *columns])
    lines.writerows([path, "", *("" for _ in columns)] for path in target.test.paths)
    write_new(file, text.getvalue().encode())


def _columns(target: Dataset) -> Iterator[str]:
    """Yield the name of each class's column. A class whose name others have too is called by its number."""
    classes = Classes(target.classnames)
    for k, name in enumerate(target.classnames):
        yield f"p_{name}" if classes.column(f"p_{name}") == k else f"p_{k}"
