"""A run that adds to records of other conditions, another device or other libraries, says so in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from bench.records import store
from bench.records.conditions import Conditions, conditions, mixed
from bench.records.types import Provenance
from bench.run import provenance
from tests.run.conftest import Bench

MIXED = "mixed conditions"


def lines(output: str) -> list[str]:
    """What a run said of conditions."""
    return [line for line in output.splitlines() if MIXED in line]


def elsewhere(results: Path, change: Callable[[Provenance], Provenance]) -> None:
    """Make all records of a results folder those of another machine."""
    for path, record in list(store.every(results)):
        store.put(path, replace(record, provenance=change(record.provenance)))


def other_device(facts: Provenance) -> Provenance:
    """The same run on another processor."""
    return replace(facts, device_name="Another processor")


def other_library(facts: Provenance) -> Provenance:
    """The same run with an older PyTorch."""
    return replace(facts, libraries={**facts.libraries, "torch": "0.4.1"})


def other_commit(facts: Provenance) -> Provenance:
    """The same run at another time, of another commit: no condition that moves numbers by rounding."""
    return replace(
        facts, commit="0" * 40, dirty=not facts.dirty, written="2001-01-01T00:00:00+00:00", source="f" * 64
    )


def without(facts: Provenance, name: str) -> dict[str, bool]:
    """Its switches without one."""
    return {key: on for key, on in facts.flags.items() if key != name}


COMMAND = ("run", "--methods", "tip-adapter", "--jobs", "1", "--results")


def test_a_run_alone_is_not_mixed(bench: Bench, tmp_path: Path) -> None:
    three = "zero-shot,tip-adapter,safe-a"
    first = bench("run", "--methods", three, "--jobs", "1", "--results", tmp_path)
    assert first.exit_code == 0 and not lines(first.output), first.output
    more = bench(*COMMAND, tmp_path, "--seeds", "1,2")
    assert "1 of them recorded before" in more.output and not lines(more.output)
    idle = bench(*COMMAND, tmp_path)
    assert "1 cell was recorded before" in idle.output and not lines(idle.output)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (other_device, ["device ", "Another processor", provenance.device_name("cpu")]),
        (other_library, ["torch ", "0.4.1", provenance.libraries()["torch"]]),
        (lambda facts: replace(facts, threads=7), ["threads 1 and 7"]),
        (lambda facts: replace(facts, flags={**facts.flags, "tf32": True}), ["tf32 off and on"]),
        (lambda facts: replace(facts, flags=without(facts, "flush_denormal")), ["flush_denormal off and on"]),
        (lambda facts: other_library(other_device(facts)), ["device ", "; torch "]),
    ],
    ids=["device", "library", "threads", "switch", "older", "both"],
)
def test_a_run_that_goes_on_elsewhere(
    bench: Bench, tmp_path: Path, change: Callable[[Provenance], Provenance], expected: list[str]
) -> None:
    assert bench(*COMMAND, tmp_path).exit_code == 0
    elsewhere(tmp_path, change)
    more = bench(*COMMAND, tmp_path, "--seeds", "1,2")
    assert more.exit_code == 0
    (line,) = lines(more.output)
    assert all(part in line for part in expected), line
    assert line.startswith(MIXED) and "--fresh" in line
    assert line.count(";") == len(expected) - 1 if "; torch " in expected else ";" not in line
    assert "numpy" not in line
    idle = bench(*COMMAND, tmp_path, "--seeds", "1,2")
    assert "all 2 cells were recorded before" in idle.output and not lines(idle.output)


def test_another_commit_is_no_other_condition(bench: Bench, tmp_path: Path) -> None:
    assert bench(*COMMAND, tmp_path).exit_code == 0
    elsewhere(tmp_path, other_commit)
    assert not lines(bench(*COMMAND, tmp_path, "--seeds", "1,2").output)


def test_made_anew_is_not_mixed(bench: Bench, tmp_path: Path) -> None:
    """``--fresh``, as the line says."""
    assert bench(*COMMAND, tmp_path).exit_code == 0
    elsewhere(tmp_path, other_device)
    assert not lines(bench(*COMMAND, tmp_path, "--seeds", "1,2", "--fresh").output)
    assert not lines(bench(*COMMAND, tmp_path, "--seeds", "1,2,3").output)


def test_another_request_counts_where_a_table_has_one_row(bench: Bench, tmp_path: Path) -> None:
    """Seeds that were asked for one by one are averaged all the same; another prompt set is another row."""
    assert bench(*COMMAND, tmp_path).exit_code == 0
    elsewhere(tmp_path, other_device)
    other = bench(*COMMAND, tmp_path, "--seeds", "2")
    assert "0 of them recorded before" in other.output and len(lines(other.output)) == 1
    assert not lines(bench(*COMMAND, tmp_path, "--prompts", "class-name").output)


def test_a_fit_of_elsewhere_that_is_evaluated_here(bench: Bench, tmp_path: Path) -> None:
    """No cell is complete, and yet what is added stands on a fit that was made under other conditions."""
    assert bench(*COMMAND, tmp_path).exit_code == 0
    elsewhere(tmp_path, other_device)
    more = bench(*COMMAND, tmp_path, "--set", "tip-adapter.alpha=1")
    assert "0 fits, 1 evaluation," in more.output and len(lines(more.output)) == 1


@pytest.mark.slow
def test_workers_count_their_conditions(bench: Bench, tmp_path: Path) -> None:
    assert bench(*COMMAND, tmp_path).exit_code == 0
    two = ("run", "--methods", "tip-adapter", "--jobs", "2", "--results", tmp_path)
    same = bench(*two, "--seeds", "1,2")
    assert same.exit_code == 0 and not lines(same.output)
    elsewhere(tmp_path, other_device)
    assert len(lines(bench(*two, "--seeds", "1,2,3").output)) == 1


def facts(**changes: Any) -> Provenance:
    """Where some number came from."""
    usual: dict[str, Any] = {
        "device": "cuda:0",
        "device_name": "H100",
        "threads": 4,
        "flags": {"tf32": False},
        "libraries": {"torch": "2.8.0", "numpy": "2.0"},
    }
    return Provenance(**{**usual, **changes})


def of(*many: Provenance) -> list[Conditions]:
    """Their conditions."""
    return [conditions(one) for one in many]


def test_mixed_names_what_differs() -> None:
    assert mixed([]) == ""
    assert mixed(of(facts())) == ""
    assert mixed(of(facts(), facts())) == ""
    assert mixed(of(facts(), facts(threads=8))) == "threads 4 and 8"
    assert mixed(of(facts(device_name="A100"), facts(), facts())) == "device cuda (A100) and cuda (H100)"
    assert mixed(of(facts(device="cpu"), facts())) == "device cpu (H100) and cuda (H100)"
    assert mixed(of(facts(flags={"tf32": True}), facts())) == "tf32 off and on"


def test_which_gpu_of_a_kind_is_no_condition() -> None:
    assert mixed(of(facts(device="cuda:0"), facts(device="cuda:3"), facts(device="cuda"))) == ""


def test_neither_are_commit_source_and_time() -> None:
    assert (
        mixed(of(facts(), facts(commit="abc", dirty=True, source="def", written="2001", order=7, folder="x")))
        == ""
    )


def test_the_order_of_names_does_not_count() -> None:
    assert mixed(of(facts(), facts(libraries={"numpy": "2.0", "torch": "2.8.0"}))) == ""


def test_mixed_in_several_ways() -> None:
    found = mixed(of(facts(), facts(threads=1, libraries={"torch": "2.9.0", "numpy": "2.0"})))
    assert sorted(found.split("; ")) == ["threads 1 and 4", "torch 2.8.0 and 2.9.0"]
    assert mixed(of(facts(threads=1), facts(threads=2), facts(threads=3))) == "threads 1 and 2 and 3"


def test_what_only_some_have() -> None:
    """Older records do not say everything, which is no difference."""
    assert mixed(of(facts(), facts(libraries={"torch": "2.8.0"}))) == ""
    assert mixed(of(facts(), facts(flags={}))) == ""


def test_records_from_before_there_was_a_switch_were_made_without_it() -> None:
    for name in ("streamed", "flush_denormal"):
        assert mixed(of(facts(), facts(flags={"tf32": False, name: False}))) == ""
        assert mixed(of(facts(), facts(flags={"tf32": False, name: True}))) == f"{name} off and on"


def test_conditions_are_equal_where_nothing_differs() -> None:
    assert len({*of(facts(), facts(), facts(commit="abc"))}) == 1
    assert len({*of(facts(), facts(threads=8))}) == 2
