"""The records that were in a results folder before: read once, for all that looks back at them. No torch."""

from __future__ import annotations

from pathlib import Path

from bench.records import store
from bench.records.types import Record


class Earlier:
    """The records of ``results`` that are believed, each file read at most once, when a question needs it."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self._whole = False  # whether every folder was read
        self._by_folder: dict[Path, list[Record]] = {}

    @property
    def records(self) -> list[Record]:
        """All of them."""
        if not self._whole:
            self._by_folder = {}
            for path, record in store.every(self.results, []):
                self._by_folder.setdefault(path.parent, []).append(record)
            self._whole = True
        return [record for records in self._by_folder.values() for record in records]

    def within(self, where: Path) -> list[Record]:
        """Those of one method on one dataset."""
        if where not in self._by_folder:
            unread = [] if self._whole else store.within(where, [])
            self._by_folder[where] = [record for _, record in unread]
        return self._by_folder[where]

    @property
    def last(self) -> int:
        """The largest number that a record bears (``Provenance.order``)."""
        return max((record.provenance.order for record in self.records), default=0)
