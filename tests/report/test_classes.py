"""The table of classes counts by class, starts with the hardest, and names only known classes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from typer.testing import CliRunner

from bench.data import catalog
from bench.errors import BenchError
from bench.records import store
from bench.records.types import EvaluationRecord
from bench.report import classnames
from bench.report.classes import by_class, most_taken
from bench.report.frame import load_results
from bench.report.tables import table
from bench.stats import mean_interval
from tests.report import confident, made, synthetic


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods with outputs; images of class 0 are often taken for class 1."""
    folder = tmp_path_factory.mktemp("results")
    return confident.grid(folder, {"zero-shot": 1.2, "safe": 2.0}, n=160, alike=0.9)


def predicted(frame: Any, **where: Any) -> tuple[np.ndarray, np.ndarray]:
    """Predictions by seed and test image, and labels."""
    for column, value in where.items():
        frame = frame[frame[column] == value]
    read = [store.predictions(Path(p)) for p in frame.sort_values("seed")["path"]]
    return np.stack([one["top1"] for one in read]), read[0]["labels"]


def test_a_row_is_the_interval_of_its_class_and_what_it_is_taken_for(results: Path) -> None:
    frame = load_results(results)
    got = table(frame, "classes", methods=["safe"])
    top1, labels = predicted(frame, method="safe")
    rows = {row.label: row.entries for row in got.rows}
    assert set(rows) == {f"class {k}" for k in range(confident.K)}
    for k in range(confident.K):
        mine, entries = labels == k, rows[f"class {k}"]
        interval = mean_interval(top1[:, mine] == k)
        assert entries["accuracy"].value == pytest.approx(100 * interval.estimate)
        assert entries["interval"].text == f"{100 * interval.low:.2f} to {100 * interval.high:.2f}"
        assert entries["images"].value == mine.sum()
    wrong = top1[:, labels == 0]
    assert rows["class 0"]["taken for"].text == "class 1"
    assert rows["class 0"]["share"].value == pytest.approx(100 * (wrong == 1).mean())
    assert got.title == "Classes of birds, 16 shots, SAFE"
    assert any("seeds 1, 2 and 3" in note for note in got.notes)


def test_the_hardest_class_stands_first_and_top_cuts(results: Path) -> None:
    frame = load_results(results)
    whole, some = table(frame, "classes", methods=["safe"]), table(frame, "classes", methods=["safe"], top=3)
    values = [row.entries["accuracy"].value for row in whole.rows]
    assert values == sorted(values) and whole.rows[0].label == "class 0"
    assert [row.label for row in some.rows] == [row.label for row in whole.rows[:3]]
    assert any("3 hardest of 8" in note for note in some.notes)
    assert not any("hardest of" in note for note in whole.notes)
    with pytest.raises(BenchError, match="at least one class"):
        table(frame, "classes", top=0)


def test_several_methods_have_a_column_each_and_classes_are_ordered_by_their_mean(results: Path) -> None:
    frame = load_results(results)
    got = table(frame, "classes", methods=["zero-shot", "safe"])
    names = ["Zero-shot CLIP", "SAFE"]
    columns = [names[0], "interval of Zero-shot CLIP", names[1], "interval of SAFE", "images"]
    assert got.columns == columns, "what a class is taken for belongs to one method"
    one = f"`bench table classes --datasets birds --methods zero-shot --results {results}`"
    assert any(note.endswith(f"{one}.") for note in got.notes)
    means = [np.mean([row.entries[name].value for name in names]) for row in got.rows]
    assert means == sorted(means)
    assert not any(entry.best or entry.tied for row in got.rows for entry in row.entries.values())


def test_of_many_methods_the_first_four_are_shown(tmp_path: Path) -> None:
    methods = ["calip", "coop", "safe", "tip-adapter", "zero-shot"]
    made.grid(tmp_path, methods, ["birds"], shots=(4,), seeds=(1,), n=30)
    frame = load_results(tmp_path)
    got = table(frame, "classes")
    assert len(got.columns) == 2 * 4 + 1
    assert any("the first 4 of 5 methods; --methods chooses" in note for note in got.notes)
    assert len(table(frame, "classes", methods=methods).columns) == 2 * 5 + 1


def test_seeds_of_equal_predictions_are_as_uncertain_as_one(tmp_path: Path) -> None:
    """Three times the same images are not three times as many images, in records without outputs too."""
    first = made.one(tmp_path / "once", made.cell("safe", "birds", 4, 1))
    arrays = dict(np.load(first.with_suffix(".npz")))
    for seed in (1, 2, 3):
        path = made.one(tmp_path / "thrice", made.cell("safe", "birds", 4, seed))
        record = store.read(path)
        assert isinstance(record, EvaluationRecord)
        kept = store.write_predictions(path, arrays)
        shares = {"top1": float((arrays["top1"] == arrays["labels"]).mean())}
        store.put(path, structs.replace(record, predictions=kept, top5=shares["top1"], **shares))
    texts = [
        {row.label: row.entries["interval"].text for row in table(load_results(folder), "classes").rows}
        for folder in (tmp_path / "once", tmp_path / "thrice")
    ]
    assert texts[0] == texts[1] and len(texts[0]) == len(np.unique(arrays["labels"]))


