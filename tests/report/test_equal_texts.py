"""Of prompt sets with equal texts one is recorded; tables, comparisons and figures find it by every name."""

from __future__ import annotations

import pandas as pd
import pytest

from bench import prompts
from bench.data import catalog
from bench.errors import BenchError
from bench.report import compare
from bench.report.figures import plot as figures
from bench.report.frame import load_results
from bench.report.table import Table
from bench.report.tables import table
from tests.report import made


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Records of zero-shot and SAFE with several prompt sets, some of which have equal texts.

    Zero-shot has ``coop`` on emoji (``vanilla``'s texts), both on flags; SAFE has ``hand`` and ``vanilla``.
    """
    folder = tmp_path_factory.mktemp("results")
    for dataset, names in (("emoji", ("coop", "hand")), ("flags", ("coop", "hand", "vanilla"))):
        for name in names:
            made.one(
                folder, made.cell("zero-shot", dataset, 0, 0, prompts=name), skill=0.3 + 0.05 * len(name)
            )
    for name in ("hand", "vanilla"):
        made.one(folder, made.cell("safe", "emoji", 1, 1, prompts=name), skill=0.3 + 0.05 * len(name))
    return load_results(folder)


def shown(printed: Table) -> dict[tuple[str, str], dict[str, str]]:
    return {(r.method, r.key["prompts"]): {c: e.text for c, e in r.entries.items()} for r in printed.rows}


def test_sets_of_the_same_templates() -> None:
    assert prompts.same("coop", catalog.spec("emoji")) == ("vanilla",)
    assert prompts.same("Vanilla", catalog.spec("stanford_cars")) == ("coop", "hand")
    assert prompts.same("hand", catalog.spec("flags")) == prompts.same("cupl", catalog.spec("emoji")) == ()
    for spec in map(catalog.spec, ("dtd", "emoji", "sun397")):  # as the keys of fits have it
        digests = {
            name: prompts.build(name, spec, ("banded",)).digest
            for name in ("class-name", "vanilla", "coop", "hand")
        }
        for name, own in digests.items():
            assert {n for n, d in digests.items() if d == own} - {name} == set(prompts.same(name, spec))


def test_a_row_is_filled_by_what_bears_another_name(records: pd.DataFrame) -> None:
    rows = shown(table(records))
    assert rows["zero-shot", "vanilla"]["emoji"] == rows["zero-shot", "coop"]["emoji"] != "-"
    # where both are recorded, each is itself
    assert rows["zero-shot", "vanilla"]["flags"] != rows["zero-shot", "coop"]["flags"]
    assert ("safe", "coop") not in rows  # SAFE has no row of that name to fill


def test_a_name_without_records_stands_for_its_texts(records: pd.DataFrame) -> None:
    asked = shown(table(records, methods=["safe"], prompts=["coop"]))
    assert list(asked) == [("safe", "coop")]
    recorded = shown(table(records, methods=["safe"], prompts=["vanilla"]))
    assert asked["safe", "coop"] == recorded["safe", "vanilla"]
    assert set(shown(table(records, methods=["zero-shot", "safe"], prompts=["coop"]))) == {
        ("zero-shot", "coop")
    }
    with pytest.raises(BenchError, match="no records of prompts 'cupl'"):
        table(records, methods=["safe"], prompts=["coop", "cupl"])


def test_compare_and_figures_know_the_names(records: pd.DataFrame) -> None:
    assert compare.compare(records, "safe@coop", "safe@vanilla").difference.estimate == 0
    drawn = figures.plot(records, "prompts", methods=["safe"])
    assert "vanilla = coop" in drawn.alt
    drawn = figures.plot(records, "prompts", methods=["safe"], prompts=["hand", "coop"])
    assert set(drawn.points["series"]) == {"hand", "coop"}


def test_other_numbers_of_shots_are_not_passed_over(records: pd.DataFrame) -> None:
    with pytest.raises(BenchError, match="no records of 5 shots; there are some of 1 shot"):
        table(records, shots=[5])
