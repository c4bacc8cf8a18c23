"""Which of the records that were read tables believe: those whose predictions give their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.records import store
from bench.records.types import EvaluationRecord, FitRecord, Record
from bench.records.whole import Bad, fault_beside, lacking, said

Located = tuple[Path, Record]


def believed(records: Sequence[Located], bad: list[Bad]) -> list[Located]:
    """The records whose predictions are their own and give their numbers, and that hang together.

    What an evaluation was made with is said by the records of its fit and of the fits below it, so these must
    be there. All evaluations of one test set have the same labels: where they have not, most of them are
    right, and of as many none is. The others are added to ``bad``.
    """
    fits = {r.key: r for _, r in records if isinstance(r, FitRecord)}
    labels: dict[Path, tuple[str, str]] = {}  # of evaluations: the test set, and the labels' checksum
    kept: list[Located] = []
    for path, record in records:
        if not isinstance(record.cell.shots, int):
            bad.append(Bad(str(path), f"shots '{record.cell.shots}', which tables do not have"))
        elif not isinstance(record, EvaluationRecord):
            kept.append((path, record))
        elif why := _odd(record, fits):
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


def _odd(record: EvaluationRecord, fits: Mapping[str, FitRecord]) -> str:
    """What is wrong between an evaluation and its fit, whose record and those below it say what it is of."""
    fit = fits.get(record.fit)
    if fit is None or lacking(fit.key, fits):
        return "there is no record of its fit, or of one that it builds on"
    return fault_beside(record, fit.parts)


def _other_labels(labels: Mapping[Path, tuple[str, str]]) -> dict[Path, None]:
    """The evaluations whose labels are not those that most evaluations of their test set have."""
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
    """What is not believed in one line, empty where all is."""
    if not bad:
        return ""
    many = f"{len(bad)} records that cannot be believed" if bad[1:] else "a record that cannot be believed"
    return f"left out: {many}: {said(bad)}; the `bench run` of its cells makes what is missing again"
