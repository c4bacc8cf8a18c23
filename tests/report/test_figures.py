"""Figures show what bench.stats computes, come out the same every time, and say what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from bench.errors import BenchError
from bench.report.figures import plot as figures
from bench.report.figures import style
from bench.report.frame import correct, load_results
from bench.stats import average_interval, difference_interval, friedman, mean_interval
from tests.report import made

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small table, a beta sweep with two backbones, and one method with two prompt sets."""
    folder = made.grid(tmp_path_factory.mktemp("results"))
    for seed in (1, 2, 3):
        for dataset in ("birds", "fish", "tools"):
            made.one(folder, made.cell("safe", dataset, 1, seed, prompts="vanilla"), skill=0.4)
    return folder


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made.sweep(tmp_path_factory.mktemp("sweep"))
    return made.sweep(folder, backbone="pocket-vit")


def point(drawn: style.Drawn, **where: Any) -> Any:
    rows = drawn.points
    for column, value in where.items():
        rows = rows[rows[column] == value]
    assert len(rows) == 1, rows
    return rows.iloc[0]


def percent(interval: Any) -> tuple[float, ...]:
    return tuple(100 * x for x in (interval.estimate, interval.low, interval.high))


def outcomes(frame: Any, **where: Any) -> np.ndarray:
    rows = frame[frame["prompts"] == "hand"]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return np.stack([correct(p) for p in rows.sort_values("seed")["path"]])


def test_shots_shows_the_intervals_of_the_statistics(results: Path) -> None:
    frame = load_results(results)
    drawn = figures.plot(frame, "shots")
    cells = [outcomes(frame, method="safe", dataset=d, shots=4) for d in ("birds", "fish", "tools")]
    for panel, interval in (("average", average_interval(cells)), ("fish", mean_interval(cells[1]))):
        got = point(drawn, panel=panel, series="safe", shots=4)
        assert (got.y, got.low, got.high) == pytest.approx(percent(interval))
    assert [ax.get_title() for ax in drawn.figure.axes] == ["average", "birds", "fish", "tools"]
    lines = [line for ax in drawn.figure.axes for line in ax.lines]
    grey = [line for line in lines if (line.get_linestyle(), line.get_color()) == ("--", style.GREY)]
    assert len(grey) == 4, "the zero-shot line is in every panel"
    legend = [text.get_text() for text in drawn.figure.legends[0].get_texts()]
    assert "SAFE" in legend and "Zero-shot CLIP" in legend


