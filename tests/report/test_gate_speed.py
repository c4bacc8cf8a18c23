"""The gate says which groups got slower, about which it cannot tell, and why speed was not compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.files import read_json, write_json
from bench.report.frame import load_results
from bench.report.gate import baseline as baselines
from bench.report.gate import cells, speed, view
from bench.report.gate.baseline import Baseline, Kept, Timing
from bench.report.gate.check import check
from bench.stats.speed import Repeat
from tests.report import made
from tests.report.test_gate import bench

SWINGS = (0.97, 1.0, 1.03, 1.01, 0.99)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    return made.grid(folder, ["zero-shot", "safe"], ["birds", "fish"], (1, 4), n=100)


@pytest.fixture(scope="module")
def plain(results: Path) -> Baseline:
    return Baseline(tuple(cells.collect(load_results(results))))


def timing(cpu: float, wall: float, machine: float = 1.0) -> Timing:
    """Repeats of that many seconds, on a machine that takes ``machine`` times as long for everything."""

    def repeats(seconds: float) -> tuple[Repeat, ...]:
        return tuple(Repeat(seconds * s * machine, 0.02 * machine, 0.02 * machine) for s in SWINGS)

    return Timing(repeats(wall), repeats(cpu))


def with_times(kept: tuple[Kept, ...], times: Mapping[str, Timing], usual: Timing) -> list[Kept]:
    """The cells that a check times, with the times of their method."""
    return [replace(k, timing=times.get(k.cell["method"], usual)) for k in speed.chosen(kept)]


@pytest.fixture(scope="module")
def old(plain: Baseline) -> Baseline:
    with_own = {k.identity: k for k in with_times(plain.kept, {}, timing(2, 3))}
    return Baseline(tuple(with_own.get(k.identity, k) for k in plain.kept))


def compared(old: Baseline, times: Mapping[str, Timing], machine: float = 1.0) -> speed.Speed:
    new = with_times(old.kept, times, timing(2, 3, machine))
    return speed.compare(old.kept, {k.identity: k for k in new}, {})


def test_the_smallest_test_set_and_its_first_seed_stand_for_a_group(plain: Baseline) -> None:
    small = tuple(
        replace(k, top1=k.top1[:50], labels=None) if k.cell["dataset"] == "fish" else k for k in plain.kept
    )
    for kept, dataset in ((plain.kept, "birds"), (small, "fish")):
        found = sorted(
            (*(k.cell[name] for name in ("method", "shots", "seed")), k.cell["dataset"])
            for k in speed.chosen(kept)
        )
        assert found == [("safe", 1, 1, dataset), ("safe", 4, 1, dataset), ("zero-shot", 0, 0, dataset)]


def test_a_method_is_slower_only_if_its_time_outgrows_the_reference(old: Baseline) -> None:
    assert {p.finding for p in compared(old, {}).paces} == {"not slower"}
    assert {p.finding for p in compared(old, {}, machine=4).paces} == {"not slower"}
    slow = compared(old, {"safe": timing(20, 30)})
    assert [p.name for p in slow.slower] == [
        "safe 1 shot (pocket-rn, hand)",
        "safe 4 shots (pocket-rn, hand)",
    ]
    assert slow.tail == "; 2 of 3 timed groups got slower"


def test_one_clock_is_enough(old: Baseline) -> None:
    """A method that sleeps spends no seconds of the processor."""
    for times in (timing(20, 3), timing(2, 30)):
        assert len(compared(old, {"safe": times}).slower) == 2


def test_a_wide_interval_decides_nothing(old: Baseline) -> None:
    wild = tuple(Repeat(2 * 3.0**i, 0.02, 0.02) for i in range(-2, 3))
    known = compared(old, {"safe": Timing(wild, wild)})
    assert not known.slower and [p.finding for p in known.paces].count("cannot be said") == 2
    assert any("cannot say whether it takes over 1.5 times as long" in line for line in known.lines)


def test_groups_without_a_comparison_are_named_with_the_reason(old: Baseline) -> None:
    some = tuple(replace(k, timing=None) if k.cell["method"] == "safe" else k for k in old.kept)
    zero = next(k for k in some if k.timing)
    moved = replace(zero, machine={**zero.machine, "device_name": "Another CPU"})
    why = speed.unlike(zero, moved)
    assert why == (
        "the baseline's times come from another machine (cpu, Example CPU, 1 thread, torch 2.9.0, "
        "here cpu, Another CPU, 1 thread, torch 2.9.0)"
    )
    assert zero.timing is not None
    former = replace(zero, timing=replace(zero.timing, reference=0))
    assert "another reference workload" in speed.unlike(former, zero)
    assert not speed.unlike(zero, zero) and "fp16" in speed.unlike(zero, replace(zero, precision="fp16"))
    assert speed.compare(some, {}, {zero.identity: why}).lines == [
        "speed of safe 1 shot (pocket-rn, hand), safe 4 shots (pocket-rn, hand) was not compared: "
        + speed.NO_TIMES,
        f"speed of zero-shot (pocket-rn, hand) was not compared: {why}",
    ]
    alone = speed.compare([zero], {}, {zero.identity: why})
    assert alone.lines == [f"speed was not compared: {why}"] and not alone.slower and not alone.tail


def test_groups_of_one_name_are_compared_each(old: Baseline) -> None:
    """Names say nothing of protocol and preset."""
    one = next(k for k in old.kept if k.timing)
    other = replace(one, cell={**one.cell, "protocol": "no-val"})
    both = speed.compare([one, other], {k.identity: k for k in (one, other)}, {})
    assert len(both.paces) == 2 and both.paces[0].name == both.paces[1].name


def test_every_format_says_who_got_slower(old: Baseline, results: Path) -> None:
    verdict, slow = check(old, load_results(results)), compared(old, {"safe": timing(20, 30)})
    said = json.loads(view.as_json(verdict, slow))
    assert verdict.passed and not said["passed"] and said["speed"]["limit"] == 1.5
    assert [g["finding"] for g in said["speed"]["groups"]] == ["slower", "slower", "not slower"]
    worst = said["speed"]["groups"][0]["cpu"]
    assert worst["ratio"] == pytest.approx(10) and worst["interval"][0] < 10 < worst["interval"][1]
    assert said["headline"].endswith("2 of 3 timed groups got slower")
    text = view.text(verdict, slow)
    assert (
        "speed of safe 1 shot (pocket-rn, hand): takes over 1.5 times as long: 10.00 times the base" in text
    )
    assert text.rstrip().endswith("2 of 3 timed groups got slower")
    assert view.summary(verdict, slow).count("takes over 1.5 times as long") == 2
    assert view.commands(verdict, slow).count("::error title=safe ") == 2
    assert not view.commands(verdict, compared(old, {}))


def test_a_check_without_times_says_so_in_one_line(
    results: Path, plain: Baseline, old: Baseline, tmp_path: Path, capsys: Any
) -> None:
    """The reason is the true one: no times, times of an old kind, or nobody asked."""
    file = tmp_path / "b.json"
    baselines.save(file, plain)
    write_json(tmp_path / "former.json", {**read_json(file), "calibration": 0.5})
    baselines.save(tmp_path / "timed.json", old)
    add = speed.NO_TIMES
    for name, reason in (("b.json", add), ("former.json", add), ("timed.json", "add --rerun --speed")):
        ask = ("check", "--baseline", tmp_path / name, "--results", results, "--format")
        line = f"speed was not compared: {reason}"
        assert bench(*ask, "github") == 0
        assert capsys.readouterr().out.splitlines().count(line) == 1
    assert bench(*ask, "text") == 0
    assert capsys.readouterr().out.splitlines().count(line) == 1
    assert bench(*ask, "json") == 0
    assert json.loads(capsys.readouterr().out)["speed"]["lines"] == [line]


def test_times_survive_the_file(old: Baseline, tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    baselines.save(file, old)
    back = {k.identity: k.timing for k in baselines.load(file).kept}
    assert back == {k.identity: k.timing for k in old.kept} and sum(t is not None for t in back.values()) == 3
    on_gpu = replace(next(k for k in old.kept if k.timing), timing=Timing(timing(2, 3).wall))
    baselines.save(file, Baseline((on_gpu,)))
    assert baselines.load(file).kept[0].timing == on_gpu.timing


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t["wall"][0].update(work=0),
        lambda t: t["wall"][0].update(work="1"),
        lambda t: t["wall"][0].update(during=1),
        lambda t: t["cpu"][0].pop("after"),
        lambda t: t.update(wall=t["wall"][:1]),
        lambda t: t.update(cpu=t["cpu"][:1]),
        lambda t: t.pop("wall"),
    ],
)
def test_damaged_times_are_refused(results: Path, old: Baseline, tmp_path: Path, damage: Any) -> None:
    file = tmp_path / "b.json"
    baselines.save(file, old)
    whole = read_json(file)
    damage(next(c for c in whole["cells"] if "timing" in c)["timing"])
    write_json(file, whole)
    assert bench("check", "--baseline", file, "--results", results) == 2


def test_what_needs_another_option_is_refused(
    results: Path, plain: Baseline, tmp_path: Path, capsys: Any
) -> None:
    file = tmp_path / "b.json"
    baselines.save(file, plain)
    ask = ("check", "--baseline", file)
    for given, said in (
        (("--results", results, "--speed"), "--speed works only with --rerun"),
        (("--rerun", "--repeats", 4), "--repeats works only with --speed"),
        (("--rerun", "--slower", 2), "--slower works only with --speed"),
        (
            ("--rerun", "--speed"),
            "--speed: the baseline has no times to compare with",
        ),
    ):
        assert bench(*ask, *given) == 2
        assert said in capsys.readouterr().err
