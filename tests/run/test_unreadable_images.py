"""An image that cannot be read stops the cells that need it, is named, and costs no others."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest

from bench.data.imagefile import FolderSource
from bench.errors import UnreadableImage
from bench.features.decode import unreadable
from bench.records.types import EvaluationRecord, Failure, FitRecord
from tests.run.conftest import (
    CLASSES,
    COUNTS,
    Bench,
    done,
    draw_images,
    failure_paths,
    failures,
    named_records,
    of_type,
    truncate,
)


def listed(folder: Path, *targets: Path) -> Path:
    """A dataset whose images are listed in a split file, so that its identity is the list and not what the
    files hold.
    """
    images = draw_images(folder / "images", COUNTS)
    names = sorted(CLASSES)
    rows = {
        part: [[f"{part}/{name}/{i}.png", names.index(name), name] for name in names for i in range(count)]
        for part, count in COUNTS.items()
    }
    (folder / "split.json").write_text(json.dumps(rows))
    description = folder / "listed.toml"
    description.write_text(
        f'name = "listed"\nreader = "coop-split"\ntargets = {json.dumps([str(t) for t in targets])}\n'
        f'[layout]\nfolders = ["."]\nimages = ["{images.name}"]\n[options]\nfile = "split.json"\n'
    )
    return description


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_an_unreadable_test_image_stops_its_dataset_only(
    bench: Bench, tmp_path: Path, images: Path, jobs: str
) -> None:
    spoilt, results = draw_images(tmp_path / "spoilt", {**COUNTS, "train": 5}), tmp_path / "r"
    file = spoilt / "test" / "apple" / "2.png"
    whole = truncate(file)
    command = (
        "run",
        "--datasets",
        f"{spoilt},{images}",
        "--methods",
        "zero-shot,tip-adapter",
        "--results",
        results,
    )
    run = bench(*command, "--jobs", jobs, data=None)
    assert run.exit_code == 1
    found = failures(results)
    assert set(found) == {"zero-shot", "tip-adapter"}
    for failure in found.values():
        assert (failure.stage, failure.of, failure.cell.dataset) == ("read", "fit", "spoilt")
        assert str(file) in failure.error and "UnreadableImage" in failure.traceback
        assert str(file) in re.findall(rf"failed: {failure.cell.method} spoilt .*: .*", run.output)[0]
        assert re.search(rf"FAILED {failure.cell.method} spoilt .*\(read\)", run.output)
    assert run.output.count("FAILED") == 2
    assert named_records(run.output) == sorted(2 * failure_paths(results))
    assert done(results) == {("zero-shot", "shapes"), ("tip-adapter", "shapes")}
    table = bench("table", "--results", results, "--format", "csv").output
    assert re.search(r"^tip-adapter,2,(ERR,\d[\d.]+|\d[\d.]+,ERR),-$", table, re.MULTILINE), table

    why = [
        line
        for line in bench(*command, "--dry-run", "--why", data=None).output.splitlines()
        if "failed before" in line
    ]
    assert len(why) == 2
    for line in why:
        assert (
            " spoilt " in line
            and f"failed before (read): {found['zero-shot'].error}" in line
            and "tried again" in line
        )
    again = bench(*command, "--jobs", "1", data=None)
    assert again.exit_code == 1 and "4 cells, 2 of them recorded before" in again.output
    assert set(failures(results)) == {"zero-shot", "tip-adapter"}

    file.write_bytes(whole)
    mended = bench(*command, "--jobs", "1", data=None)
    assert mended.exit_code == 0, mended.output
    table = bench("table", "--results", results, "--format", "csv").output
    assert "ERR" not in table and re.search(
        r"^tip-adapter,2,\d[\d.]+,\d[\d.]+,\d[\d.]+$", table, re.MULTILINE
    ), table


def test_a_missing_image_file(bench: Bench, tmp_path: Path) -> None:
    description, results = listed(tmp_path), tmp_path / "r"
    file = tmp_path / "images" / "test" / "apple" / "0.png"
    file.unlink()
    run = bench(
        "run", "--methods", "zero-shot", "--results", results, "--cache", tmp_path / "cache", data=description
    )
    assert run.exit_code == 1
    failure = failures(results)["zero-shot"]
    assert failure.stage == "read" and f"image file not found: {file}" in failure.error


def test_a_damaged_support_image_stops_who_reads_it(bench: Bench, tmp_path: Path) -> None:
    spoilt, results = draw_images(tmp_path / "spoilt", COUNTS), tmp_path / "r"
    file = spoilt / "train" / "broccoli" / "3.png"
    truncate(file)
    command = ("run", "--methods", "zero-shot,tip-adapter", "--results", results, "--jobs", "1")
    run = bench(*command, "--shots", "4", data=spoilt)  # all training images are drawn
    assert run.exit_code == 1
    found = failures(results)
    assert (
        set(found) == {"tip-adapter"}
        and found["tip-adapter"].stage == "read"
        and str(file) in found["tip-adapter"].error
    )
    assert done(results) == {("zero-shot", "spoilt")}


def test_one_shot_that_does_not_draw_the_damaged_image_goes_on(bench: Bench, tmp_path: Path) -> None:
    spoilt, results = draw_images(tmp_path / "spoilt", COUNTS), tmp_path / "r"
    truncate(spoilt / "train" / "apple" / "1.png")
    command = (
        "run",
        "--methods",
        "tip-adapter",
        "--results",
        results,
        "--jobs",
        "1",
        "--shots",
        "1",
        "--seeds",
        "1,2,3,4,5,6",
    )
    run = bench(*command, data=spoilt)
    failed = {f.cell.seed for f in of_type(results, Failure)}
    passed = {r.cell.seed for r in of_type(results, EvaluationRecord)}
    assert (
        run.exit_code == 1
        and failed
        and passed
        and failed | passed == set(range(1, 7))
        and not failed & passed
    )


def test_a_damaged_validation_image(bench: Bench, tmp_path: Path) -> None:
    """It stops what chooses on validation, and under the protocol without validation nothing."""
    spoilt, results = draw_images(tmp_path / "spoilt", {**COUNTS, "val": 2}), tmp_path / "r"
    file = spoilt / "val" / "apple" / "0.png"
    truncate(file)
    command = ("run", "--methods", "zero-shot,tip-adapter", "--results", results, "--jobs", "1")
    assert bench(*command, data=spoilt).exit_code == 1
    found = failures(results)
    assert (
        set(found) == {"tip-adapter"}
        and found["tip-adapter"].stage == "read"
        and str(file) in found["tip-adapter"].error
    )
    assert bench(*command, "--protocol", "no-val", data=spoilt).exit_code == 0


def test_every_unreadable_image_is_named_once(bench: Bench, tmp_path: Path) -> None:
    spoilt, results = draw_images(tmp_path / "spoilt", COUNTS), tmp_path / "r"
    files = [spoilt / "test" / name / "1.png" for name in CLASSES]
    truncate(files[0])
    files[1].write_text("no image at all")
    files[2].write_bytes(b"")
    run = bench("run", "--methods", "zero-shot", "--results", results, "--jobs", "1", data=spoilt)
    assert run.exit_code == 1
    named = [line for line in run.output.splitlines() if line.startswith("spoilt: ")]
    assert len(named) == 3
    assert all(sum(str(file) in line for line in named) == 1 for file in files)


def test_one_of_two_test_sets(bench: Bench, tmp_path: Path) -> None:
    """The fit and the whole test set go on; the other evaluation is the failure."""
    shifted = draw_images(tmp_path / "shifted", COUNTS)
    file = shifted / "test" / "apple" / "3.png"
    truncate(file)
    description, results = listed(tmp_path / "own", shifted), tmp_path / "r"
    command = (
        "run",
        "--methods",
        "zero-shot",
        "--results",
        results,
        "--cache",
        tmp_path / "cache",
        "--targets",
        "--jobs",
        "1",
    )
    run = bench(*command, data=description)
    assert run.exit_code == 1 and "1 fit, 1 evaluation," in run.output
    failure = failures(results)["zero-shot"]
    assert (failure.of, failure.stage, failure.target) == ("evaluation", "read", "shifted") and str(
        file
    ) in failure.error
    assert [r.target for r in of_type(results, EvaluationRecord)] == ["listed"]
    why = bench(*command, "--dry-run", "--why", data=description).output
    (path,) = failure_paths(results)
    said = f"failed before (read): {failure.error} (test set shifted; its record: {path})"
    assert f"{said}; the evaluation is tried again" in why


def test_streamed_test_images(bench: Bench, tmp_path: Path) -> None:
    """With ``--no-dense-cache`` the images are read when SAFE is evaluated; the stage is the same."""
    spoilt, results = draw_images(tmp_path / "spoilt", COUNTS), tmp_path / "r"
    file = spoilt / "test" / "apple" / "2.png"
    truncate(file)
    arguments = ("--results", results, "--no-dense-cache", "--jobs", "1")
    run = bench("run", "--methods", "safe", *arguments, data=spoilt)
    assert run.exit_code == 1
    failure = failures(results)["safe"]
    assert (failure.stage, failure.of, failure.target) == ("read", "evaluation", "spoilt") and str(
        file
    ) in failure.error
    assert len(of_type(results, FitRecord)) == 1, "the fit has read no test image"
    assert re.search(r"FAILED safe spoilt .*\(read\)", run.output)
    assert bench("run", "--methods", "safe,zero-shot", *arguments, data=spoilt).exit_code == 1
    assert {name: f.stage for name, f in failures(results).items()} == {"safe": "read", "zero-shot": "read"}


# One method for every place where the code of a method runs: name -> (body, stage).


def test_unreadable_finds_the_images_that_do_not_open(tmp_path: Path) -> None:
    draw_images(tmp_path, {"test": 2})
    truncate(tmp_path / "test" / "apple" / "0.png")
    (tmp_path / "test" / "banana" / "1.png").unlink()
    paths = [f"test/{name}/{i}.png" for name in CLASSES for i in range(2)]
    found = unreadable(FolderSource(tmp_path), paths)
    assert list(found) == ["test/apple/0.png", "test/banana/1.png"]
    for path, error in found.items():
        assert error.path == path and str(tmp_path / path) in str(error)
    assert unreadable(FolderSource(tmp_path), []) == {}


def test_an_unreadable_image_keeps_its_path_between_processes() -> None:
    again = pickle.loads(pickle.dumps(UnreadableImage("damaged", "a/b.png")))
    assert (str(again), again.path) == ("damaged", "a/b.png")
