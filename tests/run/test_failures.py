"""A cell that fails says which stage it failed in and why, costs only itself, and is tried again."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench import registry
from bench.data.dataset import Dataset
from bench.data.imagefile import FolderSource
from bench.errors import BenchError, UnreadableImage
from bench.features.decode import unreadable
from bench.records.types import EvaluationRecord, Failure, FitRecord
from bench.run import stages
from bench.run.session import Session
from tests.run.conftest import CLASSES, Bench, draw_images, of_type

COUNTS = {"train": 4, "val": 3, "test": 5}


def truncate(file: Path) -> bytes:
    """Cut an image file in half; returns what it was."""
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    return whole


def failures(results: Path) -> dict[str, Failure]:
    """The failures in a results folder, by method."""
    found = of_type(results, Failure)
    assert len({f.cell.method for f in found}) == len(found)
    return {f.cell.method: f for f in found}


def done(results: Path) -> set[tuple[str, str]]:
    """(method, dataset) of every evaluation that succeeded."""
    return {(r.cell.method, r.cell.dataset) for r in of_type(results, EvaluationRecord)}


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


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_unreadable_test_image_stops_its_dataset_only(
    bench: Bench, tmp_path: Path, images: Path, jobs: str
) -> None:
    spoilt, results = draw_images(tmp_path / "spoilt", COUNTS), tmp_path / "r"
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


def test_a_mended_image_takes_the_place_of_the_failure(bench: Bench, tmp_path: Path) -> None:
    """Where the lists are the dataset's identity the cell stays the same: its failure goes, and one image is
    encoded.
    """
    description, results = listed(tmp_path), tmp_path / "r"
    file = tmp_path / "images" / "test" / "banana" / "4.png"
    whole = truncate(file)
    command = (
        "run",
        "--methods",
        "zero-shot",
        "--results",
        results,
        "--cache",
        tmp_path / "cache",
        "--jobs",
        "1",
    )
    first = bench(*command, data=description)
    assert first.exit_code == 1 and "14 encodes" in first.output
    failed = failures(results)["zero-shot"]
    file.write_bytes(whole)
    second = bench(*command, data=description)
    assert second.exit_code == 0 and "1 fits, 1 evaluations, 1 encodes" in second.output
    assert not of_type(results, Failure)
    assert [r.key for r in of_type(results, FitRecord)] == [failed.key]
    assert "all 1 cells were recorded before" in bench(*command, data=description).output


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
    assert run.exit_code == 1 and "1 fits, 1 evaluations" in run.output
    failure = failures(results)["zero-shot"]
    assert (failure.of, failure.stage, failure.target) == ("evaluation", "read", "shifted") and str(
        file
    ) in failure.error
    assert [r.target for r in of_type(results, EvaluationRecord)] == ["listed"]
    why = bench(*command, "--dry-run", "--why", data=description).output
    assert f"failed before (read): {failure.error} on shifted; the evaluation is tried again" in why


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
PLACES = {
    "prepare": ("def prepare(self, task):\n        raise RuntimeError('wrong in prepare')", "prepare"),
    "solve": ("def solve(self, task, consts, values):\n        raise RuntimeError('wrong in solve')", "fit"),
    "init": (
        "def init(self, task, consts, values, generator):\n        raise RuntimeError('wrong in init')",
        "fit",
    ),
    "losses": (
        "def losses(self, params, consts, batch, values):\n        raise RuntimeError('wrong in losses')",
        "fit",
    ),
    "logits": (
        "def logits(self, params, consts, features, values):\n        raise RuntimeError('wrong in logits')",
        "evaluate",
    ),
    "sweep": (
        "def sweep(self, params, consts, features, values, grid):\n        raise RuntimeError('wrong in "
        "sweep')",
        "fit",
    ),
}
TRAINED = (
    "Recipe(streams={'image': Stream(batch=2)}, optim=OptimSpec('adamw'), schedule=Schedule('cosine'), "
    "steps=2, "
    "grid={LR: (0.1,)})"
)
RECIPES = {"init": TRAINED, "losses": TRAINED, "sweep": "Recipe(search={'a': (1.0, 2.0)}, fixed={'a': 1.0})"}


def plugin_of(places: Sequence[str]) -> str:
    """A method for each place, that raises there and is whole elsewhere."""
    lines = [
        "from bench.interface import LR, Method, OptimSpec, Recipe, Schedule, Stream",
    ]
    for place in places:
        lines += [
            f"\n\nclass Wrong{place.title()}(Method):\n    name = 'wrong-{place}'\n    title = 'Wrong in "
            f"{place}'",
            "    settings = {'a': 1.0}",
            f"\n    def recipe(self, settings, facts):\n        return {RECIPES.get(place, 'Recipe()')}",
            "\n    def init(self, task, consts, values, generator):\n        return {'W_KC': "
            "task.W_KC.clone()}",
            "\n    def logits(self, params, consts, features, values):\n        return features['pooled'] @ "
            "consts['W_KC'].T",
            f"\n    {PLACES[place][0]}",
        ]
    return "\n".join(lines) + "\n"


def test_the_stage_of_an_error_of_a_method(bench: Bench, tmp_path: Path) -> None:
    plugin, results = tmp_path / "wrong_places.py", tmp_path / "r"
    plugin.write_text(plugin_of(tuple(PLACES)))
    names = [f"wrong-{place}" for place in PLACES]
    command = (
        "run",
        "--methods",
        ",".join([*names, "zero-shot"]),
        "--plugin",
        plugin,
        "--results",
        results,
        "--jobs",
        "1",
    )
    run = bench(*command)
    assert run.exit_code == 1 and run.output.count("FAILED") == len(PLACES)
    assert done(results) == {("zero-shot", "shapes")}
    found = failures(results)
    assert {name: f.stage for name, f in found.items()} == {
        f"wrong-{place}": stage for place, (_, stage) in PLACES.items()
    }
    table = bench("table", "--results", results, "--format", "csv").output
    why = bench(*command, "--dry-run", "--why").output
    for place, (_, stage) in PLACES.items():
        failure = found[f"wrong-{place}"]
        assert failure.error == f"RuntimeError: wrong in {place}" and "Traceback" in failure.traceback
        assert failure.of == ("evaluation" if stage == "evaluate" else "fit")
        assert f"wrong-{place},2,ERR,-" in table
        assert re.search(
            rf"wrong-{place} .*: failed before \({stage}\): RuntimeError: wrong in {place}\b.*tried again",
            why,
        )
    assert bench(*command).exit_code == 1 and failures(results).keys() == found.keys()


def test_what_builds_on_a_failing_fit(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SAFE-A's record says what went wrong in SAFE, at the stage at which SAFE was."""

    def wrong(*_: object) -> None:
        raise RuntimeError("SAFE is wrong today")

    command = ("run", "--methods", "safe,safe-a,zero-shot", "--results", tmp_path, "--jobs", "1")
    with monkeypatch.context() as patched:
        patched.setattr(type(registry.builtin().get("safe")), "losses", wrong)
        assert bench(*command).exit_code == 1
    found = failures(tmp_path)
    assert {name: (f.of, f.stage) for name, f in found.items()} == {
        "safe": ("fit", "fit"),
        "safe-a": ("fit", "fit"),
    }
    assert {f.error for f in found.values()} == {"RuntimeError: SAFE is wrong today"}
    assert done(tmp_path) == {("zero-shot", "shapes")}
    assert bench(*command).exit_code == 0
    assert not of_type(tmp_path, Failure)
    assert done(tmp_path) == {("zero-shot", "shapes"), ("safe", "shapes"), ("safe-a", "shapes")}


