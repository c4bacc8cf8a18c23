"""Imported predictions are records like others: counted here, marked, replaced, never orphaned."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss
from typer.testing import CliRunner

from bench.cli.app import app
from bench.data import catalog
from bench.errors import BenchError
from bench.imported import template
from bench.imported.records import Asked, Done, bring
from bench.imported.table import read
from bench.records import store
from bench.records.types import EvaluationRecord
from bench.report.compact import pack
from bench.report.compare import compare
from bench.report.figures import time
from bench.report.figures.plot import plot
from bench.report.frame import load_results
from bench.report.gate.cells import collect
from bench.report.html import reproduce
from bench.report.outputs import outputs_of
from bench.report.survey import survey
from bench.report.tables import table
from tests.report import made

DIGITS = catalog.find("digits", None)
LABELS = np.array(DIGITS.test.labels)
ASKED = Asked("mine", "digits", 4, 1)
Bring = Callable[..., Done]


def write(file: Path, top1: Sequence[int] | np.ndarray, p: np.ndarray | None = None) -> Path:
    """A file of predictions for digits, in an order of its own."""
    names = [f"p_{name}" for name in DIGITS.classnames] if p is not None else []
    with file.open("w", newline="") as handle:
        lines = csv.writer(handle)
        lines.writerow(["image", "predicted", *names])
        for i in np.random.default_rng(0).permutation(len(LABELS)):
            row = [] if p is None else [f"{x:.6f}" for x in p[i]]
            lines.writerow([DIGITS.test.paths[i], DIGITS.classnames[top1[i]], *row])
    return file


def guesses(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(LABELS)) < 0.6, LABELS, rng.integers(0, 10, len(LABELS)))


@pytest.fixture
def importing(tmp_path: Path) -> Bring:
    """Import predictions into ``results``."""

    def run(
        top1: np.ndarray, p: np.ndarray | None = None, asked: Asked = ASKED, replaces: bool = False
    ) -> Done:
        file = write(tmp_path / "mine.csv", top1, p)
        return bring(file, asked, tmp_path / "results", ["safe"], cache=tmp_path, replaces=replaces)

    return run


def test_a_row_of_a_table_is_counted_here_and_marked(importing: Bring, tmp_path: Path) -> None:
    top1 = guesses()
    done = importing(top1)
    frame = load_results(tmp_path / "results")
    assert frame["accuracy"].tolist() == [100 * done.top1] == [100 * (top1 == LABELS).mean()]
    assert np.isnan(frame["top5"].iloc[0]), "of the other classes nothing is known"
    made_of_it = table(frame, "1")
    assert made_of_it.rows[0].label == "mine (imported)" and made_of_it.rows[0].names[0] == "mine"
    assert any("imported" in note for note in made_of_it.notes)


def test_notes_on_runs_here_are_not_for_them(importing: Bring, tmp_path: Path) -> None:
    importing(guesses())
    importing(guesses(1), asked=replace(ASKED, name="theirs"))
    frame = load_results(tmp_path / "results")
    assert not any("quick" in note for note in table(frame, "1").notes), "how they were trained is not known"
    said = " ".join(compare(frame, "mine", "theirs").table.notes)
    assert "an import of other seeds mends that" in said and "bench run" not in said
    with pytest.raises(BenchError, match=r"no record keeps .*: `bench import` a file that has probabilities"):
        table(frame, "1", metric="ece")


def test_metrics_are_those_of_scikit_learn(importing: Bring) -> None:
    p = np.random.default_rng(1).dirichlet(np.ones(10), len(LABELS)).round(6)
    p /= p.sum(1, keepdims=True)
    top1 = p.argmax(1)
    record = store.read(importing(top1, p).path)
    assert isinstance(record, EvaluationRecord) and record.per_class is not None
    assert record.metrics["nll"] == pytest.approx(log_loss(LABELS, p), abs=1e-4)
    assert record.metrics["macro-f1"] == pytest.approx(f1_score(LABELS, top1, average="macro"))
    assert record.top5 == pytest.approx(np.mean((np.argsort(-p, 1)[:, :5] == LABELS[:, None]).any(1)))
    assert "ece" in record.metrics and "ece-after" not in record.metrics, "no temperature is known"
    assert sum(record.per_class.images) == record.n == len(LABELS)


def test_the_same_predictions_are_recorded_once_and_others_replace_them_if_asked(
    importing: Bring, tmp_path: Path
) -> None:
    first = importing(guesses())
    before = first.path.read_bytes()
    again = importing(guesses())
    assert not again.new and again.path == first.path and first.path.read_bytes() == before
    where = (
        r"of mine on digits at 4 shots and seed 1, imported from mine.csv: write --replace .* or the --seed"
    )
    with pytest.raises(BenchError, match=where):
        importing(guesses(1))
    assert first.path.read_bytes() == before
    other = importing(guesses(1), replaces=True)
    assert other.new and other.replaced == (first.path,) and not first.path.exists()
    assert not first.path.with_suffix(".npz").exists()
    assert load_results(tmp_path / "results")["accuracy"].tolist() == [100 * other.top1]


def test_seeds_stand_side_by_side_and_share_a_row(importing: Bring, tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        importing(guesses(seed), asked=replace(ASKED, seed=seed))
    frame = load_results(tmp_path / "results")
    assert frame["seed"].tolist() == [1, 2, 3] and not frame.attrs["notes"]
    assert len(table(frame, "1").rows) == 1


def test_nothing_is_wrong_with_a_folder_of_them(importing: Bring, tmp_path: Path) -> None:
    importing(guesses())
    found = survey(tmp_path / "results", {})
    assert found.findings == [] and found.unjudged == []
    pack(tmp_path / "results", tmp_path / "packed")
    found = survey(tmp_path / "packed", {})
    assert found.findings == [] and found.unjudged == []
    both = [load_results(tmp_path / name) for name in ("results", "packed")]
    assert both[0]["accuracy"].tolist() == both[1]["accuracy"].tolist()


def test_other_predictions_count_before_packed_ones(importing: Bring, tmp_path: Path) -> None:
    importing(guesses())
    pack(tmp_path / "results", tmp_path / "packed")
    file = write(tmp_path / "mine.csv", guesses(1))
    done = bring(file, ASKED, tmp_path / "packed", [], cache=tmp_path, replaces=True)
    assert done.packed == 1 and done.replaced == ()
    assert load_results(tmp_path / "packed")["accuracy"].tolist() == [100 * done.top1]
    stale = survey(tmp_path / "packed", {}).findings
    assert [one.kind for one in stale] == ["stale"]


def test_missing_images_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(f"image,predicted\n{DIGITS.test.paths[0]},0\n")
    n = len(LABELS)
    with pytest.raises(BenchError, match=f"{n - 1} of the {n} test images .* such as .* and {n - 4} more: "):
        bring(file, ASKED, tmp_path / "results", [], cache=tmp_path)


def test_an_import_brings_back_the_probabilities_that_packing_dropped(
    importing: Bring, tmp_path: Path
) -> None:
    p = np.random.default_rng(1).dirichlet(np.ones(10), len(LABELS)).round(6)
    p /= p.sum(1, keepdims=True)
    importing(p.argmax(1), p)
    pack(tmp_path / "results", tmp_path / "packed")
    (path,) = load_results(tmp_path / "packed")["path"]
    assert not outputs_of(path).has(("logp",))
    news = [bring(tmp_path / "mine.csv", ASKED, tmp_path / "packed", [], cache=tmp_path).new for _ in "12"]
    (path,) = load_results(tmp_path / "packed")["path"]
    assert news == [True, False] and outputs_of(path).has(("logp",))


def test_the_gate_leaves_them_out_and_the_report_says_how_to_import(importing: Bring, tmp_path: Path) -> None:
    importing(guesses())
    made.one(tmp_path / "results", made.cell("tip-adapter", "birds", 4, 1))
    frame = load_results(tmp_path / "results")
    assert {kept.cell["method"] for kept in collect(frame)} == {"tip-adapter"}
    last = reproduce.commands(frame, {})[-1]
    assert last.text.startswith("bench import mine.csv --name mine --dataset digits --shots 4 --seed 1")
    assert last.lacks and "tip-adapter" not in last.text


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (replace(ASKED, name="SAFE"), "is a method of the program"),
        (replace(ASKED, name="../mine"), "use letters, digits"),
        (replace(ASKED, name="tip-adapter"), "has records of a method of this name that ran here"),
        (replace(ASKED, seed=0), "--seed at 1"),
        (replace(ASKED, protocol="recipes"), r"--protocol recipes: unknown \(did you mean 'recipe'\?\)"),
        (replace(ASKED, preset="fast"), "--preset fast: unknown; choose paper, quick"),
        (replace(ASKED, backbone="RN51"), "unknown backbone 'RN51'"),
        (replace(ASKED, dataset="digit"), "unknown dataset 'digit'"),
        (replace(ASKED, target="emoji"), "digits has no class"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    asked: Asked, why: str, importing: Bring, tmp_path: Path
) -> None:
    made.one(tmp_path / "results", made.cell("tip-adapter", "birds", 4, 1))
    before = sorted((tmp_path / "results").rglob("*"))
    with pytest.raises(BenchError, match=why):
        importing(guesses(), asked=asked)
    assert sorted((tmp_path / "results").rglob("*")) == before


def test_the_verb_says_what_it_did(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.csv", guesses(), np.eye(10)[guesses()])
    words = ["import", str(file), "--name", "mine", "--dataset", "digits", "--shots", "0"]
    done = CliRunner().invoke(app, [*words, "--results", str(tmp_path / "results")])
    wrong = int((guesses() != LABELS).sum())
    assert done.exit_code == 0, done.output
    assert f"note: the true class of {wrong} images has a probability below 1e-07" in " ".join(
        done.output.split()
    )
    cited = CliRunner().invoke(app, ["cite", "--results", str(tmp_path / "results")])
    assert cited.exit_code == 0 and "imported, so add their papers yourself: mine" in cited.output
    frame = load_results(tmp_path / "results")
    assert frame[["shots", "seed"]].to_numpy().tolist() == [[0, 0]]


def test_the_verb_asks_for_what_it_needs(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.csv", guesses())
    words = ["import", str(file), "--name", "mine", "--dataset", "digits", "--shots", "4"]
    done = CliRunner().invoke(app, [*words, "--results", str(tmp_path / "results")])
    assert isinstance(done.exception, BenchError) and "missing: --seed." in str(done.exception)
    assert not (tmp_path / "results").exists()


def test_a_template_lists_the_test_images_and_is_read_once_it_is_filled(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    done = CliRunner().invoke(app, ["import", "--template", str(file), "--dataset", "digits"])
    assert done.exit_code == 0, done.output
    with file.open(newline="") as text:
        head, *rows = csv.reader(text)
    assert head == ["image", "predicted", *(f"p_{name}" for name in DIGITS.classnames)]
    assert [row[0] for row in rows] == list(DIGITS.test.paths) and not any(any(row[1:]) for row in rows)
    with pytest.raises(BenchError, match="is there already"):
        template.write(file, DIGITS)
    sure = np.eye(10)[guesses()]
    lines = [head, *([path, "", *map(str, p)] for path, p in zip(DIGITS.test.paths, sure, strict=True))]
    file.write_text("\n".join(map(",".join, lines)))
    assert read(file, DIGITS).top1.tolist() == guesses().tolist()


def test_a_shifted_test_set_shares_the_fit_and_numbers_its_own_classes(
    importing: Bring, tmp_path: Path
) -> None:
    shift = catalog.find("emoji-r", None)
    file = tmp_path / "shift.csv"
    lines = [f"{path},{shift.classnames[y]}" for path, y in zip(*vars(shift.test).values(), strict=True)]
    file.write_text("\n".join(["image,predicted", *lines, ""]))
    asked = replace(ASKED, dataset="emoji", target="emoji-r")
    done = bring(file, asked, tmp_path / "results", [], cache=tmp_path)
    frame = load_results(tmp_path / "results")
    assert done.top1 == 1 and frame["target"].tolist() == ["emoji-r"]
    with pytest.raises(BenchError, match="write --dataset emoji --target emoji-r"):
        importing(guesses(), asked=replace(ASKED, dataset="emoji-r"))


def test_a_figure_of_seconds_leaves_them_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.grid(tmp_path, methods=("safe", "tip-adapter"), datasets=("birds",), shots=(4,), seeds=(1, 2))
    cost = time.cost
    monkeypatch.setattr(
        time,
        "cost",
        lambda path: cost(path) if "/safe/" in path else time.Cost(0.0, "an unnamed machine", True),
    )
    drawn = plot(load_results(tmp_path), "time")
    assert set(drawn.points["series"]) == {"safe"}
    assert any(note.endswith("no times (imported ones): tip-adapter.") for note in drawn.notes)
