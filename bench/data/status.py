"""Say which datasets are found, missing or wrongly arranged.

The sizes of a dataset are compared with those in the paper's Table II.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bench.data import catalog, layout
from bench.data.catalog import Place
from bench.data.dataset import Dataset
from bench.data.imagefile import FolderSource
from bench.data.spec import DatasetSpec
from bench.data.verify import likely_cause
from bench.errors import BenchError, MissingData

SPOT_FIRST, SPOT_RANDOM = 3, 30


@dataclass(frozen=True)
class StatusRow:
    """One dataset and its state; ``todo`` says how to mend it.

    ``state`` is 'built in', 'found', 'wrong counts', 'wrong layout' or 'missing'. ``counts`` are the sizes
    that were found and ``expected`` the published ones (classes, train, val, test).
    """

    name: str
    kind: str
    state: str
    counts: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    todo: str = ""


def status(data_root: Path | None, names: Iterable[str] | None = None) -> list[StatusRow]:
    """Return the state of the named datasets under ``data_root``.

    Without names it is that of the whole catalog, in the catalog's order.
    """
    return [_row(catalog.describe(name), data_root) for name in (catalog.names() if names is None else names)]


def _row(spec: DatasetSpec, data_root: Path | None) -> StatusRow:
    expected = dict(spec.counts)
    if not spec.folders:
        return StatusRow(spec.name, spec.kind, "built in", expected, expected)
    try:
        dataset = catalog.reader(spec.reader)(spec, Place(data_root))
    except BenchError as error:
        state = "wrong layout" if _something_there(spec, data_root) else "missing"
        return StatusRow(spec.name, spec.kind, state, {}, expected, str(error))
    counts = sizes(dataset)
    state, todo = "found", "; ".join(dataset.notes)
    different = [key for key, value in _comparable(counts, expected).items() if value != expected[key]]
    absent = _spot_check(dataset)
    if absent:
        state, todo = (
            "wrong layout",
            f"{absent[0]} is not there: {likely_cause(dataset, absent, _spots(dataset))}",
        )
    elif different:
        differences = ", ".join(
            f"{key} {_comparable(counts, expected)[key]} instead of {expected[key]}" for key in different
        )
        state, todo = "wrong counts", f"{differences}: check that the lists and images are the published ones"
    return StatusRow(spec.name, spec.kind, state, counts, expected, todo)


def sizes(dataset: Dataset) -> dict[str, int]:
    """Return the number of classes, and of images in train, val and test."""
    return {
        "classes": len(dataset.classnames),
        "train": len(dataset.train),
        "val": len(dataset.val),
        "test": len(dataset.test),
    }


def _comparable(counts: dict[str, int], expected: dict[str, int]) -> dict[str, int]:
    """Return the sizes under the headings of the published ones.

    If no val is published, the published train includes the images that were cut for val, so they are added.
    """
    if "val" in expected or "train" not in expected:
        return {key: counts[key] for key in expected}
    return {key: counts[key] + (counts["val"] if key == "train" else 0) for key in expected}


def _something_there(spec: DatasetSpec, data_root: Path | None) -> bool:
    """Return whether any folder of the dataset exists."""
    try:
        return layout.first_existing(layout.dataset_folders(spec, Place(data_root))) is not None
    except MissingData:
        return False


def _spot_check(dataset: Dataset) -> list[str]:
    """Return listed files that do not exist, looked for among the first few and a fixed random sample."""
    source = dataset.source
    if not isinstance(source, FolderSource):
        return []
    paths = list(dataset.listed())
    chosen = paths[:SPOT_FIRST] + random.Random(0).sample(paths, min(SPOT_RANDOM, len(paths)))
    return [path for path in chosen if not source.file(path).is_file()]


def _spots(dataset: Dataset) -> int:
    """Return how many files ``_spot_check`` looks for."""
    total = len(dataset.train) + len(dataset.val) + len(dataset.test)
    return min(SPOT_FIRST, total) + min(SPOT_RANDOM, total)
