"""Tell datasets of one name apart.

Records say what a dataset is; tables print what it is called. Example: two folders that are both called
``pets`` become ``pets-1a2b3c`` and ``pets-4d5e6f``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from bench.data import catalog
from bench.names import canonical, told_apart
from bench.records.types import EvaluationRecord, Failure, FitRecord, Record


class Mention(NamedTuple):
    """What one record says about a dataset or a test set.

    ``order``: the order of the record; a later record has a larger one. ``place``: a digest of where the
    dataset lies; it is empty for datasets of the catalog and in records from before places were kept.
    ``content``: a digest of what the dataset held, empty if not known.
    """

    order: int
    place: str
    content: str
    name: str


def apart(records: Sequence[tuple[Path, Record]]) -> list[tuple[Path, Record]]:
    """Return the records with distinct names for people's own datasets that have the same name.

    A dataset is what a place holds, according to the newest record of that place. Places that hold the same
    content are one dataset, whatever it was called. A record of older content goes to the place that holds
    this content now; if there is none, it stays with its own place. A record without a place goes to the
    dataset that holds or held its content, and else to the only one with its name. Names of the catalog stay
    as they are.
    """
    if not any(map(_has_place, (record for _, record in records))):
        return list(records)
    fits = {r.key: r for _, r in records if isinstance(r, FitRecord)}
    mentions = [_mentions(record, fits) for _, record in records]
    every = sorted({one for of_record in mentions for one in of_record})  # the oldest first
    holds = {one.place: one.place for one in every if one.place}
    holds |= {one.place: one.content for one in every if one.place and one.content}
    dataset = _datasets(every, holds)
    names = _names(every, holds, dataset)
    return [
        (path, _renamed(record, [names[dataset[one]] for one in of_record]))
        for (path, record), of_record in zip(records, mentions, strict=True)
    ]


def _has_place(record: Record) -> bool:
    return bool(record.target_identity if isinstance(record, EvaluationRecord) else record.dataset_identity)


def _mentions(record: Record, fits: Mapping[str, FitRecord]) -> list[Mention]:
    """Return what a record says about its dataset and, for an evaluation, about its test set."""
    fit = record if isinstance(record, FitRecord) else fits.get(record.fit)
    parts = fit.parts if fit else record.parts if isinstance(record, Failure) else None
    place = record.dataset_identity if isinstance(record, Failure) else fit.dataset_identity if fit else ""
    order = record.provenance.order
    own = Mention(order, place, parts.dataset if parts else "", record.cell.dataset)
    if isinstance(record, EvaluationRecord):
        test = Mention(order, record.target_identity, record.parts.target, record.target)
        return [own if fit or record.target != record.cell.dataset else test, test]
    if isinstance(record, Failure) and record.target and record.target != record.cell.dataset:
        return [own, Mention(order, "", "", record.target)]
    return [own]


def _datasets(every: Sequence[Mention], holds: Mapping[str, str]) -> dict[Mention, str]:
    """Return which dataset each mention means: by the content of a place (``holds``), or by its name."""
    now = set(holds.values())
    own = [one for one in every if one.place]
    held = {one.content: holds[one.place] for one in own} | {content: content for content in now}
    bearers: dict[str, set[str]] = {}
    for one in own:
        for name in (one.name, one.name.removesuffix(told_apart("", one.place))):
            bearers.setdefault(name, set()).add(holds[one.place])
    catalogue = set(map(canonical, catalog.names()))

    def dataset(one: Mention) -> str:
        if one.place:
            return one.content if one.content in now else holds[one.place]
        if canonical(one.name) in catalogue:
            return f"name {one.name}"
        if one.content and one.content in held:
            return held[one.content]
        namesakes = bearers.get(one.name, set())
        return min(namesakes) if len(namesakes) == 1 else f"name {one.name}"

    return {one: dataset(one) for one in every}


def _names(
    every: Sequence[Mention], holds: Mapping[str, str], dataset: Mapping[Mention, str]
) -> dict[str, str]:
    """Return the name of each dataset: that of its newest place.

    Digits of the place are added if another dataset has the same name.
    """
    names: dict[str, str] = {}
    newest: dict[str, str] = {}
    for one in every:
        if one.place:
            here = holds[one.place]
            names[here] = one.name
            newest[here] = one.place
    for one in every:
        names.setdefault(dataset[one], one.name)
    bearers = Counter(names.values())
    return {
        here: told_apart(name, newest[here]) if bearers[name] > 1 and here in newest else name
        for here, name in names.items()
    }


def _renamed(record: Record, names: list[str]) -> Record:
    target = getattr(record, "target", "")
    if record.cell.dataset != names[0]:
        record = replace(record, cell=replace(record.cell, dataset=names[0]))
    if target and target != names[-1]:
        record = replace(record, target=names[-1])
    return record
