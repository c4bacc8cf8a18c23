"""The gate passes what has not changed, catches what is broken, and says when it cannot tell."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.files import read_json, write_json
from bench.report.frame import load_results
from bench.report.gate import baseline as baselines
from bench.report.gate import cells, view
from bench.report.gate import check as gate
from bench.report.gate.baseline import Baseline
from bench.report.gate.verdict import Group, Verdict
from tests.report import made

N = 400


def bench(*args: object) -> int:
    """The exit code of ``bench ...`` in this process."""
    from bench.cli import main

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["bench", *map(str, args)])
        main()
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.grid(
        tmp_path_factory.mktemp("results"),
        ["zero-shot", "tip-adapter", "safe"],
        ["birds", "fish"],
        (1, 4),
        n=N,
    )


@pytest.fixture(scope="module")
def old(results: Path) -> Baseline:
    return Baseline(tuple(cells.collect(load_results(results))))


def changed(
    baseline: Baseline, method: str, share: float, lift: bool = False, machine: str | None = None
) -> Baseline:
    """The baseline with other predictions for a share of a method's images: right (``lift``) or random."""
    rng = np.random.default_rng(0)
    kept = []
    for k in baseline.kept:
        top1 = k.top1.copy()
        if k.cell["method"] == method:
            hit = rng.random(len(top1)) < share
            assert k.labels is not None
            top1[hit] = k.labels[hit] if lift else rng.integers(0, made.CLASSES, int(hit.sum()))
        where = {**k.machine, "device_name": machine} if machine else k.machine
        kept.append(replace(k, top1=top1, machine=where))
    return replace(baseline, kept=tuple(kept))


def of(verdict: Verdict, name: str) -> Group:
    return next(g for g in verdict.groups if g.name.startswith(name))


def test_the_same_records_pass(results: Path, old: Baseline) -> None:
    verdict = gate.check(old, load_results(results))
    assert verdict.passed and all(g.agreement == 1 and g.by_agreement for g in verdict.groups)
    assert [g.name for g in verdict.groups] == [
        "safe 1 shot (pocket-rn, hand)",
        "safe 4 shots (pocket-rn, hand)",
        "tip-adapter 1 shot (pocket-rn, hand)",
        "tip-adapter 4 shots (pocket-rn, hand)",
        "zero-shot (pocket-rn, hand)",
    ]
    assert {g.reason for g in verdict.groups} == {"equal predictions"}
    largest = max(100 * g.test.smallest_drop for g in verdict.groups if g.test)
    said = f"a true drop of {largest:.2f} points in any group is called worse in at least 80 % of checks"
    assert largest > 1 and said in view.headline(verdict), "a drop within the margin is never called worse"


def test_same_machine_wants_the_same_predictions(results: Path, old: Baseline) -> None:
    """A change that keeps the accuracy is a finding too, and is not called worse."""
    before = changed(old, "safe", 0.02, lift=False)
    verdict = gate.check(before, load_results(results))
    assert of(verdict, "safe 1").finding == "changed" and of(verdict, "tip-adapter 1").passed
    reason = (
        r"agreement 9\d\.\d\d % is below 99\.5 % on the same kind of machine; "
        r"accuracy changed by .*; if the change is intended, use --update"
    )
    assert re.search(reason, of(verdict, "safe 1").reason)
    assert gate.check(before, load_results(results), rule="accuracy").passed
    assert gate.check(before, load_results(results), agreement=0.9).passed


def test_another_machine_may_flip_some_images(results: Path, old: Baseline) -> None:
    verdict = gate.check(changed(old, "safe", 0.02, machine="Another CPU"), load_results(results))
    assert (
        verdict.passed and not of(verdict, "safe 1").by_agreement and of(verdict, "safe 1").agreement < 0.995
    )


def test_a_drop_beyond_the_margin_fails_on_every_machine(results: Path, old: Baseline) -> None:
    """The baseline was 8 % of the images better."""
    for machine in ("Another CPU", None):
        better = changed(old, "safe", 0.3, lift=True, machine=machine)
        verdict = gate.check(better, load_results(results))
        worst = of(verdict, "safe 1")
        assert worst.finding == "worse" and of(verdict, "zero-shot").passed
        assert worst.test is not None and worst.test.interval.high < -0.01
        assert re.search(r"changed by -\d.*: all of this interval is below the margin of -1", worst.reason)
        assert "1 of" not in view.headline(verdict) and "2 of 5 groups got worse" in view.headline(verdict)
        loose = gate.check(better, load_results(results), margin=0.5)
        assert loose.finding == ("held" if machine else "changed")


