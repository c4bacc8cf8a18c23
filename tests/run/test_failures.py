"""A cell that fails names its stage, its error and its record, costs only itself, and is tried again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench import registry
from bench.cli.codes import Code
from bench.cli.plan_view import show_outcome
from bench.data.dataset import Dataset
from bench.errors import BenchError, UnreadableImage
from bench.plan.cells import Plan
from bench.records.types import EvaluationRecord, Failure, FitRecord
from bench.run import stages
from bench.run.outcome import Failed, Outcome
from bench.run.session import Session
from tests.run.conftest import (
    COUNTS,
    Bench,
    done,
    draw_images,
    failure_paths,
    failures,
    named_records,
    of_type,
)

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
    assert named_records(run.output) == sorted(2 * failure_paths(results)), "at once and at the end"
    assert done(results) == {("zero-shot", "shapes")}
    found = failures(results)
    assert {name: f.stage for name, f in found.items()} == {
        f"wrong-{place}": stage for place, (_, stage) in PLACES.items()
    }
    table = bench("table", "--results", results, "--format", "csv").output
    why = bench(*command, "--dry-run", "--why").output
    assert named_records(why) == failure_paths(results)
    for place, (_, stage) in PLACES.items():
        failure = found[f"wrong-{place}"]
        assert failure.error == f"RuntimeError: wrong in {place}" and "Traceback" in failure.traceback
        assert failure.of == ("evaluation" if stage == "evaluate" else "fit")
        if stage == "evaluate":  # its fit is kept, and says why it has no temperature
            fit = next(r for r in of_type(results, FitRecord) if r.key == failure.fit)
            assert fit.temperature is None
            assert fit.notes[-1].endswith(f"no temperature could be fitted: {failure.error}")
        assert f"wrong-{place},2,ERR" in table
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


def test_failures_beyond_the_first_ones_name_their_folders(capsys: pytest.CaptureFixture[str]) -> None:
    failed = [Failed(f"safe {i}", "wrong", Path(f"r/{'a' if i < 12 else 'b'}/{i}.json")) for i in range(14)]
    assert show_outcome(Outcome(cells=14, failures=failed), set(), Plan([], [])) == Code.FAILED
    said = capsys.readouterr().err
    assert named_records(said) == sorted(str(f.record) for f in failed[:12])
    assert "and 2 more failed; their records are in r/b\n" in said
