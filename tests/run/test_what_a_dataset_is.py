"""The identity of a dataset is its content and not its name: equal names, and exchanged images."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import Result

from bench.data import catalog
from bench.plan import planner
from bench.plan.request import Request
from bench.records.types import EvaluationRecord, Failure, FitRecord
from bench.registry import builtin
from bench.report.frame import load_results
from tests.run.conftest import COUNTS, Bench, draw_images, of_type, truncate

Published = tuple[str, ...]
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
    (note,) = frame.attrs["notes"]
    assert all(f" is {data.parent.name}/birds" in note for data in twins), note
    again = bench("run", "--methods", "zero-shot", "--results", results, data=twins[0])
    assert "1 cell was recorded before" in again.output
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
def published(bench: Bench, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """The images under the lists of a dataset of the catalog: the words that ask for it.

    The feature store is the test's own, for all these datasets have one digest of their lists.
    """
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "store"))
    root = write_listed(images, tmp_path / "data" / "dtd" / "images")
    root.joinpath("split.json").rename(root.parent / "split_zhou_DescribableTextures.json")
    return "--datasets", "dtd", "--data-root", str(tmp_path / "data")


def write_listed(images: Path, root: Path, turned: bool = False) -> Path:
    """The images below ``root``, or each upside down, and their list in CoOp's form as split.json."""
    names = sorted(p.name for p in (images / "train").iterdir())
    split = {
        part: [
            [f"{part}/{name}/{file.name}", label, name]
            for label, name in enumerate(names)
            for file in sorted((images / part / name).iterdir())
        ]
        for part in COUNTS
    }
    for rows in split.values():
        for path, *_ in rows:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            with Image.open(images / path) as image:
                (image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if turned else image).save(root / path)
    (root / "split.json").write_text(json.dumps(split))
    return root


def own_toml(root: Path) -> Path:
    """A person's own description, called birds, of the list in ``root``."""
    (root / "birds.toml").write_text(
        'name = "birds"\nreader = "coop-split"\nfolder = "."\n[options]\nfile = "split.json"\n'
    )
    return root / "birds.toml"


def exchange(published: Published) -> None:
    """Turn the test images of a class grey, at the same paths."""
    for file in (Path(published[-1]) / "dtd" / "images" / "test" / "apple").iterdir():
        before = file.stat()
        Image.new("RGB", (48, 40), (90, 90, 90)).save(file)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))


