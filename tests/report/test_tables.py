"""Tables 1, 2, 3 and ablation: numbers, gaps, marks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bench.errors import BenchError
from bench.report.frame import COLUMNS, correct, load_results
from bench.report.table import FAILED, MISSING, Row, Table
from bench.report.tables import table
from bench.stats import column_marks
from tests.report.synthetic import grid, write_cell

METHODS = {"zero-shot": 0.5, "safe": 0.6, "tip-adapter-f": 0.595, "coop": 0.4}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return load_results(grid(tmp_path_factory.mktemp("full"), METHODS))


def row(printed: Table, label: str, shots: int, backbone: str = "") -> Row:
    (hit,) = [
        r
        for r in printed.rows
        if r.names[0] == label and r.shots == shots and (not backbone or r.heads[2] == backbone)
    ]
    return hit


def said(printed: Table) -> str:
    return " | ".join(printed.notes)


def test_means_over_seeds_and_datasets(full: pd.DataFrame) -> None:
    printed = table(full)
    assert printed.columns == ["ants", "bees", "average"]
    assert [(r.label, r.shots) for r in printed.rows][:2] == [("zero-shot", 0), ("coop", 1)]
    safe = row(printed, "safe", 1).entries
    # 59, 60 and 61 % of 100 images in the three seeds.
    assert safe["ants"].text == "60.00"
    assert safe["average"].value == pytest.approx((safe["ants"].value + safe["bees"].value) / 2)  # type: ignore[operator]
    assert "3 seeds" in said(printed)


def test_best_is_bold_and_what_is_tied_underlined(full: pd.DataFrame) -> None:
    printed = table(full)
    for shots in (1, 16):
        best, near, far = (row(printed, m, shots).entries for m in ("safe", "tip-adapter-f", "coop"))
        for column in printed.columns:
            assert (best[column].best, best[column].tied) == (True, False)
            assert (near[column].best, near[column].tied) == (False, True)
            assert (far[column].best, far[column].tied) == (False, False)
    assert not any(e.best or e.tied for e in row(printed, "zero-shot", 0).entries.values()), (
        "alone, it is best of nothing"
    )


def test_underlines_are_those_of_the_statistics(full: pd.DataFrame) -> None:
    import numpy as np

    printed = table(full)
    cells = {}
    for method in ("safe", "tip-adapter-f", "coop"):
        rows = full[(full["method"] == method) & (full["shots"] == 16)].sort_values("seed")
        cells[method] = [
            np.stack([correct(p) for p in rows[rows["dataset"] == d]["path"]]) for d in ("ants", "bees")
        ]
    marks = column_marks(cells)
    for method, mark in marks.items():
        assert row(printed, method, 16).entries["average"].tied == mark.tied


def test_marks_can_be_switched_off(full: pd.DataFrame) -> None:
    def counts(**options: bool) -> tuple[int, int]:
        entries = [e for r in table(full, **options).rows for e in r.entries.values()]  # type: ignore[arg-type]
        return sum(e.best for e in entries), sum(e.tied for e in entries)

    both = counts()
    assert min(both) > 0
    assert counts(bold=False) == (0, both[1])
    assert counts(underline=False) == (both[0], 0)


def test_predictions_that_went_after_they_were_counted_cost_the_underlines(tmp_path: Path) -> None:
    frame = load_results(grid(tmp_path, METHODS))
    for file in tmp_path.rglob("*.npz"):
        file.unlink()
    assert row(table(frame, underline=False), "safe", 1).entries["ants"].best
    printed = table(frame)
    assert row(printed, "safe", 1).entries["ants"].best
    assert "Nothing is underlined here" in said(printed)


def test_failed_is_err_and_absent_is_a_dash(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6, "coop": 0.4}, shots=(1,))
    write_cell(tmp_path, "lp", "ants", 1, 1, 0.7)
    write_cell(tmp_path, "lp", "ants", 1, 2, 0.7, fail="it broke")
    write_cell(tmp_path, "gda", "ants", 1, 1, 0.7)
    frame = load_results(tmp_path)
    printed = table(frame)
    lp, gda = row(printed, "lp", 1).entries, row(printed, "gda", 1).entries
    assert (lp["ants"].text, lp["bees"].text, lp["average"].text) == (FAILED, MISSING, MISSING), (
        "no mean over survivors"
    )
    assert (gda["ants"].text, gda["bees"].text, gda["average"].text) == ("70.00 (1/3)", MISSING, MISSING)
    assert "it broke" in said(printed)
    assert "Incomplete at 1 shot: gda and lp have no result on bees." in said(printed), "ERR is not a gap"
    assert "--partial" in said(printed)
    partial = table(frame, partial=True)
    assert row(partial, "gda", 1).entries["average"].text == "70.00*"
    assert "--partial" not in said(partial)
    assert row(partial, "lp", 1).entries["average"].text == MISSING
    assert not row(partial, "gda", 1).entries["average"].best
    assert row(partial, "safe", 1).entries["average"].best


def test_rows_that_lack_the_same_share_a_note(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6, "coop": 0.4}, shots=(1, 16))
    grid(tmp_path, {"safe": 0.6, "coop": 0.4}, datasets=("ants",), shots=(2, 4), seeds=(1,))
    grid(tmp_path, {"safe": 0.6}, datasets=("bees",), shots=(8,), seeds=(1,))
    printed = table(load_results(tmp_path))
    assert [n for n in printed.notes if n.startswith("Incomplete")] == [
        "Incomplete at 2 and 4 shots: all rows have no result on bees.",
        "Incomplete at 8 shots: safe has no result on ants.",
    ]
    assert printed.notes[0].startswith(
        "The numbers are test accuracies in %, each the mean over 3 seeds at 1 and 16 shots, "
        "1 seed at 2, 4 and 8 shots."
    )


def test_rows_without_labels_have_one_run(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6, "zero-shot": 0.4}, shots=(1,))
    frame = load_results(tmp_path)
    once = "The numbers are test accuracies in %, each the mean over 3 seeds (zero-shot: one run). "
    assert table(frame).notes[0].startswith(once)
    few = "The numbers are test accuracies in %, each the mean over 3 seeds. "
    assert table(frame, methods=["safe"]).notes[0].startswith(few)


def test_oracle_rows_are_marked_and_never_best(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6, "coop": 0.4}, shots=(1,))
    grid(tmp_path, {"safe": 0.95}, shots=(1,), protocol="test-oracle")
    printed = table(load_results(tmp_path))
    oracle = row(printed, "safe (test-oracle)", 1)
    assert oracle.oracle
    assert not any(e.best or e.tied for e in oracle.entries.values())
    assert row(printed, "safe", 1).entries["average"].best
    assert "chose hyper-parameters on the test images" in said(printed)


def test_other_seeds_are_not_compared(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6, "coop": 0.4}, shots=(1,))
    grid(tmp_path, {"cocoop": 0.9}, shots=(1,), seeds=(1,))
    printed = table(load_results(tmp_path))
    assert not row(printed, "cocoop", 1).entries["ants"].best
    assert row(printed, "safe", 1).entries["ants"].best
    assert "other seeds: cocoop at 1 shot" in said(printed)


def test_label_using_prompts_are_marked(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6}, shots=(1,))
    grid(tmp_path, {"safe": 0.6}, shots=(1,), prompts="mined")
    printed = table(load_results(tmp_path))
    assert sorted(r.label for r in printed.rows) == ["safe (hand)", "safe (mined: uses labels)"]
    assert "chosen or trained with labelled images" in said(printed)


def test_changed_settings_stand_apart(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6}, shots=(1,))
    grid(tmp_path, {"safe": 0.7}, shots=(1,), changed={"steps": 5})
    frame = load_results(tmp_path)
    assert [r.names[0] for r in table(frame).rows] == ["safe"]
    assert "rows of safe with changed settings" in said(table(frame))
    assert [r.names[0] for r in table(frame, variants=True).rows] == ["safe", "safe (steps=5)"]
    grid(tmp_path, {"coop": 0.7}, shots=(1,), changed={"steps": 5})
    assert "coop (steps=5)" in [r.names[0] for r in table(load_results(tmp_path)).rows], (
        "the only rows that it has"
    )


def test_narrowing(full: pd.DataFrame) -> None:
    printed = table(full, methods=["tip_adapter_f", "SAFE"], datasets=["bees"], shots=[16])
    assert [r.names[0] for r in printed.rows] == ["tip-adapter-f", "safe"], "in the order asked for"
    assert printed.columns == ["bees"], "no average of one dataset"
    with pytest.raises(BenchError, match="did you mean 'safe'"):
        table(full, methods=["sade"])
    with pytest.raises(BenchError, match="did you mean 'ablation'"):
        table(full, "ablatoin")
    with pytest.raises(BenchError, match=r"no records match the options: .* `bench run"):
        table(full.iloc[:0])


def test_backbones_do_not_mix(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6})
    grid(tmp_path, {"safe": 0.6}, backbone="toy-vit")
    frame = load_results(tmp_path)
    with pytest.raises(BenchError, match="--backbone"):
        table(frame)
    assert len(table(frame, backbone="toy-vit").rows) == 2


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    root = tmp_path_factory.mktemp("shift")
    for backbone in ("toy-rn", "toy-vit"):
        for method, base in (("safe", 0.6), ("coop", 0.4)):
            for seed in (1, 2, 3):
                for target, drop in (("ants", 0.0), ("ants-v2", 0.1), ("ants-r", 0.2)):
                    write_cell(root, method, "ants", 16, seed, base - drop, target=target, backbone=backbone)
    write_cell(root, "lp", "ants", 16, 1, 0.0, fail="it broke")
    grid(root, {"safe": 0.6}, datasets=("bees",))
    return load_results(root)


def test_shifts_by_backbone(shifted: pd.DataFrame) -> None:
    printed = table(shifted, "3", targets=["ants-v2", "ants-r"])
    assert printed.columns == ["ants", "ants-v2", "ants-r", "average of shifts"]
    assert [(r.heads[2], r.names[0]) for r in printed.rows] == [
        ("toy-rn", "coop"),
        ("toy-rn", "lp"),
        ("toy-rn", "safe"),
        ("toy-vit", "coop"),
        ("toy-vit", "safe"),
    ]
    safe = row(printed, "safe", 16, "toy-vit").entries
    assert (safe["ants"].text, safe["ants-r"].text, safe["average of shifts"].text) == (
        "60.00",
        "40.00",
        "45.00",
    )
    assert all(e.best for e in safe.values()), "each backbone has its own best"
    assert {e.text for c, e in row(printed, "lp", 16).entries.items() if c in ("ants", "ants-r")} == {FAILED}


def test_shifts_need_one_source(full: pd.DataFrame, shifted: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="--targets"):
        table(full, "3")
    for source in ("ants", "bees"):
        write_cell(tmp_path, "safe", source, 16, 1, 0.6, target=f"{source}-v2")
    with pytest.raises(BenchError, match=r"ants, bees.*--datasets"):
        table(load_results(tmp_path), "3")
    assert table(load_results(tmp_path), "3", datasets=["bees"]).columns == ["bees", "bees-v2"]


def test_sizes() -> None:
    none = pd.DataFrame(columns=list(COLUMNS))
    ours = {
        "dtd": {"classes": 47, "train": 2820, "val": 1128, "test": 1692},
        "ucf101": {"classes": 100},
        "ants": {"classes": 3},
    }
    printed = table(none, "2", counts=ours)
    by_name = {r.heads[0]: r.entries for r in printed.rows}
    assert by_name["dtd"]["verdict"].text == "same"
    assert by_name["dtd"]["paper: test"].value == 1692
    assert by_name["ucf101"]["verdict"].text == "differs: classes, train, val, test"
    assert (by_name["ants"]["verdict"].text, by_name["ants"]["classes"].text) == (MISSING, "3")


def test_remarks_on_several_datasets_are_said_once() -> None:
    printed = table(
        pd.DataFrame(columns=list(COLUMNS)),
        "2",
        counts={name: {"test": 1} for name in ("dtd", "food101", "imagenet")},
    )
    note = "the paper says 'official test set', but these are the sizes of CoOp's own 50/20/30 split"
    assert f"dtd and food101: {note}" in printed.notes
    assert any(note.startswith("imagenet, val: the paper prints N/A") for note in printed.notes)


def test_sizes_know_what_was_evaluated(full: pd.DataFrame) -> None:
    printed = table(full, "2", counts={"ants": {"test": 99}})
    assert printed.rows[0].entries["evaluated"].value == 100
    assert "evaluate 100 test images" in said(printed)


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    root = grid(tmp_path_factory.mktemp("varied"), {"safe": 0.6, "safe-a": 0.65, "coop": 0.3}, shots=(16,))
    for seed in (1, 2, 3):
        write_cell(root, "safe", "ants", 16, seed, 0.4, changed={"augment": "none"})
        write_cell(root, "safe", "ants", 16, seed, 0.69 + 0.01 * (seed - 2), late={"blend": "unit"}, noise=8)
        write_cell(root, "safe", "ants", 16, seed, 0.69 + 0.01 * (seed - 2), prompts="cupl", noise=9)
    return load_results(root)


def test_ablation_measures_from_the_plain_row(varied: pd.DataFrame) -> None:
    printed = table(varied, "ablation")
    assert printed.columns == ["ants", "change", "interval", "p"], "bees has plain rows only"
    names = [r.names[0] for r in printed.rows]
    assert names == ["safe (hand)", "safe (cupl)", "safe (hand, augment=none)", "safe (hand, blend=unit)"]
    plain, cupl, none, unit = (r.entries for r in printed.rows)
    assert plain["change"].text == "start"
    assert none["change"].text == "-30.00"
    assert (none["p"].text, none["interval"].text.startswith("-")) == ("0.001", True)
    assert unit["change"].text == cupl["change"].text == "-1.00"
    assert (unit["p"].value or 0.0) > 0.05


def test_an_ablation_says_what_the_plain_row_has(tmp_path: Path) -> None:
    grid(
        tmp_path,
        {"safe": 0.6, "coop": 0.5},
        datasets=("ants",),
        shots=(1, 16),
        defaults={"steps": 500, "lr": 0.1},
    )
    for seed in (1, 2, 3):
        write_cell(
            tmp_path, "safe", "ants", 16, seed, 0.5, changed={"steps": 5}, defaults={"steps": 500, "lr": 0.1}
        )
    write_cell(tmp_path, "coop", "ants", 1, 4, 0.5, defaults={"steps": 500, "lr": 0.1})
    printed = table(load_results(tmp_path), "ablation", shots=[16])
    assert "Rows without changed settings use safe.steps=500." in printed.notes
    assert "each the mean over 3 seeds." in printed.notes[0], "of the rows that are shown"


def test_ablation_from_another_start(varied: pd.DataFrame) -> None:
    printed = table(varied, "ablation", base="safe", methods=["safe", "safe-a"])
    changes = {r.names[0]: r.entries["change"].text for r in printed.rows}
    assert changes["safe-a"] == "+5.00"
    assert changes["safe (hand)"] == "start"
    from_cupl = {r.names[0]: r.entries["change"].text for r in table(varied, "ablation", base="cupl").rows}
    assert from_cupl["safe (cupl)"] == "start"
    with pytest.raises(BenchError, match="--base"):
        table(varied, "ablation", base="nothing")


def test_ablation_of_prompts(varied: pd.DataFrame) -> None:
    printed = table(varied, "ablation", prompts=["hand", "cupl"], methods=["safe"])
    assert {r.key["prompts"] for r in printed.rows} == {"hand", "cupl"}


def test_ablation_needs_variants(full: pd.DataFrame) -> None:
    with pytest.raises(BenchError, match="--sweep"):
        table(full, "ablation")


def test_the_public_face(full: pd.DataFrame) -> None:
    import bench

    assert bench.table is table
    assert bench.load_results is load_results
    assert "<html" in bench.html_report(full), "now that bench.report is loaded, which is a package"
    assert "| safe" in bench.table(full, "1").text("md")
    assert "safe is better than coop" in bench.compare(full, "safe", "coop").verdict


def test_the_ablation_suite_plans(tmp_path: Path) -> None:
    """Every open question is one setting away from the plain row, which is planned too."""
    from bench.names import canonical
    from bench.plan import settings
    from bench.registry import builtin
    from bench.suite import load

    suite = load("ablation")
    known = {canonical(m.name): m for m in builtin().methods.values()}
    sweeps = settings.parse_sweeps(suite.sweeps, known)
    varied = {
        (name, key): value
        for name, points in sweeps.items()
        for point in points
        for key, value in point.items()
    }
    # The ambiguities A2, A3, A5, A7, A9 and A11.
    for asked in ("train_scale", "blend", "train_classifier", "augment", "tail", "select_with_blend"):
        assert ("safe", asked) in varied
    assert ("safe-a", "train_keys") in varied  # A19
    for name, points in sweeps.items():
        usual = settings.resolve(known[name], "quick", "default", {})
        changed = [{k: v for k, v in point.items() if v != usual[k]} for point in points]
        assert changed.count({}) == 1, "the plain row, once"
        assert all(len(c) <= 1 for c in changed), "one at a time"
    assert settings.parse_value("none", "flip", "safe.augment") == "none"
