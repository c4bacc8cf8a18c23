"""Find the names of a test set's classes, without opening its images.

Records hold numbers of classes. The names lie in the description of the dataset or in its lists, so they are
printed only if what lies there is what the records were made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import names
from bench.data import catalog
from bench.errors import BenchError
from bench.records import store
from bench.records.types import EvaluationRecord
from bench.report.outputs import outputs_of


@dataclass(frozen=True)
class ClassNames:
    """The names of classes by number. Where they could not be found, ``why`` is the reason, as a sentence."""

    names: tuple[str, ...] = ()
    why: str = ""

    def __getitem__(self, number: int) -> str:
        return self.names[number].replace("_", " ") if number < len(self.names) else f"class {number}"

    def shown(self, number: int) -> str:
        """Return the name with characters that are not printable escaped."""
        return names.shown(self[number])


def of_rows(
    rows: pd.DataFrame, written: Mapping[str, str] | None = None, data_root: Path | None = None
) -> ClassNames:
    """Return the class names of the one test set of these rows of the frame, as ``of`` does.

    ``written``: the path of a user's own dataset by its name.
    """
    row = rows[rows["status"] == "ok"].iloc[0]
    name, labels = str(row["target"]), outputs_of(row["path"]).labels
    path = (written or {}).get(name)
    return of(name, digest_of(row["path"]), labels, written=path, data_root=data_root)


def digest_of(path: str) -> str:
    """Return the digest of the test set of the evaluation at ``path``. Raises BenchError if it is gone."""
    record = store.read(Path(path))
    if not isinstance(record, EvaluationRecord):
        raise BenchError(f"{path}: this record was deleted meanwhile; load the results again")
    return record.parts.target


def of(
    name: str,
    digest: str,
    labels: NDArray[Any],
    *,
    written: str | None = None,
    data_root: Path | None = None,
) -> ClassNames:
    """Return the class names of the test set ``name``, whose digest and ``labels`` (n,) the records hold.

    ``written``: a path where the dataset lies, for one that is not in the catalog. ``data_root``: the folder
    of the datasets that have to be downloaded. The digest has to be the recorded one. A user's own lists are
    the exception, because their digest covers the contents of the images: their labels have to be the
    recorded ones.
    """
    where = written or name
    try:
        found = catalog.find(where, data_root, images=False, skip_bad=True)
    except BenchError as error:
        return ClassNames(why=_numbered(name, _reason(str(error), name, where)))
    own_lists = bool(found.lists and found.spec.identity)
    same = found.digest == digest or (
        own_lists and np.array_equal(np.asarray(found.test.labels), labels.astype(np.int64))
    )
    if not same:
        return ClassNames(why=_numbered(name, "it has changed since the records were made"))
    return ClassNames(found.classnames)


def _reason(error: str, name: str, where: str) -> str:
    if where == name and error.startswith("unknown dataset"):
        return "it is not in the catalog; name it by its path, as in --datasets path/to/it"
    return error.splitlines()[0].rstrip(".")


def _numbered(name: str, reason: str) -> str:
    return f"Classes are numbered, because the class names of {name} are not at hand: {reason}."
