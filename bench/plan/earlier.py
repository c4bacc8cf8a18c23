"""The records that were in a results folder before: read once, for all that looks back at them. No torch."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from bench.records import store
from bench.records.types import Record


class Earlier:
    """The records of ``results``, each file read at most once, at the first question that needs it."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self._within: dict[Path, list[Record]] = {}

    @cached_property
    def records(self) -> list[Record]:
        """All of them."""
        by_folder: dict[Path, list[Record]] = {}
        for path, record in store.every(self.results):
            by_folder.setdefault(path.parent, []).append(record)
        self._within = by_folder
        return [record for records in by_folder.values() for record in records]

    def within(self, where: Path) -> list[Record]:
        """Those of one method on one dataset."""
        if "records" in self.__dict__:  # everything was read: a folder that is not there holds nothing
            return self._within.get(where, [])
        if where not in self._within:
            self._within[where] = [record for _, record in store.within(where)]
        return self._within[where]

    @property
    def last(self) -> int:
        """The largest number that a record bears (``Provenance.order``)."""
        return max((record.provenance.order for record in self.records), default=0)