def test_the_most_frequent_wrong_class_is_told_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    first = np.array([[0, 1, 1, 2, 1, 1, 0], [0, 1, 2, 2, 1, 1, 0]])
    taken = most_taken([first], labels)
    assert taken[0] is not None and (taken[0].other, taken[0].share) == (1, 3 / 8), "1 and 2 tie; 1 is lower"
    assert taken[1] is None
    assert taken[2] is not None and (taken[2].other, taken[2].share) == (0, 1.0)


def test_every_form_has_every_class(results: Path) -> None:
    got = table(load_results(results), "classes", methods=["safe"])
    rows = list(csv.DictReader(io.StringIO(got.text("csv"))))
    assert [row["class"] for row in rows] == [row.label for row in got.rows]
    assert rows[0]["taken for"] == "class 1" and float(rows[0]["accuracy"]) < 60
    assert json.loads(got.text("json"))["rows"][0]["entries"]["images"]["value"] == float(rows[0]["images"])
    for form in ("md", "latex", "html", "console"):
        assert "class 0" in got.text(form)


def test_class_names_come_from_the_dataset_that_the_records_used() -> None:
    found = catalog.find("digits", None, images=False)
    labels = np.array(found.test.labels)
    assert classnames.of("digits", found.digest, labels)[3] == "three"
    other = classnames.of("digits", "0" * 64, labels)
    assert other[3] == "class 3" and "has changed" in other.why
    own = classnames.of("my-birds", "0" * 64, labels)
    assert own[0] == "class 0" and "by its path" in own.why


def test_a_choice_that_is_left_open_is_refused_in_one_line(results: Path, tmp_path: Path) -> None:
    made.grid(tmp_path, ["zero-shot", "safe"], ["birds", "fish"], shots=(1, 4), seeds=(1,), n=30)
    made.one(tmp_path, made.cell("safe", "birds", 4, 1), target="birds-v2")
    frame = load_results(tmp_path)
    for options, said in (
        ({}, "one dataset.*birds, fish.*--datasets"),
        ({"datasets": ["birds"]}, "1 and 4 shots.*--shots"),
        ({"datasets": ["birds-v2"]}, "--datasets birds --target birds-v2"),
        ({"datasets": ["birds"], "target": "birds-v3"}, "'birds-v3'; birds has birds and birds-v2"),
        ({"datasets": ["birds"], "shots": [4], "against": "paper"}, "leave --against out"),
    ):
        with pytest.raises(BenchError, match=said) as caught:
            table(frame, "classes", **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    shifted = table(frame, "classes", datasets=["birds"], target="birds-v2", methods=["safe"])
    assert shifted.title == "Classes of birds-v2, 4 shots, SAFE"
    assert any("one seed" in note for note in shifted.notes)


def test_the_command_line_shows_thirty_classes_on_a_terminal_and_all_in_a_file(tmp_path: Path) -> None:
    from bench.cli.app import app

    def bench(*words: str) -> Any:
        return CliRunner().invoke(app, ["table", *words, "--results", str(tmp_path)])

    synthetic.write_cell(tmp_path, "safe", "ants", 4, 1, 0.5, n=120, classes=40)
    shown = bench("classes", "--dataset", "ants")
    assert shown.output.count("\n class ") == 1 + 30 and "30 hardest of 40" in shown.output, shown.output
    whole = bench("classes", "--dataset", "ants", "--format", "csv").output
    assert len(whole.splitlines()) == 1 + 40
    assert len(bench("classes", "--top", "5", "--format", "csv").output.splitlines()) == 1 + 5
    for words in (("--top", "5"), ("--target", "ants")):
        refused = bench("1", *words)
        assert isinstance(refused.exception, BenchError) and "is for table classes" in str(refused.exception)


def test_a_failed_seed_leaves_its_method_out(results: Path, tmp_path: Path) -> None:
    made.grid(tmp_path, ["zero-shot", "safe"], ["birds"], shots=(4,), seeds=(1, 2), n=30)
    made.one(tmp_path, made.cell("safe", "birds", 4, 3), status="failed")
    got = table(load_results(tmp_path), "classes")
    assert got.title.endswith("Zero-shot CLIP")
    assert any(note.startswith("Left out, because a seed failed: SAFE") for note in got.notes)


def test_a_class_of_one_image_has_an_accuracy_and_no_interval() -> None:
    (first, alone), (second, interval) = by_class(np.array([[True, False, True]]), np.array([0, 1, 1]))
    assert (first, alone) == (1.0, None)
    assert second == 0.5 and interval is not None and interval.low < 0.5 < interval.high
