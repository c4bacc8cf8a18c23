"""``bench run --folds``: a fit on all images but one fold's, for every fold, from the plan to predictions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bench.data import folds as cut
from bench.errors import BenchError
from bench.interface import EVAL
from bench.plan import needs, planner
from bench.plan.cells import Plan
from bench.plan.request import Request
from bench.records import places, store
from bench.records.types import EvaluationRecord, FitRecord
from bench.registry import builtin
from bench.report.frame import load_results
from bench.report.survey import STALE, survey
from bench.run import folds
from tests.run.conftest import CLASSES, Bench, draw_images, of_type

SIZES = dict(zip(CLASSES, (3, 6, 11), strict=True))
OF = 3
METHODS = ("zero-shot", "gda", "tip-adapter-f")


@pytest.fixture(scope="module")
def fruit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 3, 6 and 11 images, in one folder each."""
    root = draw_images(tmp_path_factory.mktemp("own"), {"fruit": max(SIZES.values())}) / "fruit"
    for name, size in SIZES.items():
        for image in (root / name).iterdir():
            if int(image.stem) >= size:
                image.unlink()
    return root


@pytest.fixture
def command(fruit: Path, bench: Bench, tmp_path: Path) -> tuple[object, ...]:
    """The words of a run of folds; the settings keep it short."""
    settings = ("--set", "tip-adapter-f.epochs=2")
    where = ("--datasets", fruit, "--backbone", "pocket-rn", "--results", tmp_path / "r")
    return ("run", "--folds", OF, "--methods", ",".join(METHODS), *where, *settings)


def call(bench: Bench, *words: object) -> str:
    """The output of a run that succeeds. ``bench`` adds seeds and shots to what lacks them, so not here."""
    from typer.testing import CliRunner

    from bench.cli.app import app

    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == 0, result.output
    return result.output


def planned(fruit: Path, results: Path) -> Plan:
    request = Request(
        METHODS, (str(fruit),), ("all",), (), ("pocket-rn",), results=results, folds=OF,
        overrides={"tip-adapter-f": {"epochs": 2}},
    )  # fmt: skip
    return planner.make(request, builtin())


def test_folds_are_planned_run_recorded_and_joined(
    fruit: Path, command: tuple[object, ...], bench: Bench, tmp_path: Path
) -> None:
    results = tmp_path / "r"
    said = call(bench, *command)
    assert f"{len(METHODS) * OF} cells to do" in said and "20 labelled images in folds" in said
    assert "50/20/30" not in said
    again = call(bench, *command, "--shots", "all")
    assert f"0 cells to do, {len(METHODS) * OF} done" in again
    fits = of_type(results, FitRecord)
    assert Counter((r.cell.method, r.cell.shots, r.cell.seed) for r in fits) == Counter(
        (method, "all", number) for method in METHODS for number in range(1, OF + 1)
    )
    assert {r.parts.draw_kind for r in fits} == {"fold"}
    assert len({r.parts.dataset for r in fits}) == OF
    assert {r.temperature is not None for r in fits if r.cell.method == "gda"} == {True}

    plan = planned(fruit, results)
    groups = folds.grouped(plan)
    assert [cell.method for cell in groups] == list(METHODS)
    whole = next(iter(groups.values()))[0].dataset.whole
    assert whole is not None
    items, place = cut.everything(whole), cut.assigned(whole, OF)
    for cell, some in groups.items():
        found = folds.predictions(list(reversed(some)))
        assert found.paths == items.paths and tuple(found.labels) == items.labels
        assert tuple(found.fold) == place and found.probabilities is None
        assert found.confidence is not None and (found.confidence >= 1 / 3).all()
        records = [r for r in of_type(results, EvaluationRecord) if r.cell.method == cell.method]
        assert found.right.mean() == pytest.approx(sum(r.n * r.top1 for r in records) / 20)
        for fit in some:
            mine = store.predictions(places.evaluation_path(fit.where, fit.key, fit.evaluations[0].key))
            by_path = dict(zip(fit.dataset.test.paths, mine["top1"], strict=True))
            assert all(
                found.top1[i] == by_path[path] for i, path in enumerate(found.paths) if path in by_path
            )
    assert not [one for one in survey(results, {}, complete=False).findings if one.kind == STALE]


