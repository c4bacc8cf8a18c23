"""Choose the records that tables trust: those whose stored predictions give their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.records import store
from bench.records.types import EvaluationRecord, FitRecord, Record
from bench.records.whole import Bad, fault_of_fits, said

Located = tuple[Path, Record]


def believed(records: Sequence[Located], bad: list[Bad]) -> list[Located]:
    """Return the records whose predictions are their own and give their numbers, and whose fits are there.

    The records of a fit, and of the fits that it builds on, say how an evaluation was made, so they must be
    there. All evaluations of one test set must have the same labels. If they do not, the labels that most
    evaluations have are right; in a draw, none are. Records that are not trusted are added to ``bad``.
    """
    fits = {r.key: r for _, r in records if isinstance(r, FitRecord)}
    labels: dict[Path, tuple[str, str]] = {}  # by evaluation: its test set, and the checksum of its labels
    kept: list[Located] = []
    for path, record in records:
        if not isinstance(record, EvaluationRecord):
            kept.append((path, record))
        elif why := fault_of_fits(record, fits):
            bad.append(Bad(str(path), why))
        else:
            try:
                sums = store.outcome(path, record).sums
            except BenchError as error:
                bad.append(store.bad_of(path, error))
                continue
            labels[path] = (record.parts.target, sums["labels"])
            kept.append((path, record))
    others = _other_labels(labels)
    bad += [Bad(str(path), "its labels are not those of other records of the test set") for path in others]
    return [one for one in kept if one[0] not in others] if others else kept


def _other_labels(labels: Mapping[Path, tuple[str, str]]) -> dict[Path, None]:
    """Return the evaluations whose labels differ from those that most evaluations of their test set have."""
    if len(set(labels.values())) == len({test_set for test_set, _ in labels.values()}):
        return {}
    by_set: dict[str, Counter[str]] = {}
    for test_set, sums in labels.values():
        by_set.setdefault(test_set, Counter())[sums] += 1

    def right(test_set: str, sums: str) -> bool:
        return all(
            count < by_set[test_set][sums] for other, count in by_set[test_set].items() if other != sums
        )

    return dict.fromkeys(path for path, told in labels.items() if not right(*told))


def left_out(bad: list[Bad]) -> str:
    """Describe the records that are not trusted in one line, which is empty if all are."""
    if not bad:
        return ""
    many = f"{len(bad)} records that are" if bad[1:] else "a record that is"
    return (
        f"left out: {many} damaged or incomplete: {said(bad)}; "
        "repeat the `bench run` of these cells to make them again"
    )