def test_few_images_cannot_pass_on_another_machine_and_say_so(tmp_path: Path) -> None:
    made.grid(tmp_path, ["safe"], ["birds"], (1,), n=40)
    old = Baseline(tuple(cells.collect(load_results(tmp_path))))
    verdict = gate.check(changed(old, "safe", 0.04, lift=True, machine="Another CPU"), load_results(tmp_path))
    assert "this interval reaches below the margin of -1" in verdict.groups[0].reason
    assert verdict.finding == "undecided" and "1 of 1 group is undecided" in view.headline(verdict)
    assert gate.check(changed(old, "safe", 0.0, machine="Another CPU"), load_results(tmp_path)).passed, (
        "nothing flipped at all"
    )


@pytest.mark.parametrize("device", ["cuda:0", "cpu"])
def test_kind_of_machine(old: Baseline, device: str) -> None:
    one = old.kept[0]
    other = replace(one, machine={**one.machine, "device": device})
    assert (one.kind == other.kind) == (device == "cpu")
    assert replace(one, machine={**one.machine, "libraries": {"torch": "2.8.0"}}).kind != one.kind
    assert replace(one, machine={**one.machine, "commit": "1" * 40}).kind == one.kind


def test_a_failed_cell_fails_and_a_missing_one_is_no_answer(
    results: Path, old: Baseline, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    frame = load_results(folder)
    row = frame[(frame["method"] == "safe") & (frame["shots"] == 4)].iloc[0]
    for file in Path(row["path"]).parent.glob(f"{row['fit'][:20]}*"):
        file.unlink()
    with pytest.raises(BenchError, match=r"no record of safe birds, 4 shots, seed 1.*--rerun"):
        gate.check(old, load_results(folder))
    made.one(folder, made.cell("safe", "birds", 4, 1), status="failed")
    verdict = gate.check(old, load_results(folder))
    assert of(verdict, "safe 4").finding == "failed" and "out of memory" in of(verdict, "safe 4").reason
    assert "1 of 5 groups failed" in view.headline(verdict) and "FAIL" in view.text(verdict)


def test_another_test_set_is_no_answer(results: Path, old: Baseline) -> None:
    moved = replace(old, kept=(replace(old.kept[0], target_digest="0" * 64), *old.kept[1:]))
    with pytest.raises(BenchError, match="has changed since the baseline was made"):
        gate.check(moved, load_results(results))


def test_a_new_version_is_mentioned(results: Path, old: Baseline) -> None:
    before = replace(
        old, kept=tuple(replace(k, version=0) if k.cell["method"] == "safe" else k for k in old.kept)
    )
    assert gate.check(before, load_results(results)).warnings == (
        "safe has version 1, but the baseline has version 0",
    )


@given(st.lists(st.integers(0, 65535), min_size=1), st.booleans())
def test_predictions_survive_the_file(top1: list[int], small: bool) -> None:
    array = (np.array(top1) % (256 if small else 65536)).astype(np.uint16)
    stored = msgspec.json.decode(json.dumps(baselines._packed(array)), type=baselines._Top1)
    assert np.array_equal(baselines._unpacked(stored), array)


def test_a_baseline_survives_the_file(old: Baseline, tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    baselines.save(file, old)
    back = baselines.load(file)
    assert len(back.kept) == len(old.kept)
    by_identity = {k.identity: k for k in old.kept}
    for k in back.kept:
        assert np.array_equal(k.top1, by_identity[k.identity].top1)
        assert k.machine == by_identity[k.identity].machine and k.kind == by_identity[k.identity].kind
    baselines.save(tmp_path / "again.json", back)
    assert file.read_bytes() == (tmp_path / "again.json").read_bytes()


def without_checksum(top1: dict[str, Any]) -> dict[str, str]:
    return {"data": base64.b64encode(base64.b64decode(top1["data"])[:-4]).decode()}


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b.update(schema=99),
        lambda b: b.pop("cells"),
        lambda b: b["cells"][0].pop("target_digest"),
        lambda b: b["cells"][0]["cell"].pop("seed"),
        lambda b: b["cells"][0]["top1"].update(data="###"),
        lambda b: b["cells"][0]["top1"].update(data="AAAA"),
        lambda b: b["cells"][0]["top1"].update(n=3),
        lambda b: b["cells"][0]["top1"].update(without_checksum(b["cells"][0]["top1"])),
        lambda b: b["cells"][0].update(machine=9),
        lambda b: b.update(cells=[]),
    ],
)
def test_unusable_baselines_exit_2(results: Path, old: Baseline, tmp_path: Path, damage: Any) -> None:
    file = tmp_path / "b.json"
    baselines.save(file, old)
    whole = read_json(file)
    damage(whole)
    write_json(file, whole)
    assert bench("check", "--baseline", file, "--results", results) == 2