def test_kept_logits_give_the_probabilities_of_all_classes(
    fruit: Path, command: tuple[object, ...], bench: Bench, tmp_path: Path
) -> None:
    call(bench, *command, "--keep-logits")
    for some in folds.grouped(planned(fruit, tmp_path / "r")).values():
        found = folds.predictions(some)
        assert found.probabilities is not None and found.confidence is not None
        assert found.probabilities.sum(1) == pytest.approx(1)
        best = found.probabilities.max(1)
        assert np.allclose(best, found.confidence, atol=0.02)  # logits are kept in half precision


def test_images_are_encoded_once_for_all_folds(
    fruit: Path, command: tuple[object, ...], bench: Bench, tmp_path: Path
) -> None:
    only = [w for w in command if w not in ("--set", "tip-adapter-f.epochs=2")]
    only[only.index(",".join(METHODS))] = "zero-shot,gda"
    said = call(bench, *only, "--cache", tmp_path / "cache")
    own = [fit for fit in planned(fruit, tmp_path / "r").fits if fit.method.name in ("zero-shot", "gda")]
    views = {view for fit in own for *_, view, _ in needs.of_fit(fit)} | {EVAL}
    assert f" {20 * len(views)} encodes" in said, said


def test_what_a_fit_learns_from_is_in_its_key_and_its_shots_are_the_median(
    fruit: Path, tmp_path: Path
) -> None:
    plan = planned(fruit, tmp_path)
    for fit in plan.fits:
        sizes = Counter(fit.draw.train.labels)
        assert not set(fit.draw.train.paths) & set(fit.dataset.test.paths)
        if fit.method.uses_labels:
            assert set(sizes) == {0, 1, 2} and fit.facts.n_support == sizes.total()
            assert fit.facts.shots == sorted(sizes.values())[1]
        else:
            assert (fit.facts.shots, fit.facts.n_support, len(fit.draw.val)) == (0, 0, 0)
    assert len({fit.key for fit in plan.fits}) == len(plan.fits)


def test_predictions_of_missing_or_wrong_folds_are_refused(
    fruit: Path, command: tuple[object, ...], bench: Bench, tmp_path: Path
) -> None:
    only = [w for w in command if w not in ("--set", "tip-adapter-f.epochs=2")]
    only[only.index(",".join(METHODS))] = "zero-shot"
    call(bench, *only)
    some = next(iter(folds.grouped(planned(fruit, tmp_path / "r")).values()))
    with pytest.raises(BenchError, match="is not one of 2 folds"):
        folds.predictions(some[:2])
    with pytest.raises(BenchError, match="a fold is there twice"):
        folds.predictions([some[0], some[0], some[2]])
    with pytest.raises(BenchError, match="no fit of a fold"):
        folds.predictions([])
    last = some[-1]
    path = places.evaluation_path(last.where, last.key, last.evaluations[0].key)
    path.unlink()
    with pytest.raises(BenchError, match=r"fold 3 .* has no record: the same `bench run`"):
        folds.predictions(some)


def test_tables_leave_folds_out_and_say_so(
    fruit: Path, command: tuple[object, ...], bench: Bench, tmp_path: Path
) -> None:
    only = [w for w in command if w not in ("--set", "tip-adapter-f.epochs=2")]
    only[only.index(",".join(METHODS))] = "gda"
    call(bench, *only)
    with pytest.raises(BenchError, match="only 3 results of folds"):
        load_results(tmp_path / "r")
    few = ("--shots", "1", "--seeds", "1")
    rest = [w for w in only if w not in ("--folds", OF)]
    call(bench, *rest, *few)
    frame = load_results(tmp_path / "r")
    assert list(frame["shots"]) == [1]
    assert any("3 results of folds" in note for note in frame.attrs["notes"])
    assert {r.cell.shots for r in of_type(tmp_path / "r", FitRecord)} == {"all", 1}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--shots", "all"), "add --folds 5"),
        (("--folds", "1"), "from 2 on"),
        (("--folds", "5", "--shots", "4"), "write --shots all"),
        (("--folds", "5", "--seeds", "1"), "leave --seeds out"),
        (("--folds", "5", "--targets"), "leave --targets or --folds out"),
    ],
)
def test_options_that_contradict_folds_are_refused(words: tuple[str, ...], said: str, fruit: Path) -> None:
    from typer.testing import CliRunner

    from bench.cli.app import app

    with pytest.raises(BenchError, match=said):
        CliRunner().invoke(app, ["run", "--datasets", str(fruit), *words], catch_exceptions=False)
