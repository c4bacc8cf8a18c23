"""Two datasets of one name are two columns; one dataset that was moved or renamed is one."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.records.keys import EvaluationKey
from bench.records.types import Cell, EvaluationRecord, Failure, FitRecord, Provenance, Record
from bench.report.apart import apart
from bench.report.frame import _places
from tests.report.recorded import cell_of, key_of

PLACE = {"a": "aaaaaaaa", "b": "bbbbbbbb", "": ""}
CONTENT = {"1": "1" * 64, "2": "2" * 64, "3": "3" * 64}


def records(
    name: str, identity: str, content: str, method: str = "safe", order: int = 0
) -> list[tuple[Path, Record]]:
    """A fit and its evaluation."""
    where = {
        "method": method, "dataset": name, "shots": 1, "seed": 1, "backbone": "pocket-rn", "prompts": "hand",
        "protocol": "recipe", "preset": "quick",
    }  # fmt: skip
    parts = key_of({**where, "dataset": name}, version=1)
    parts = replace(parts, dataset=CONTENT[content])
    cell: Cell = cell_of(where)
    at = Provenance(order=order)
    fit = FitRecord(
        schema=2, key=parts.digest(), cell=cell, parts=parts, dataset_identity=PLACE[identity], provenance=at
    )  # fmt: skip
    on = EvaluationKey(fit=fit.key, target=CONTENT[content])
    evaluation = EvaluationRecord(
        schema=2, key=on.digest(), fit=fit.key, cell=cell, target=name, parts=on, n=4, top1=0.5, top5=1.0,
        target_identity=PLACE[identity], provenance=at,
    )  # fmt: skip
    return [(Path(f"{method}-{identity}-{content}.json"), r) for r in (fit, evaluation)]


def names(*several: list[tuple[Path, Record]]) -> list[str]:
    """The name of each pair of records, and that the pair agrees."""
    found = apart([pair for pairs in several for pair in pairs])
    result = []
    for fit, evaluation in zip(found[::2], found[1::2], strict=True):
        e = evaluation[1]
        assert isinstance(e, EvaluationRecord)
        assert fit[1].cell.dataset == e.cell.dataset == e.target
        result.append(e.target)
    return result


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ([("birds", "a", "1"), ("birds", "b", "2")], ["birds-aaaaaa", "birds-bbbbbb"]),
        ([("birds", "a", "1"), ("birds-bbbbbb", "b", "2")], ["birds", "birds-bbbbbb"]),
        ([("birds", "a", "1"), ("birds", "a", "2")], ["birds", "birds"]),  # its images were exchanged
        ([("birds", "a", "1"), ("birds", "b", "1")], ["birds", "birds"]),  # it was moved
        ([("birds-aaaaaa", "a", "1"), ("birds", "a", "1")], ["birds", "birds"]),
        # It was moved and renamed, and its old place holds other images now; it may change or go back, too.
        ([("pets", "a", "1"), ("pets_v1", "b", "1"), ("pets", "a", "2")], ["pets_v1", "pets_v1", "pets"]),
        ([("pets", "a", "1"), ("pets", "b", "1"), ("pets", "a", "2")],
         ["pets-bbbbbb", "pets-bbbbbb", "pets-aaaaaa"]),
        ([("pets", "a", "1"), ("pets_v1", "b", "1"), ("pets_v1", "b", "2")], ["pets", "pets", "pets_v1"]),
        ([("birds", "a", "1"), ("birds", "a", "2"), ("birds", "a", "1")], ["birds", "birds", "birds"]),
        # Names of the catalog stay, and are nobody else's.
        ([("emoji", "", "1"), ("emoji", "", "2")], ["emoji", "emoji"]),
        ([("emoji", "", "1"), ("emoji", "b", "2")], ["emoji", "emoji-bbbbbb"]),
        ([("emoji", "", "1"), ("emoji", "b", "1")], ["emoji", "emoji-bbbbbb"]),
        # Records of before say no place: they go by content, and then by the only bearer of their name.
        ([("birds", "", "1"), ("birds", "", "2")], ["birds", "birds"]),
        ([("birds", "", "1"), ("birds", "b", "1")], ["birds", "birds"]),
        ([("birds", "", "1"), ("birds", "b", "2")], ["birds", "birds"]),
        ([("birds", "", "1"), ("birds-bbbbbb", "b", "2")], ["birds-bbbbbb", "birds-bbbbbb"]),
        ([("birds", "", "1"), ("fowl", "b", "1"), ("birds", "a", "2")], ["fowl", "fowl", "birds"]),
        ([("birds", "", "1"), ("birds", "b", "1"), ("birds", "b", "2")], ["birds", "birds", "birds"]),
        ([("birds", "", "3"), ("birds", "a", "1"), ("birds", "b", "2")],
         ["birds", "birds-aaaaaa", "birds-bbbbbb"]),
        ([("fish", "", "1"), ("birds", "b", "2")], ["fish", "birds"]),
    ],
)  # fmt: skip
def test_names(made: list[tuple[str, str, str]], expected: list[str]) -> None:
    pairs = [records(name, where, what, f"m{i}", order=i) for i, (name, where, what) in enumerate(made)]
    assert names(*pairs) == expected


def test_a_failed_fit_goes_with_its_dataset() -> None:
    pairs = [*records("birds", "a", "1"), *records("birds", "b", "2", "coop")]
    (_, fit), *_ = records("birds", "b", "2", "tip-adapter")
    assert isinstance(fit, FitRecord)
    failure = Failure(
        schema=2, key=fit.key, of="fit", fit=fit.key, cell=fit.cell, stage="fit", error="no", parts=fit.parts,
        dataset_identity=PLACE["b"],
    )  # fmt: skip
    *_, (_, last) = apart([*pairs, (Path("x"), failure)])
    assert last.cell.dataset == "birds-bbbbbb"


def test_a_note_says_which_is_which() -> None:
    """Of datasets that bear one name; a name of its own needs no note."""
    pairs = [
        (path, replace(record, dataset_place=place) if isinstance(record, FitRecord) else record)
        for where, what, place in (("a", "1", "whole/birds"), ("b", "2", "half/birds"), ("", "1", ""))
        for path, record in records("birds" if where else "emoji", where, what)
    ]
    assert _places(apart(pairs)) == [
        "Several datasets have the same name: birds-aaaaaa is whole/birds, birds-bbbbbb is half/birds."
    ]


def test_an_evaluation_whose_fit_is_gone_goes_with_its_test_set() -> None:
    pairs = [*records("birds", "a", "1"), *records("birds", "b", "2", "coop")]
    *_, (_, last) = apart(pairs[:2] + pairs[3:])
    assert isinstance(last, EvaluationRecord)
    assert last.cell.dataset == last.target == "birds-bbbbbb"