def test_exit_codes(results: Path, old: Baseline, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "b.json"
    assert bench("check", "--baseline", file, "--results", results) == 2
    assert "--update" in capsys.readouterr().err
    (tmp_path / "text.json").write_text("not JSON")
    assert bench("check", "--baseline", tmp_path / "text.json", "--results", results) == 2
    assert (
        bench("check", "--baseline", file, "--results", results, "--update", "--methods", "safe,zero-shot")
        == 0
    )
    assert {k.cell["method"] for k in baselines.load(file).kept} == {"safe", "zero-shot"}
    assert bench("check", "--baseline", file, "--results", results) == 0
    assert bench("check", "--baseline", file, "--results", tmp_path / "nothing") == 2
    assert bench("check", "--baseline", file, "--results", results, "--methods", "tip-adapter") == 2
    assert bench("check", "--baseline", file, "--results", results, "--rule", "both") == 2
    assert (
        bench("check", "--baseline", tmp_path / "new.json", "--results", results, "--update", "--rerun") == 2
    )
    for flag in ("--keep", "--device", "--plugin"):
        assert bench("check", "--baseline", file, "--results", results, flag, "cpu") == 2
        assert f"{flag} works only with --rerun" in capsys.readouterr().err
    baselines.save(file, changed(old, "safe", 0.02, lift=False))
    assert bench("check", "--baseline", file, "--results", results) == 5
    baselines.save(file, changed(old, "safe", 0.3, lift=True))
    assert bench("check", "--baseline", file, "--results", results) == 1
    assert bench("check", "--baseline", file, "--results", results, "--methods", "tip-adapter") == 0


def test_a_damaged_record_hides_no_finding(results: Path, old: Baseline, tmp_path: Path) -> None:
    """That the predictions changed needs a person; records that were left out need a run."""
    damaged = tmp_path / "results"
    shutil.copytree(results, damaged)
    next(p for p in damaged.rglob("*.json") if "tip-adapter" in str(p)).write_text("{")
    for baseline, code in ((old, 3), (changed(old, "safe", 0.02, lift=False), 5)):
        kept = tuple(k for k in baseline.kept if k.cell["method"] == "safe")
        baselines.save(tmp_path / "b.json", replace(baseline, kept=kept))
        assert bench("check", "--baseline", tmp_path / "b.json", "--results", damaged) == code


def test_github_format(
    results: Path, old: Baseline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file, summary = tmp_path / "b.json", tmp_path / "summary.md"
    summary.write_text("earlier step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    before = changed(old, "safe", 0.3, lift=True)
    before = replace(
        before, kept=tuple(replace(k, version=0) for k in before.kept if k.cell["method"] == "safe")
    )
    baselines.save(file, before)
    assert bench("check", "--baseline", file, "--results", results, "--format", "github") == 1
    out = capsys.readouterr().out
    errors = [line for line in out.splitlines() if line.startswith("::error ")]
    assert len(errors) == 2 and errors[0].startswith(
        "::error title=safe 1 shot (pocket-rn%2C hand) got worse::"
    )
    assert "all of this interval is below the margin of -1" in errors[0]
    assert any(
        line.startswith("::warning title=bench check::safe has version 1") for line in out.splitlines()
    )
    text = summary.read_text()
    assert text.startswith("earlier step\n## bench check") and text.count("❌") == 2
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {8}
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    assert bench("check", "--baseline", file, "--results", results, "--format", "github") == 2
    again = capsys.readouterr()
    assert again.out == out, "the verdict comes before what its summary's file refuses"
    assert str(tmp_path) in again.err and "is a directory" in again.err


def test_json_format(results: Path, old: Baseline, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "b.json"
    baselines.save(file, changed(old, "safe", 0.3, lift=True))
    check = ("check", "--baseline", file, "--results", results, "--format", "json")
    assert bench(*check) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["passed"] is False
    failed = [g for g in said["groups"] if not g["passed"]]
    assert {g["name"].split()[0] for g in failed} == {"safe"} and all(
        g["agreement"] < 99.5 and g["at_worst"] < g["change"] < g["at_best"] < -1 for g in failed
    )
    assert len(said["notes"]) == 1 and said["finding"] == "worse"


def test_markdown_and_commands_cannot_be_broken_by_names() -> None:
    group = Group("a|b<script>\n", 1, "worse", True, 0.5, None, "100 %\n::error::x")
    verdict = Verdict((group,), ())
    assert view.commands(verdict) == "::error title=a|b<script>%0A got worse::100 %25%0A::error::x\n"
    assert "<script>" not in view.summary(verdict) and "a\\|b" in view.summary(verdict)


def test_commands_of_the_workflow_parse() -> None:
    from tests.test_readme import ROOT, parse

    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    commands = re.findall(r"^[ #]*(bench [a-z].*?)(?: (?:>>|[|]{2}) .*)?$", text, re.M)
    assert {c.split()[1] for c in commands} == {"run", "check", "table", "report"}
    for command in commands:
        parse(tuple(command.split()))
