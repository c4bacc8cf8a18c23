"""Which records count: each cell once, and never numbers of different makes together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from bench.errors import BenchError
from bench.records import places, store
from bench.records.types import EvaluationRecord, FitRecord, Provenance
from bench.report.coordinates import EVALUATION
from bench.report.frame import COLUMNS, correct, load_results
from tests.report.recorded import cell_of, key_of
from tests.report.synthetic import grid, write_cell

LATER = "2026-02-01T00:00:00.000+00:00"


def notes(frame: object) -> str:
    return " | ".join(frame.attrs["notes"])  # type: ignore[attr-defined]


def test_one_row_per_cell(tmp_path: Path) -> None:
    frame = load_results(grid(tmp_path, {"zero-shot": 0.5, "safe": 0.6}))
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == 2 + 2 * 2 * 3
    assert not frame.duplicated(list(EVALUATION)).any()
    assert frame.attrs["notes"] == []
    row = frame[(frame["method"] == "safe") & (frame["seed"] == 2) & (frame["shots"] == 1)].iloc[0]
    assert row["accuracy"] == pytest.approx(60.0)
    assert (row["steps"], row["configurations"], row["seconds"]) == (10, 3, 1.5)
    assert correct(row["path"]).mean() == pytest.approx(0.6)


def test_the_newest_version_alone_counts(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6, "coop": 0.4}, datasets=("ants",), shots=(1,))
    write_cell(tmp_path, "safe", "ants", 1, 1, 0.9, version=2, written="2020-01-01T00:00:00.000+00:00")
    frame = load_results(tmp_path)
    safe = frame[frame["method"] == "safe"]
    assert list(safe["version"]) == [2], "seeds of version 1 must not fill up version 2"
    assert len(frame[frame["method"] == "coop"]) == 3
    assert "3 records of safe version 1" in notes(frame)


def test_a_method_on_an_old_version_of_another_is_old_too(tmp_path: Path) -> None:
    old = write_cell(tmp_path, "safe", "ants", 1, 1, 0.6)
    write_cell(tmp_path, "safe-a", "ants", 1, 1, 0.7, after={"safe": old})
    assert set(load_results(tmp_path)["method"]) == {"safe", "safe-a"}
    new = write_cell(tmp_path, "safe", "ants", 1, 1, 0.5, version=2)
    frame = load_results(tmp_path)
    assert set(frame["method"]) == {"safe"}
    assert "safe version 1" in notes(frame)
    write_cell(tmp_path, "safe-a", "ants", 1, 1, 0.8, after={"safe": new})
    frame = load_results(tmp_path).set_index("method")
    assert frame.loc["safe-a", "accuracy"] == pytest.approx(80.0)


def test_settings_of_the_method_below_make_a_variant(tmp_path: Path) -> None:
    below = write_cell(tmp_path, "safe", "ants", 1, 1, 0.6, changed={"steps": 5})
    write_cell(tmp_path, "safe-a", "ants", 1, 1, 0.7, after={"safe": below}, changed={"key_views": "flip"})
    frame = load_results(tmp_path).set_index("method")
    assert frame.loc["safe", "variant"] == "steps=5"
    assert frame.loc["safe-a", "variant"] == "key_views=flip, safe.steps=5"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"weights": "w2"}, "older weights"),
        ({"content": "-2"}, "older images of ants, which have changed since"),
    ],
)
def test_other_weights_or_images_replace(tmp_path: Path, change: dict[str, str], word: str) -> None:
    grid(tmp_path, {"safe": 0.6}, datasets=("ants", "bees"), shots=(1,))
    write_cell(tmp_path, "coop", "ants", 1, 1, 0.4, written=LATER, **change)  # type: ignore[arg-type]
    frame = load_results(tmp_path)
    ants = frame[frame["dataset"] == "ants"]
    assert set(ants["method"]) == {"coop"}
    assert word in notes(frame)
    # Weights belong to the backbone, so they take the other dataset along; images do not.
    assert (set(frame["dataset"]) == {"ants"}) == ("weights" in change)


def test_the_later_of_two_settings_counts(tmp_path: Path) -> None:
    write_cell(tmp_path, "safe", "ants", 1, 1, 0.9)
    where = next((tmp_path / "runs").rglob("*.json")).parent
    before = set(where.iterdir())
    write_cell(tmp_path, "safe", "ants", 1, 1, 0.5, parts={"draw": "another"}, written=LATER)
    assert set(where.iterdir()) > before
    frame = load_results(tmp_path)
    assert list(frame["accuracy"]) == [pytest.approx(50.0)]
    assert "cells that were run again" in notes(frame)


def test_seeds_under_changed_defaults_do_not_mix(tmp_path: Path) -> None:
    """The program's own settings have changed, and one seed was run again; the others wait for their turn."""
    grid(tmp_path, {"safe": 0.6}, datasets=("ants", "bees"), shots=(1,))
    write_cell(tmp_path, "safe", "ants", 1, 2, 0.8, defaults={"steps": 500}, written=LATER)
    frame = load_results(tmp_path)
    ants = frame[frame["dataset"] == "ants"]
    assert list(ants["seed"]) == [2]
    assert list(ants["accuracy"]) == [pytest.approx(80.0)]
    assert len(frame[frame["dataset"] == "bees"]) == 3
    assert "3 records of safe from before its default settings changed" in notes(frame)


