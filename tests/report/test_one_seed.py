"""With one seed nothing can be said about other draws: no underline, no p, and intervals of images alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.report.figures import plot
from bench.report.frame import correct, load_results
from bench.report.html import standing
from bench.report.marks import ONE_SEED, UNDERLINED
from bench.report.table import Row, Table
from bench.report.tables import table
from bench.stats import average_difference_interval, not_told_from_best
from tests.report import made
from tests.report.synthetic import grid, write_cell

NEAR = {"safe": 0.6, "coop": 0.6, "lp": 0.595}


def row(printed: Table, name: str, shots: int, backbone: str = "") -> Row:
    return next(
        r for r in printed.rows if r.names[0] == name and r.shots == shots and backbone in ("", *r.heads)
    )


def marks(line: Row) -> list[str]:
    return ["best" if e.best else "tied" if e.tied else "" for e in line.entries.values()]


def said(printed: Table) -> list[str]:
    return [note for note in printed.notes if note.startswith(("Underlined", "Nothing is underlined"))]


def test_one_seed_leaves_bold_and_takes_underlines(tmp_path: Path) -> None:
    grid(tmp_path, NEAR, shots=(1, 16), seeds=(1,))
    grid(tmp_path, NEAR, shots=(4,), seeds=(1, 2, 3))
    printed = table(load_results(tmp_path))
    assert {m: marks(row(printed, m, 16)) for m in NEAR} == {
        "safe": ["best"] * 3,
        "coop": ["best"] * 3,
        "lp": [""] * 3,
    }
    assert marks(row(printed, "lp", 4)) == ["tied"] * 3
    assert said(printed) == [UNDERLINED, f"Nothing is underlined at 1 and 16 shots: {ONE_SEED}"]
    assert "--seeds 1,2,3" in ONE_SEED
    assert set(said(printed)) <= set(printed.styles), "plain text has no underlines, so it needs no note"
    assert said(table(load_results(tmp_path), underline=False)) == []


def test_a_column_of_one_seed_is_named(tmp_path: Path) -> None:
    grid(tmp_path, NEAR, shots=(1,), seeds=(1, 2, 3))
    grid(tmp_path, NEAR, datasets=("cats",), shots=(1,), seeds=(1,))
    printed = table(load_results(tmp_path))
    assert marks(row(printed, "lp", 1)) == ["tied", "tied", "", ""], "there is no average of unequal seeds"
    assert said(printed)[1:] == [f"Nothing is underlined at 1 shot on cats: {ONE_SEED}"]


def test_a_block_of_one_seed_names_no_columns(tmp_path: Path) -> None:
    grid(tmp_path, NEAR, shots=(1,), seeds=(1,))
    grid(tmp_path, {"safe": 0.6}, datasets=("cats",), shots=(1,), seeds=(1,))
    assert said(table(load_results(tmp_path))) == [f"Nothing is underlined at 1 shot: {ONE_SEED}"]


def test_methods_that_draw_nothing_keep_their_underlines(tmp_path: Path) -> None:
    for method, accuracy in (("zero-shot", 0.6), ("cupl", 0.59)):
        for dataset in ("ants", "bees"):
            write_cell(tmp_path, method, dataset, 0, 0, accuracy)
    printed = table(load_results(tmp_path))
    assert marks(row(printed, "cupl", 0)) == ["tied"] * 3
    assert said(printed) == [UNDERLINED]
    assert not any(word in UNDERLINED for word in ("seed", "draw")), "nothing is drawn here"


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A method whose seeds are good or bad on all targets alike, beside one whose seeds are equal."""
    folder = tmp_path_factory.mktemp("shifted")
    for seed, gain in ((1, 0.0), (2, 0.06), (3, 0.12)):
        for target in ("ants", "ants-a", "ants-b", "ants-c", "ants-d"):
            write_cell(folder, "safe", "ants", 16, seed, 0.6 + gain, target=target, n=400)
            write_cell(folder, "coop", "ants", 16, seed, 0.6, target=target, n=400)
            change = {"changed": {"steps": 5}}
            write_cell(folder, "coop", "ants", 16, seed, 0.6 + gain, target=target, n=400, **change)  # type: ignore[arg-type]
    for method in ("safe", "coop"):
        for target in ("ants", "ants-a", "ants-b", "ants-c", "ants-d"):
            write_cell(
                folder,
                method,
                "ants",
                16,
                1,
                0.6,
                target=target,
                n=400,
                backbone="toy-vit",
                noise=ord(method[0]),
            )
    return folder


