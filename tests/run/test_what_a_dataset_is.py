"""Datasets are what they hold, not what they are called: equal names, and exchanged images."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import Result

from bench.plan import planner
from bench.plan.request import Request
from bench.plan.todo import remaining
from bench.records.types import EvaluationRecord, FitRecord
from bench.registry import builtin
from bench.report.frame import load_results
from tests.run.conftest import COUNTS, Bench, draw_images, of_type

METHODS = ("--methods", "zero-shot,tip-adapter")


@pytest.fixture
def twins(images: Path, tmp_path: Path) -> list[Path]:
    """Two folders of one name: the images, and the same turned upside down."""
    for place, turned in (("whole", False), ("turned", True)):
        for file in images.rglob("*.png"):
            copy = tmp_path / place / "birds" / file.relative_to(images)
            copy.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(file) as image:
                (image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if turned else image).save(copy)
    return [tmp_path / "whole" / "birds", tmp_path / "turned" / "birds"]


def plan_of(*datasets: Path, results: Path, cache: Path) -> planner.Plan:
    asked = Request(
        methods=("tip-adapter",),
        datasets=tuple(map(str, datasets)),
        shots=(2,),
        seeds=(1,),
        backbones=("pocket-rn",),
        results=results,
        cache=cache,
    )
    return planner.make(asked, builtin())


def test_each_of_two_datasets_of_one_name_is_measured_as_if_alone(
    bench: Bench, twins: list[Path], tmp_path: Path
) -> None:
    alone = {}
    for number, data in enumerate(twins):
        results = tmp_path / f"alone-{number}"
        assert bench("run", *METHODS, "--results", results, data=data).exit_code == 0
        alone |= {r.key: r.top1 for r in of_type(results, EvaluationRecord)}
    both = tmp_path / "both"
    done = bench("run", *METHODS, "--results", both, "--datasets", ",".join(map(str, twins)), data=None)
    assert done.exit_code == 0, done.output
    assert {r.key: r.top1 for r in of_type(both, EvaluationRecord)} == alone
    fits = of_type(both, FitRecord)
    assert len({r.parts.draw for r in fits if r.cell.shots}) == 1, "the names of the drawn files are equal"
    assert len({r.parts.dataset for r in fits}) == 2
    names = sorted({r.cell.dataset for r in fits})
    assert names[0] == "birds" and names[1].startswith("birds-")
    assert "equal" not in done.output


def test_draws_are_made_of_each_dataset_itself(tmp_path: Path) -> None:
    """Where files are named otherwise, a draw of the other dataset would name files that are not there."""
    here, there = tmp_path / "here" / "birds", tmp_path / "there" / "birds"
    draw_images(here, COUNTS)
    draw_images(there, {**COUNTS, "train": 9})
    plan = plan_of(here, there, results=tmp_path / "results", cache=tmp_path / "cache")
    alone = [
        plan_of(d, results=tmp_path / "results", cache=tmp_path / "cache").fits[0] for d in (here, there)
    ]
    assert [fit.draw.digest for fit in plan.fits] == [fit.draw.digest for fit in alone]
    assert [fit.key for fit in plan.fits] == [fit.key for fit in alone]
    assert plan.fits[0].draw.digest != plan.fits[1].draw.digest


def test_one_after_the_other_they_are_two_columns(bench: Bench, twins: list[Path], tmp_path: Path) -> None:
    results = tmp_path / "results"
    for data in twins:
        assert bench("run", "--methods", "zero-shot", "--results", results, data=data).exit_code == 0
    frame = load_results(results)
    assert len(frame) == 2 and frame["dataset"].nunique() == 2
    assert not frame.attrs["notes"]
    again = bench("run", "--methods", "zero-shot", "--results", results, data=twins[0])
    assert "all 1 cells were recorded before" in again.output
    assert "older than records" not in again.output, "the other dataset's records are no later ones of this"


@pytest.mark.parametrize(
    "name", ["猫狗", "日本 語", "x" * 240, "a,b", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"]
)
def test_folder_names_of_any_script_and_length(name: str, tmp_path: Path) -> None:
    folder = draw_images(tmp_path / name, COUNTS)
    (fit,) = plan_of(folder, results=tmp_path / "results", cache=tmp_path / "cache").fits
    assert fit.cell.dataset != "images"
    assert len(str(fit.where.parent.name).encode()) <= 100
    assert fit.where.parent.name.startswith(name[:1])


@pytest.fixture
def listed(images: Path, tmp_path: Path) -> Path:
    """The images under a list of paths, described by a TOML file of the user."""
    names = sorted(p.name for p in (images / "train").iterdir())
    split = {
        part: [
            [f"{part}/{name}/{file.name}", label, name]
            for label, name in enumerate(names)
            for file in sorted((images / part / name).iterdir())
        ]
        for part in COUNTS
    }
    root = tmp_path / "listed"
    for rows in split.values():
        for path, *_ in rows:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes((images / path).read_bytes())
    (root / "split.json").write_text(json.dumps(split))
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nreader = "coop-split"\nfolder = "listed"\n[options]\nfile = "split.json"\n'
    )
    return tmp_path / "mine.toml"


def exchange(toml: Path) -> None:
    """Turn the test images of a class grey, at the same paths."""
    for file in (toml.parent / "listed" / "test" / "apple").iterdir():
        before = file.stat()
        Image.new("RGB", (48, 40), (90, 90, 90)).save(file)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))


def test_exchanged_images_are_encoded_and_measured_anew(bench: Bench, listed: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    first = bench("run", *METHODS, "--results", results, data=listed)
    assert first.exit_code == 0, first.output
    again = bench("run", *METHODS, "--results", results, data=listed)
    assert "all 2 cells were recorded before" in again.output
    exchange(listed)
    dry = bench("run", *METHODS, "--results", results, "--dry-run", "--why", data=listed)
    assert "5 of its images are not those that were used before" in dry.output
    assert "2 cells to do" in dry.output and "stale: dataset" in dry.output
    anew = bench("run", *METHODS, "--results", results, data=listed)
    assert anew.exit_code == 0, anew.output
    assert " 0 encodes" not in anew.output
    frame = load_results(results)
    assert len(frame) == 2, "the older content is left out"
    assert "older images of mine" in " ".join(frame.attrs["notes"])
    by_key = {r.key: r for r in of_type(results, EvaluationRecord)}
    assert {by_key[key].target_covers for key in frame["key"]} == {"contents"}
    old = {r.key for r in by_key.values()} - set(frame["key"])
    assert {by_key[key].target_covers for key in old} == {"lists"}


def test_features_of_exchanged_images_are_not_used_by_another_results_folder(
    bench: Bench, listed: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"

    def run(name: str, cache: Path) -> Result:
        where = ("--results", tmp_path / name, "--cache", cache)
        return bench("run", "--methods", "zero-shot", *where, data=listed)

    assert run("one", store).exit_code == 0
    exchange(listed)
    two = run("two", store)
    assert "15 encodes" in two.output, two.output
    new = run("three", tmp_path / "new")
    assert new.exit_code == 0
    (a,), (b,) = (of_type(tmp_path / name, EvaluationRecord) for name in ("two", "three"))
    assert a.top1 == b.top1
    assert (a.target_covers, b.target_covers) == ("contents", "lists")


def test_workers_plan_what_the_parent_saw(bench: Bench, listed: Path, tmp_path: Path) -> None:
    """A worker of another machine may hold files with other times; the parent's digests count."""
    results = tmp_path / "results"
    assert bench("run", "--methods", "tip-adapter", "--results", results, data=listed).exit_code == 0
    exchange(listed)
    plan = plan_of(listed, results=results, cache=tmp_path / "cache")
    asked = Request(
        ("tip-adapter",), (str(listed),), (2,), (1,), ("pocket-rn",), results=tmp_path, contents=plan.contents
    )
    assert [f.key for f in planner.make(asked, builtin()).fits] == [f.key for f in plan.fits]
    assert len(remaining(plan)[0]) == 1


def test_verify_hashes_every_file(bench: Bench, listed: Path, tmp_path: Path) -> None:
    """A change that keeps size and time of change escapes the plan, and not ``bench data verify``."""
    results = tmp_path / "results"
    assert bench("run", "--methods", "zero-shot", "--results", results, data=listed).exit_code == 0
    verify = ("verify", str(listed), "--results", results)
    whole = bench("data", *verify)
    assert whole.exit_code == 0, whole.output
    file = tmp_path / "listed" / "test" / "apple" / "0.png"
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(bytes(content))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = bench("data", *verify)
    assert "1 images are not those that were used before, first test/apple/0.png" in changed.output
    assert changed.exit_code in (1, 5), "5, or 1 where the altered file does not open any more"
    digests = [line for text in (whole, changed) for line in text.output.splitlines() if "contents:" in line]
    assert len(set(digests)) == 2


def test_verify_says_what_lists_hide(bench: Bench, listed: Path, tmp_path: Path) -> None:
    root = tmp_path / "listed"
    (root / "test" / "apple" / "0.png").write_bytes((root / "train" / "apple" / "1.png").read_bytes())
    said = bench("data", "verify", str(listed), "--results", tmp_path / "results").output
    assert "1 of 15 test images are also among the train images" in said