def test_a_later_failure_is_not_hidden_by_an_older_success(tmp_path: Path) -> None:
    write_cell(tmp_path, "safe", "ants", 1, 1, 0.9)
    write_cell(
        tmp_path, "safe", "ants", 1, 1, 0.9, after={"other": "0" * 64}, fail="no memory", written=LATER
    )
    frame = load_results(tmp_path)
    assert list(frame["status"]) == ["failed"]
    assert list(frame["error"]) == ["no memory"]


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6})
    path = next((tmp_path / "runs").rglob("*-*.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 3}))
    assert "schema 3" in load_results(tmp_path).attrs["bad"]


def test_no_records_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="bench run"):
        load_results(tmp_path)


def test_prompts_that_use_labels_are_known(tmp_path: Path) -> None:
    write_cell(tmp_path, "zero-shot", "ants", 4, 1, 0.5, prompts="mined")
    write_cell(tmp_path, "zero-shot", "ants", 0, 0, 0.5)
    frame = load_results(tmp_path).set_index("prompts")
    assert bool(frame.loc["mined", "label_prompts"])
    assert not bool(frame.loc["hand", "label_prompts"])


def test_predictions_that_are_gone(tmp_path: Path) -> None:
    frame = load_results(grid(tmp_path, {"safe": 0.6}, shots=(1,)))
    path = Path(frame["path"][0])
    path.with_suffix(".npz").write_bytes(b"torn")
    with pytest.raises(BenchError, match="not a zip file"):
        correct(path)
    path.with_suffix(".npz").unlink()
    with pytest.raises(BenchError, match="the predictions are gone; run the cell again"):
        correct(path)


def test_written_records_bear_the_time(tmp_path: Path) -> None:
    cell = {"method": "c", "dataset": "b", "shots": 1, "seed": 1, "backbone": "a", "prompts": "hand"}
    cell |= {"protocol": "recipe", "preset": "quick"}
    key = key_of(cell)
    fit = FitRecord(
        schema=2, key=key.digest(), cell=cell_of(cell), parts=key, provenance=Provenance(device="cpu")
    )
    path = places.fit_path(places.folder(tmp_path, "a", "b", "c"), fit.key)
    store.write(path, fit, store.Clock.of(tmp_path))
    record = store.read(path)
    assert record is not None
    assert record.provenance.device == "cpu"
    assert record.provenance.written > "2020"


def test_predictions_are_read_afresh_after_a_rerun(tmp_path: Path) -> None:
    import os

    write_cell(tmp_path, "safe", "ants", 1, 1, 0.6)
    path = Path(load_results(tmp_path)["path"][0])
    assert correct(path).mean() == pytest.approx(0.6)
    kept = store.predictions(path)
    right = {"top1": kept["labels"], "top5": np.stack([kept["labels"]] * 5, 1), "labels": kept["labels"]}
    record = store.read(path)
    assert isinstance(record, EvaluationRecord)
    store.put(path, replace(record, top1=1.0, top5=1.0, predictions=store.write_predictions(path, right)))
    os.utime(path.with_suffix(".npz"), ns=(1, 1))
    assert correct(path).all()


def test_records_say_which_prompts_use_labels(tmp_path: Path) -> None:
    """A set of any name, and the failed cells of it, which do not know it themselves."""
    write_cell(tmp_path, "zero-shot", "ants", 4, 1, 0.5, prompts="tuned", prompts_use_labels=True)
    write_cell(tmp_path, "zero-shot", "ants", 4, 2, 0.5, prompts="tuned", fail="it broke")
    write_cell(tmp_path, "zero-shot", "ants", 0, 0, 0.5, prompts="linear", prompts_use_labels=False)
    write_cell(tmp_path, "zero-shot", "ants", 4, 1, 0.5, prompts="mined-val", fail="it broke")
    frame = load_results(tmp_path)
    assert frame.groupby("prompts")["label_prompts"].agg(list).to_dict() == {
        "tuned": [True, True],
        "linear": [False],
        "mined-val": [True],
    }


def test_known_label_prompts_are_those_of_the_prompt_sets() -> None:
    from bench import prompts
    from bench.report.frame import LABEL_PROMPTS

    assert LABEL_PROMPTS == prompts.LABELLED