def test_encoding_that_fails(
    bench: Bench, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For another reason than an image: the stage is encoding, and the other dataset goes on."""
    other, results = draw_images(tmp_path / "other", {**COUNTS, "test": 4}), tmp_path / "r"
    original = Session.encode

    def encode(self: Session, spec: Any, dataset: Dataset, requests: Any) -> Any:
        if dataset.name == "other":
            raise RuntimeError("the accelerator is gone")
        return original(self, spec, dataset, requests)

    monkeypatch.setattr(Session, "encode", encode)
    command = (
        "--datasets",
        f"{other},{images}",
        "--methods",
        "zero-shot,tip-adapter",
        "--results",
        results,
        "--jobs",
        "1",
    )
    run = bench("run", *command, data=None)
    assert run.exit_code == 1
    found = failures(results)
    assert {name: (f.stage, f.cell.dataset) for name, f in found.items()} == {
        "zero-shot": ("encode", "other"),
        "tip-adapter": ("encode", "other"),
    }
    assert {f.error for f in found.values()} == {"RuntimeError: the accelerator is gone"}
    assert done(results) == {("zero-shot", "shapes"), ("tip-adapter", "shapes")}


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


def test_the_innermost_stage_counts() -> None:
    with pytest.raises(BenchError) as caught, stages.stage("fit"), stages.stage("prepare"):
        raise BenchError("wrong")
    assert stages.of(caught.value) == "prepare"
    with pytest.raises(UnreadableImage) as unread, stages.stage("evaluate"):
        raise UnreadableImage("damaged")
    assert stages.of(unread.value) == "read"
    assert stages.of(UnreadableImage("damaged")) == "read"
    assert stages.of(RuntimeError("a worker died")) == "fit"


SWEPT = """
from bench.interface import Method

class Swept(Method):
    name = "swept"
    title = "Fails at one value"
    settings = {"x": 1.0}
    inference = ("x",)

    def logits(self, params, consts, features, values):
        if values["x"] == 2.0:
            raise RuntimeError("wrong on purpose")
        return features["pooled"] @ consts["W_KC"].T
"""


def test_one_value_of_a_sweep_fails_alone(bench: Bench, tmp_path: Path) -> None:
    plugin, results = tmp_path / "swept.py", tmp_path / "r"
    plugin.write_text(SWEPT)
    arguments = (
        "--methods",
        "swept",
        "--plugin",
        plugin,
        "--sweep",
        "swept.x=1,2,3",
        "--results",
        results,
        "--jobs",
        "1",
    )
    done = bench("run", *arguments)
    assert done.exit_code == 1 and "FAILED swept" in done.output
    assert sorted(r.values["x"] for r in of_type(results, EvaluationRecord)) == [1.0, 3.0]
    (failure,) = of_type(results, Failure)
    assert (failure.of, failure.stage, failure.values) == ("evaluation", "evaluate", {"x": 2.0})
    why = bench("run", *arguments, "--dry-run", "--why").output
    assert "failed before (evaluate): RuntimeError: wrong on purpose" in why and "are missing" not in why


def test_a_fresh_run_that_fails_is_recorded(bench: Bench, tmp_path: Path) -> None:
    """An older success under the same key is no result of this run."""
    plugin, results = tmp_path / "tired.py", tmp_path / "r"
    (tmp_path / "works").touch()
    text = (
        SWEPT.replace("Swept", "Tired")
        .replace("swept", "tired")
        .replace('values["x"] == 2.0', "not WORKS.exists()")
    )
    plugin.write_text(f"from pathlib import Path\n\nWORKS = Path({str(tmp_path / 'works')!r})\n{text}")
    arguments = ("--methods", "tired", "--plugin", plugin, "--results", results, "--jobs", "1")
    assert bench("run", *arguments).exit_code == 0
    (tmp_path / "works").unlink()
    assert bench("run", *arguments, "--fresh").exit_code == 1
    assert [f.error for f in of_type(results, Failure)] == ["RuntimeError: wrong on purpose"]
    assert "ERR" in bench("table", "--results", results, "--format", "csv").output
    (tmp_path / "works").touch()
    assert bench("run", *arguments).exit_code == 0
    assert not of_type(results, Failure)


def test_streamed_features_know_their_stage(bench: Bench, tmp_path: Path) -> None:
    plugin, results = tmp_path / "dense_one.py", tmp_path / "r"
    plugin.write_text(
        SWEPT.replace("Swept", "DenseOne")
        .replace("swept", "dense-one")
        .replace('values["x"] == 2.0', "True")
        .replace("    settings", '    taps = ("dense",)\n    settings')
    )
    command = (
        "--methods",
        "dense-one",
        "--plugin",
        plugin,
        "--no-dense-cache",
        "--cache",
        tmp_path / "c",
        "--results",
        results,
    )
    assert bench("run", *command, "--jobs", "1").exit_code == 1
    assert [f.stage for f in of_type(results, Failure)] == ["evaluate"]


@pytest.mark.parametrize("value", ["safe.beta=inf", "safe.beta=nan", "tip-adapter.beta=1e999"])
def test_numbers_that_no_key_holds_are_refused(bench: Bench, tmp_path: Path, value: str) -> None:
    done = bench("run", "--methods", "safe", "--set", value, "--results", tmp_path)
    assert isinstance(done.exception, BenchError) and f"--set {value}: not a finite number" in str(
        done.exception
    )


@pytest.mark.parametrize(
    ("values", "says"), [("0:1:1e-9", "at most 10,000"), ("0:inf:1", "finite"), ("0:nan:1", "finite")]
)
def test_sweeps_that_never_end_are_refused(bench: Bench, tmp_path: Path, values: str, says: str) -> None:
    done = bench(
        "run", "--methods", "safe", "--sweep", f"safe.beta={values}", "--results", tmp_path, "--dry-run"
    )
    assert isinstance(done.exception, BenchError) and says in str(done.exception)


def test_a_diverged_fit_says_so(bench: Bench, tmp_path: Path) -> None:
    """No check of it was better than none."""
    plugin = tmp_path / "diverging.py"
    plugin.write_text(
        "from bench.methods.safe import Safe\n\n\n"
        "class Diverging(Safe):\n    name = 'diverging'\n    title = 'Diverging'\n\n"
        "    def logits(self, params, consts, features, values):\n"
        "        return float('nan') * super().logits(params, consts, features, values)\n"
    )
    more = (
        "--set",
        "diverging.criterion=loss",
        "--set",
        "diverging.steps=2",
        "--set",
        "diverging.check_every=1",
    )
    done = bench(
        "run", "--methods", "diverging", "--plugin", plugin, *more, "--results", tmp_path / "r", "--jobs", "1"
    )
    assert done.exit_code == 1
    (failure,) = of_type(tmp_path / "r", Failure)
    assert "diverged" in failure.error and failure.stage == "fit", failure.error
