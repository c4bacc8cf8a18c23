"""Read the records that a results folder held before the run, once for all modules that ask for them.

Explanations (``why``) and estimates (``estimate``) use them. This module imports no torch.
"""

from __future__ import annotations

from pathlib import Path

from bench.records import store
from bench.records.types import Record


class Earlier:
    """The undamaged records of ``results``. Each file is read at most once, when it is first needed."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self._whole = False  # whether every folder was read already
        self._by_folder: dict[Path, list[Record]] = {}

    @property
    def records(self) -> list[Record]:
        """Return all undamaged records of the folder."""
        if not self._whole:
            self._by_folder = {}
            for path, record in store.every(self.results, []):
                self._by_folder.setdefault(path.parent, []).append(record)
            self._whole = True
        return [record for records in self._by_folder.values() for record in records]

    def within(self, where: Path) -> list[Record]:
        """Return the undamaged records in ``where``, the folder of one method on one dataset."""
        if where not in self._by_folder:
            unread = [] if self._whole else store.within(where, [])
            self._by_folder[where] = [record for _, record in unread]
        return self._by_folder[where]

    @property
    def last(self) -> int:
        """Return the largest order number of a record (``Provenance.order``), or 0."""
        return max((record.provenance.order for record in self.records), default=0)
