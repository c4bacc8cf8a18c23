"""Datasets of one name told apart: records say what a dataset is, tables print what it is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from bench.names import told_apart
from bench.records.types import EvaluationRecord, Failure, FitRecord, Record

_Mark = tuple[str, str]  # what a dataset is known by: ("identity" or "content" or "name", value)


def apart(records: Sequence[tuple[Path, Record]]) -> list[tuple[Path, Record]]:
    """The records, with distinct names for the datasets of people's own that bear one name.

    Records are of one dataset if they share its place or its content, whatever it was called when they were
    made; older records, which do not say the place, are told by their name.
    """
    fits = {r.key: r for _, r in records if isinstance(r, FitRecord)}
    groups = _Groups()
    for _, record in records:
        for identity, content, name in _said(record, fits):
            groups.join(_marks(identity, content, name))
    named: dict[str, set[tuple[_Mark, str]]] = {}  # by name: the groups that bear it, with their identity
    names: dict[_Mark, str] = {}  # by group: the shortest of its names
    for _, record in records:
        for identity, content, name in _said(record, fits):
            group = groups.of(_marks(identity, content, name)[0])
            names[group] = min(names.get(group, name), name, key=lambda n: (len(n), n))
    for group, name in names.items():
        named.setdefault(name, set()).add((group, groups.identity(group)))
    for several in named.values():
        for group, identity in several:
            if len(several) > 1 and identity:
                names[group] = told_apart(names[group], identity)

    def name_of(said: tuple[str, str, str]) -> str:
        return names[groups.of(_marks(*said)[0])]

    return [(path, _renamed(record, [name_of(s) for s in _said(record, fits)])) for path, record in records]


def _said(record: Record, fits: Mapping[str, FitRecord]) -> list[tuple[str, str, str]]:
    """(identity, content, name) of a record's dataset and, of an evaluation, of its test set."""
    fit = record if isinstance(record, FitRecord) else fits.get(record.fit)
    parts = fit.parts if fit else record.parts if isinstance(record, Failure) else None
    identity = fit.dataset_identity if fit else ""
    if isinstance(record, Failure):
        identity = record.dataset_identity
    own = (identity, parts.dataset if parts else "", record.cell.dataset)
    if isinstance(record, EvaluationRecord):
        return [own, (record.target_identity, record.parts.target, record.target)]
    if isinstance(record, Failure) and record.target and record.target != record.cell.dataset:
        return [own, ("", "", record.target)]
    return [own]


def _marks(identity: str, content: str, name: str) -> list[_Mark]:
    """What tells a dataset, the strongest first. Without an identity the name does: it is the catalog's."""
    if not identity:
        return [("name", name)]
    return [("identity", identity), *([("content", content)] if content else [])]


def _renamed(record: Record, names: list[str]) -> Record:
    target = getattr(record, "target", "")
    if record.cell.dataset != names[0]:
        record = replace(record, cell=replace(record.cell, dataset=names[0]))
    if target and target != names[-1]:
        record = replace(record, target=names[-1])
    return record


class _Groups:
    """Marks that belong together."""

    def __init__(self) -> None:
        self.parent: dict[_Mark, _Mark] = {}

    def of(self, mark: _Mark) -> _Mark:
        """The mark that stands for all of its group."""
        while (above := self.parent.setdefault(mark, mark)) != mark:
            mark = above
        return mark

    def join(self, marks: Iterable[_Mark]) -> None:
        """These marks are of one group."""
        first, *rest = (self.of(mark) for mark in marks)
        for mark in rest:
            low, high = sorted((first, mark))
            self.parent[high] = low
            first = low

    def identity(self, group: _Mark) -> str:
        """The first identity of a group, empty for one that is known by its name alone."""
        kind = (mark for mark in self.parent if mark[0] == "identity" and self.of(mark) == group)
        return min((value for _, value in kind), default="")