def test_shifted_test_sets_of_one_fit_share_its_draws(shifted: Path) -> None:
    """The seeds' luck is the same on all of them, so their average knows it no better than one of them."""
    frame = load_results(shifted)
    printed = table(frame, "3", backbone="toy-rn")
    targets = [c for c in printed.columns if c.startswith("ants-")]

    def of(method: str) -> list[np.ndarray]:
        line = row(printed, method, 16)
        return [np.stack([correct(p) for p in line.entries[t].paths]) for t in targets]

    cells = {"safe": of("safe"), "coop": of("coop")}
    assert "coop" not in not_told_from_best(cells), "four draws of three seeds each would be enough"
    assert "coop" in not_told_from_best(cells, sources=["ants"] * 4)
    assert marks(row(printed, "coop", 16)) == ["tied"] * 6


def test_marks_of_one_seed_name_the_backbone(shifted: Path) -> None:
    printed = table(load_results(shifted), "3")
    assert marks(row(printed, "coop", 16, "toy-vit")) == ["best"] * 6
    assert marks(row(printed, "coop", 16, "toy-rn")) == ["tied"] * 6
    assert said(printed)[1:] == [f"Nothing is underlined at 16 shots with toy-vit: {ONE_SEED}"]


def test_an_ablation_over_shifted_test_sets_knows_that_too(shifted: Path) -> None:
    frame = load_results(shifted)
    printed = table(
        frame[frame["backbone"] == "toy-rn"], "ablation", targets=["ants-a", "ants-b", "ants-c", "ants-d"]
    )
    start, changed = (row(printed, name, 16) for name in ("coop", "coop (steps=5)"))
    pairs = [
        tuple(np.stack([correct(p) for p in line.entries[t].paths]) for line in (changed, start))
        for t in printed.columns[:5]
    ]
    assert not average_difference_interval(pairs).contains(0)  # type: ignore[arg-type]
    interval = average_difference_interval(pairs, sources=["ants"] * 5)  # type: ignore[arg-type]
    assert interval.contains(0)
    text = f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}"
    assert changed.entries["interval"].text == text
    assert (changed.entries["p"].value or 0) > 0.05


def test_changes_of_one_seed_have_no_p(tmp_path: Path) -> None:
    for method, seeds in (("coop", (1, 2, 3)), ("lp", (1,)), ("zero-shot", (0,))):
        for seed in seeds:
            shots = 16 if seed else 0
            write_cell(tmp_path, method, "ants", shots, seed, 0.6)
            write_cell(tmp_path, method, "ants", shots, seed, 0.5, changed={"steps": 5})
    printed = table(load_results(tmp_path), "ablation")
    entries = {
        m: row(printed, f"{m} (steps=5)", n).entries for m, n in (("coop", 16), ("lp", 16), ("zero-shot", 0))
    }
    assert {m: e["p"].value is not None for m, e in entries.items()} == {
        "coop": True,
        "lp": False,
        "zero-shot": True,
    }
    assert all(" to " in e["interval"].text for e in entries.values())
    assert f"There is no p for lp (steps=5) at 16 shots: {ONE_SEED}" in printed.notes
    frame = load_results(tmp_path)
    alone = table(frame[frame["method"] == "lp"], "ablation")
    assert f"There is no p: {ONE_SEED}" in alone.notes
    assert not any("'p'" in note for note in alone.notes)


@pytest.mark.parametrize("kind", ["shots", "time"])
def test_figures_say_which_intervals_are_of_images_alone(tmp_path: Path, kind: str) -> None:
    made.grid(tmp_path, ["zero-shot", "coop", "safe"], ("birds", "fish"), (1,), seeds=(1,))
    drawn = plot.plot(load_results(tmp_path), kind)
    assert f"The intervals cover other test images alone: {ONE_SEED}" in drawn.notes
    made.grid(tmp_path, ["safe"], ("birds", "fish"), (1,), seeds=(2, 3))
    drawn = plot.plot(load_results(tmp_path), kind)
    assert f"The intervals of coop at 1 shot cover other test images alone: {ONE_SEED}" in drawn.notes
    made.grid(tmp_path, ["coop"], ("birds", "fish"), (1,), seeds=(2, 3))
    assert not any("images alone" in note for note in plot.plot(load_results(tmp_path), kind).notes)


@pytest.mark.parametrize("seeds", [(1,), (1, 2)])
def test_sweeps_say_it_too(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    frame = load_results(made.sweep(tmp_path))
    frame = frame[frame["seed"].isin(seeds)]
    for kind, setting in (("beta", None), ("sweep", "beta")):
        notes = plot.plot(frame, kind, setting=setting).notes
        assert any("images alone" in note for note in notes) == (len(seeds) == 1), kind


def test_the_standing_of_one_seed(tmp_path: Path) -> None:
    grid(tmp_path, NEAR, shots=(1,), seeds=(1,))
    text = standing.section([table(load_results(tmp_path))])
    assert 'class="tied"' not in text
    assert f"Nothing is underlined, and the intervals cover other test images alone: {ONE_SEED}" in text
    grid(tmp_path, NEAR, shots=(1,), seeds=(2, 3))
    text = standing.section([table(load_results(tmp_path))])
    assert 'class="tied"' in text and "images alone" not in text