def test_a_failed_seed_takes_its_points_out_and_is_named(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    frame = load_results(folder)
    row = frame[
        (frame["method"] == "safe")
        & (frame["dataset"] == "fish")
        & (frame["shots"] == 4)
        & (frame["seed"] == 2)
    ].iloc[0]
    for file in Path(row["path"]).parent.glob(f"{row['fit'][:20]}*"):
        file.unlink()
    made.one(folder, made.cell("safe", "fish", 4, 2), status="failed")
    drawn = figures.plot(load_results(folder), "shots")
    lost = drawn.points[(drawn.points["series"] == "safe") & (drawn.points["shots"] == 4)]
    assert set(lost["panel"]) == {"birds", "tools"}
    assert any("safe at 4 shots" in note and "average and fish" in note for note in drawn.notes)


def test_beta_is_the_paired_change_against_zero(swept: Path) -> None:
    frame = load_results(swept)
    drawn = figures.plot(frame, "beta")
    titles = [ax.get_title() for ax in drawn.figure.axes]
    assert titles == ["SAFE, 16 shots of birds (pocket-rn)", "SAFE, 16 shots of birds (pocket-vit)"]
    here = {"backbone": "pocket-vit", "target": "birds-v2"}
    interval = difference_interval(
        outcomes(frame, **here, variant="beta=1.0"), outcomes(frame, **here, variant="beta=0.0")
    )
    got = point(drawn, panel="pocket-vit", series="birds-v2", x=1.0)
    assert (got.y, got.low, got.high) == pytest.approx(percent(interval))
    zero = point(drawn, panel="pocket-rn", series="birds", x=0.0)
    assert (zero.y, zero.low, zero.high) == (0, 0, 0)


def test_prompts_compares_prompt_sets_of_one_method(results: Path) -> None:
    drawn = figures.plot(load_results(results), "prompts")
    assert set(drawn.points["series"]) == {"hand", "vanilla"}
    assert point(drawn, series="hand", shots=1).y > point(drawn, series="vanilla", shots=1).y
    assert "safe" in drawn.alt


def test_cd_shows_friedmans_ranks(results: Path) -> None:
    frame = load_results(results)
    drawn = figures.plot(frame, "cd", shots=[4], prompts=["hand"])
    own = frame[frame["shots"].isin([0, 4]) & (frame["prompts"] == "hand")]
    expected = friedman(own.pivot_table(index="dataset", columns="method", values="accuracy"))
    assert dict(zip(drawn.points["series"], drawn.points["y"], strict=True)) == pytest.approx(
        dict(expected.ranks)
    )
    assert f"{expected.critical_difference:.2f}" in drawn.notes[-1]
    texts = [text.get_text() for text in drawn.figure.axes[0].texts]
    assert "average rank over 3 datasets, 4 shots (1 = best)" in texts
    assert any(
        "average ranks differ by less than the critical difference" in t.replace("\n", " ") for t in texts
    )


def test_time_counts_the_fits_a_method_builds_on(results: Path, tmp_path: Path) -> None:
    folder = made.grid(tmp_path, ["zero-shot", "safe"], ["birds"], shots=(1,), seeds=(1,))
    frame = load_results(folder)
    below = frame[frame["method"] == "safe"].iloc[0]
    made.one(folder, made.cell("safe-a", "birds", 1, 1), seconds=2.0, after={"safe": below["fit"]})
    drawn = figures.plot(load_results(folder), "time")
    own, other = 2.0 * 1.1 + 0.1, 0.3 * len("safe") * 1.1
    assert point(drawn, series="safe-a").x == pytest.approx(own + other)
    assert point(drawn, series="safe").x == pytest.approx(other + 0.1)


def timed(folder: Path, rows: list[tuple[str, int, float, float, bool]]) -> style.Drawn:
    """The figure of (method, seed, skill, seconds, whether it was a first fit) on one dataset, 1 shot."""
    for method, seed, skill, seconds, first in rows:
        where = made.cell(method, "birds", 1, seed)
        made.one(folder, where, skill=skill, seconds=seconds, first=first)
    return figures.plot(load_results(folder), "time")


def test_time_leaves_out_the_first_fit_of_a_process(tmp_path: Path) -> None:
    """Seconds are medians over seeds; a cell that has first fits only keeps them, and that is said."""
    rows = [("safe", s, 0.5, x, s == 1) for s, x in ((1, 50.0), (2, 1.0), (3, 2.0), (4, 9.0))]
    drawn = timed(tmp_path, [*rows, ("coop", 1, 0.4, 5.0, True)])
    assert point(drawn, series="safe").x == pytest.approx(2.0 * 1.1 + 0.1)
    assert point(drawn, series="coop").x == pytest.approx(5.0 * 1.1 + 0.1)
    (said,) = [note for note in drawn.notes if "first fit" in note]
    assert "coop at 1 shot." in said and "safe" not in said


def test_time_names_the_best_trade_off(tmp_path: Path) -> None:
    """No other is both faster and more accurate: not those that are slower and no better."""
    skills = {"a": (0.3, 1.0), "b": (0.5, 2.0), "c": (0.4, 3.0), "d": (0.7, 4.0), "e": (0.6, 6.0)}
    drawn = timed(tmp_path, [(m, 1, skill, seconds, False) for m, (skill, seconds) in skills.items()])
    assert list(drawn.points[drawn.points["front"]]["series"]) == ["a", "b", "d"]
    (said,) = [note for note in drawn.notes if note.startswith("Best trade-offs at 1 shot")]
    assert [m for m in skills if f"{m} (" in said] == ["a", "b", "d"]
    (ax,) = drawn.figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == (
        "seconds per cell, tuning included",
        "accuracy on birds (%)",
    )
    (line,) = [line for line in ax.lines if line.get_markerfacecolor() == "none"]
    assert len(line.get_xdata()) == 3
    legend = [text.get_text().replace("\n", " ") for text in drawn.figure.legends[0].get_texts()]
    assert "best trade-off, 1 shot: a, b, d" in legend


@pytest.mark.parametrize("form", [*(pytest.param(f, marks=pytest.mark.slow) for f in ("pdf", "png")), "svg"])
def test_the_same_records_give_the_same_file(results: Path, form: str, tmp_path: Path) -> None:
    """In another process, with another hash seed, a week later."""
    first, second = tmp_path / f"1.{form}", tmp_path / f"2.{form}"
    figures.save(figures.plot(load_results(results), "shots", prompts=["hand"]), first)
    code = (
        "import sys; from pathlib import Path; from bench.report.figures import plot as figures\n"
        "from bench.report.frame import load_results\nfigures.save("
        "figures.plot(load_results(Path(sys.argv[1])), 'shots', prompts=['hand']), Path(sys.argv[2]))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "86400", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, str(results), str(second)], check=True, env=env, cwd=tmp_path)
    assert first.read_bytes() == second.read_bytes()


MANY = ["zero-shot", *(f"method-{i:02}" for i in range(13)), "safe"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen methods with labels, one of them far behind; two lack the same dataset at 1 shot."""
    folder = tmp_path_factory.mktemp("many")
    for i, method in enumerate(MANY):
        for dataset in ("birds", "fish", "tools"):
            if method == "zero-shot":
                made.one(folder, made.cell(method, dataset, 0, 0), skill=0.4)
                continue
            for k in (1, 4):
                if (k, dataset) != (1, "fish") or method not in MANY[1:3]:
                    skill = 0.2 if method == "safe" else 0.4 + 0.02 * i
                    made.one(
                        folder,
                        made.cell(method, dataset, k, 1),
                        skill=skill,
                        title=f"A method with a longish title {i}",
                    )
    return folder


@pytest.mark.parametrize("kind", ["shots", "time"])
def test_of_many_methods_a_few_are_coloured(many: Path, kind: str) -> None:
    frame = load_results(many)
    drawn = figures.plot(frame, kind, first=["safe"])
    (legend,) = drawn.figure.legends
    labels = [text.get_text().replace("\n", " ") for text in legend.get_texts()]
    titles = {f"A method with a longish title {i}" for i in (9, 10, 11, 12, 13)} | {
        "A method with a longish title 14"
    }
    assert titles <= set(labels), "the first one, then the best at the most shots"
    assert "8 other methods" in labels
    assert any("In grey: method-00, " in note and "--methods" in note for note in drawn.notes)
    asked = figures.plot(frame, kind, methods=MANY)
    assert not any("other methods" in text.get_text() for text in asked.figure.legends[0].get_texts())
    for figure in (drawn.figure, asked.figure):
        box = figure.legends[0].get_window_extent()
        assert box.width <= figure.bbox.width, "the legend is not clipped"
        figure.canvas.draw()
        assert all(ax.get_position().height * figure.get_figheight() > 1.0 for ax in figure.axes), (
            "nor are panels squeezed"
        )


def test_points_that_are_missing_alike_share_a_note(many: Path) -> None:
    notes = figures.plot(load_results(many), "shots").notes
    assert (
        "Left out of average and fish, because seeds or datasets are missing or failed: "
        "method-00 and method-01 at 1 shot." in notes
    )
    frame = load_results(many)
    few = frame[~((frame["shots"] == 1) & (frame["dataset"] != "birds"))]
    notes = figures.plot(few, "shots").notes
    assert (
        "Left out everywhere but on birds, because seeds or datasets are missing or failed: "
        "14 methods at 1 shot." in notes
    )


def test_datasets_without_few_shot_results_have_no_panel(results: Path) -> None:
    frame = load_results(results)
    kept = frame[(frame["shots"] == 0) | (frame["dataset"] == "fish")]
    assert [ax.get_title() for ax in figures.plot(kept, "shots", prompts=["hand"]).figure.axes] == ["fish"]


def test_of_many_methods_the_best_are_drawn_with_their_ranks_among_all(many: Path) -> None:
    frame = load_results(many)
    drawn = figures.plot(frame, "cd", shots=[4])
    own = frame[frame["shots"].isin([0, 4])]
    every = friedman(own.pivot_table(index="dataset", columns="method", values="accuracy"))
    assert len(every.ranks) == 15
    drawn_ranks = dict(zip(drawn.points["series"], drawn.points["y"], strict=True))
    assert drawn_ranks == pytest.approx(dict(every.ranks.iloc[:12])) and "safe" not in drawn_ranks
    assert "The best 12 are drawn, ranked among all 15 methods." in drawn.notes
    assert f"is {every.critical_difference:.2f}." in drawn.notes[-1]
    texts = [text.get_text() for text in drawn.figure.axes[0].texts]
    assert "average rank among all 15 methods over 3 datasets, 4 shots (1 = best)" in texts
    few = figures.plot(frame, "cd", shots=[4], methods=list(drawn_ranks))
    assert few.points["y"].sum() == pytest.approx(12 * 13 / 2), "12 methods alone are ranked from 1 to 12"
    assert not any("among all" in note for note in few.notes)


def test_published_anchors_are_marked_where_they_belong(tmp_path: Path) -> None:
    made.sweep(
        tmp_path / "same",
        betas=(0.0, 0.5, 0.9),
        targets=("imagenet", "imagenet_r"),
        backbone="RN50",
        preset="paper",
    )
    (ax,) = figures.plot(load_results(tmp_path / "same"), "beta").figure.axes
    assert [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in _hollow(ax)] == [(0.9, 2.27)]
    made.sweep(tmp_path / "other", betas=(0.0, 0.5, 0.9), targets=("imagenet", "imagenet_r"))
    drawn = figures.plot(load_results(tmp_path / "other"), "beta")
    assert not _hollow(drawn.figure.axes[0]), "the published numbers are those of another backbone"
    assert "published" not in [text.get_text() for text in drawn.figure.legends[0].get_texts()]
    for prompts in ("hand", "linear"):
        for shots in (1, 4):
            where = made.cell("safe", "imagenet", shots, 1, backbone="RN50", prompts=prompts)
            made.one(tmp_path / "prompts", where)
    drawn = figures.plot(load_results(tmp_path / "prompts"), "prompts")
    assert sorted(float(line.get_ydata()[0]) for line in _hollow(drawn.figure.axes[0])) == [
        61.85,
        62.98,
        63.03,
    ]
    assert "published" in [text.get_text() for text in drawn.figure.legends[0].get_texts()]


def _hollow(ax: Any) -> list[Any]:
    return [line for line in ax.lines if line.get_markerfacecolor() == "white"]


def test_type_is_readable_at_column_width(results: Path, swept: Path) -> None:
    for folder, kind in (
        (results, "shots"),
        (results, "prompts"),
        (results, "cd"),
        (results, "time"),
        (swept, "beta"),
    ):
        drawn = figures.plot(load_results(folder), kind, prompts=() if kind == "prompts" else ("hand",))
        assert drawn.figure.get_figwidth() in (style.COLUMN, style.PAGE)
        svg = figures.encode(drawn, "svg").decode()
        assert "<svg" in svg
        texts = [
            t
            for ax in drawn.figure.axes
            for t in (*ax.texts, ax.title, ax.xaxis.label, *ax.get_xticklabels())
        ]
        texts += [t for legend in drawn.figure.legends for t in legend.get_texts()]
        assert min(t.get_fontsize() for t in texts if t.get_text()) >= 7, kind


def test_colours_differ_for_colour_blind_eyes_and_in_grey() -> None:
    """Series that share a colour differ in dashes; every two looks differ; no colour is nearly white."""
    looks = style.appearances(map(str, range(24)))
    assert len(set(map(str, looks.values()))) == 24
    # Deuteranopia (Machado et al. 2009, full severity): the colours stay at least a visible step apart.
    deuteranopia = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    seen = [deuteranopia @ np.array(to_rgb(c)) for c in dict.fromkeys(look.colour for look in looks.values())]
    gaps = [float(np.linalg.norm(a - b)) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(gaps) > 0.08
    assert all(np.dot([0.2126, 0.7152, 0.0722], to_rgb(look.colour)) < 0.75 for look in looks.values())


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("shots", {"methods": ["zero-shot"]}, r"bench run --methods zero-shot --shots 1,4,16"),
        ("beta", {}, r"bench run --methods safe --sweep safe\.beta=0:2:0\.1 --targets"),
        ("beta", {"methods": ["tip-adapter"]}, r"--sweep tip-adapter\.beta=0:2:0\.1"),
        (
            "prompts",
            {"methods": ["safe-a"]},
            r"bench run --methods safe-a --prompts class-name,vanilla,coop,hand",
        ),
        (
            "cd",
            {"methods": ["safe", "zero-shot"]},
            r"3 methods on 2 datasets.*bench run --methods safe,zero-shot --shots 4",
        ),
        ("shots", {"methods": ["saef"]}, r"did you mean 'safe'"),
        ("shoots", {}, r"did you mean 'shots'"),
        ("shots", {"protocol": "no-val"}, r"no records of protocol 'no-val'"),
    ],
)
def test_missing_records_name_the_command(
    results: Path, kind: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(BenchError) as caught:
        figures.plot(load_results(results), kind, **options)
    assert re.search(says, str(caught.value)), str(caught.value)


def test_commands_in_messages_parse(results: Path) -> None:
    from tests.test_readme import parse

    for kind, options in (
        ("shots", {"methods": ["zero-shot"]}),
        ("beta", {}),
        ("prompts", {"methods": ["safe-a"]}),
    ):
        with pytest.raises(BenchError) as caught:
            figures.plot(load_results(results), kind, **options)
        (command,) = re.findall(r"`(bench [^`]+)`", str(caught.value))
        parse(tuple(command.split()))


def test_several_backbones_want_a_choice(results: Path, tmp_path: Path) -> None:
    made.grid(tmp_path, ["safe"], ["birds"], shots=(1, 4), seeds=(1,))
    made.grid(tmp_path, ["safe"], ["birds"], shots=(1, 4), seeds=(1,), backbone="pocket-vit")
    frame = load_results(tmp_path)
    with pytest.raises(BenchError, match="--backbone"):
        figures.plot(frame, "shots")
    assert set(figures.plot(frame, "shots", backbone="pocket-vit").points["panel"]) == {"average", "birds"}


def test_an_unknown_suffix_is_an_error(results: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="pdf, png, svg"):
        figures.save(figures.plot(load_results(results), "time"), tmp_path / "figure.jpeg")