def test_exchanged_images_are_encoded_and_measured_anew(
    bench: Bench, published: Published, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    first = bench("run", *METHODS, "--results", results, *published, data=None)
    assert first.exit_code == 0, first.output
    again = bench("run", *METHODS, "--results", results, *published, data=None)
    assert "all 2 cells were recorded before" in again.output
    exchange(published)
    dry = bench("run", *METHODS, "--results", results, "--dry-run", "--why", *published, data=None)
    assert "5 of its images are not those that were used before" in dry.output
    assert "2 cells to do" in dry.output and "stale: dataset" in dry.output
    anew = bench("run", *METHODS, "--results", results, *published, data=None)
    assert anew.exit_code == 0, anew.output
    assert " 0 encodes" not in anew.output
    frame = load_results(results)
    assert len(frame) == 2, "the older content is left out"
    assert "older images of dtd" in " ".join(frame.attrs["notes"])
    by_key = {r.key: r for r in of_type(results, EvaluationRecord)}
    assert {by_key[key].target_covers for key in frame["key"]} == {"contents"}
    old = {r.key for r in by_key.values()} - set(frame["key"])
    assert {by_key[key].target_covers for key in old} == {"lists"}


def test_features_of_exchanged_images_are_not_used_by_another_results_folder(
    bench: Bench, published: Published, tmp_path: Path
) -> None:
    store = tmp_path / "store"

    def run(name: str, cache: Path) -> Result:
        where = ("--results", tmp_path / name, "--cache", cache)
        return bench("run", "--methods", "zero-shot", *where, *published, data=None)

    assert run("one", store).exit_code == 0
    exchange(published)
    two = run("two", store)
    assert "15 encodes" in two.output, two.output
    new = run("three", tmp_path / "new")
    assert new.exit_code == 0
    (a,), (b,) = (of_type(tmp_path / name, EvaluationRecord) for name in ("two", "three"))
    assert a.top1 == b.top1
    assert (a.target_covers, b.target_covers) == ("contents", "lists")


def test_a_damaged_image_that_is_mended_is_no_exchange(
    bench: Bench, published: Published, tmp_path: Path
) -> None:
    file = tmp_path / "data" / "dtd" / "images" / "test" / "apple" / "0.png"
    whole, results = truncate(file), tmp_path / "results"
    command = ("run", *METHODS, "--results", results, *published, "--cache", tmp_path / "store")
    assert bench(*command, data=None).exit_code == 1
    failed = {failure.key for failure in of_type(results, Failure)}
    assert len(failed) == 2
    file.write_bytes(whole)
    mended = bench(*command, data=None)
    assert mended.exit_code == 0, mended.output
    assert not of_type(results, Failure) and {r.key for r in of_type(results, FitRecord)} == failed
    assert "not those that were used before" not in mended.output and " 1 encode," in mended.output


def test_clearing_the_store_forgets_what_images_were(
    bench: Bench, published: Published, tmp_path: Path
) -> None:
    store = tmp_path / "store"

    def run(name: str) -> EvaluationRecord:
        where = ("--results", tmp_path / name, "--cache", store)
        assert bench("run", "--methods", "zero-shot", *where, *published, data=None).exit_code == 0
        (record,) = of_type(tmp_path / name, EvaluationRecord)
        return record

    first = run("one")
    exchange(published)
    assert (store / "images").is_dir() and run("two").target_covers == "contents"
    assert bench("cache", "clear", "--yes", "--cache", store, data=None).exit_code == 0
    assert not (store / "images").exists()
    again = run("three")
    assert again.target_covers == "lists" and again.parts.target == first.parts.target


def test_a_plan_alone_writes_nothing_into_the_results(
    bench: Bench, published: Published, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    assert bench("run", *METHODS, "--results", results, "--dry-run", *published, data=None).exit_code == 0
    assert not (results / "images").exists()


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_own_lists_of_equal_paths_are_two_datasets(
    bench: Bench, images: Path, tmp_path: Path, jobs: str
) -> None:
    """Two descriptions with one name, one list and other images; workers must tell them apart too."""
    here = own_toml(write_listed(images, tmp_path / "whole"))
    there = own_toml(write_listed(images, tmp_path / "turned", turned=True))
    alone = {}
    for number, toml in enumerate((here, there)):
        results = tmp_path / f"alone-{number}"
        assert bench("run", *METHODS, "--results", results, data=toml).exit_code == 0
        alone |= {(r.target_identity, r.key): r.top1 for r in of_type(results, EvaluationRecord)}
    assert len(alone) == 4 and len({key for _, key in alone}) == 4
    for repeat in ("", "--fresh"):
        both = ("run", *METHODS, "--results", tmp_path / "both", *filter(None, [repeat]), "--jobs", jobs)
        done = bench(*both, "--datasets", f"{here},{there}", data=None)
        assert done.exit_code == 0, done.output
        assert done.output.count("read birds") == 2
        assert all(f" from {toml}:" in done.output for toml in (here, there)), done.output
        records = of_type(tmp_path / "both", EvaluationRecord)
        assert {(r.target_identity, r.key): r.top1 for r in records} == alone
    frame = load_results(tmp_path / "both")
    assert frame["dataset"].nunique() == 2
    (note,) = (n for n in frame.attrs["notes"] if n.startswith("Several datasets have the same name: birds"))
    assert all(f" is {toml.parent.name}/{toml.name}" in note for toml in (here, there)), note


def test_own_lists_notice_every_exchange(bench: Bench, images: Path, tmp_path: Path) -> None:
    """Whatever place has seen them before: the digest covers the contents."""
    toml = own_toml(write_listed(images, tmp_path / "whole"))
    assert bench("run", "--methods", "zero-shot", "--results", tmp_path / "r", data=toml).exit_code == 0
    file = tmp_path / "whole" / "test" / "apple" / "0.png"
    before = file.read_bytes()
    file.write_bytes((tmp_path / "whole" / "test" / "apple" / "1.png").read_bytes())
    dry = ("run", "--methods", "zero-shot", "--results", tmp_path / "r", "--dry-run")
    assert "1 cell to do" in bench(*dry, data=toml).output
    file.write_bytes(before)
    assert "0 cells to do, 1 done" in bench(*dry, data=toml).output


def test_index_files_of_a_name_are_not_those_of_a_persons_folder(images: Path, tmp_path: Path) -> None:
    indices = tmp_path / "data" / "indices" / images.name
    indices.mkdir(parents=True)
    (indices / "shot_2-seed_1.json").write_text("{}")
    assert catalog.find(str(images), tmp_path / "data").indices is None


def test_verify_hashes_every_file(bench: Bench, published: Published, tmp_path: Path) -> None:
    """A change that keeps size and time of change escapes the plan, and not ``bench data verify``."""
    results, file = tmp_path / "results", tmp_path / "data" / "dtd" / "images" / "test" / "apple" / "0.png"
    other = file.with_name("1.png")
    longer = max(file.stat().st_size, other.stat().st_size)
    for one in (file, other):  # of one size: what follows the end of a PNG is not read
        one.write_bytes(one.read_bytes().ljust(longer, b"\0"))
    run = ("run", "--methods", "zero-shot", "--results", results, *published)
    assert bench(*run, data=None).exit_code == 0
    verify = ("verify", "dtd", *published[2:], "--results", results)
    whole = bench("data", *verify)
    assert whole.exit_code == 0, whole.output
    before = file.stat()
    file.write_bytes(other.read_bytes())
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "1 cell was recorded before" in bench(*run, data=None).output
    changed = bench("data", *verify)
    assert "1 image is not the one that an earlier run used (test/apple/0.png)" in changed.output
    assert changed.exit_code == 5
    digests = [line for text in (whole, changed) for line in text.output.splitlines() if "contents:" in line]
    assert len(set(digests)) == 2


def test_verify_says_what_lists_hide(bench: Bench, published: Published, tmp_path: Path) -> None:
    root = tmp_path / "data" / "dtd" / "images"
    (root / "test" / "apple" / "0.png").write_bytes((root / "train" / "apple" / "1.png").read_bytes())
    said = bench("data", "verify", "dtd", *published[2:], "--results", tmp_path / "results").output
    assert "1 of 15 test images are also among the train images" in said
