"""Sweeps are drawn at the values that records hold; what is missing or wrong is said, with the command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.errors import BenchError
from bench.report.figures import plot as figures
from bench.report.figures.scale import scale
from bench.report.figures.style import Drawn
from bench.report.frame import correct, load_results
from bench.stats import mean_interval
from tests.report import made

SKILL = {1e-4: 0.4, 1e-3: 0.5, 1e-2: 0.6}


def trained(
    folder: Path,
    method: str = "safe",
    datasets: Sequence[str] = ("birds",),
    values: Sequence[float] = tuple(SKILL),
    lack: tuple[int, float] | None = None,
) -> Path:
    """A sweep of ``lr``, whose own value is 0.001, without one (seed, value) of 4 shots."""
    for dataset in datasets:
        for shots in (1, 4):
            for seed in (1, 2):
                for lr in values:
                    if shots == 4 and (seed, lr) == lack:
                        continue
                    changed = {} if lr == 1e-3 else {"lr": [lr]}
                    made.one(
                        folder,
                        made.cell(method, dataset, shots, seed),
                        skill=SKILL[lr],
                        values={"beta": 0.5},
                        settings=changed,
                    )
    return folder


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return load_results(trained(tmp_path_factory.mktemp("sweep")))


def legend(drawn: Drawn) -> list[str]:
    return [text.get_text() for text in drawn.figure.legends[0].get_texts()]


def rings(drawn: Drawn) -> list[tuple[float, float]]:
    lines = [line for ax in drawn.figure.axes for line in ax.lines if line.get_markerfacecolor() == "none"]
    return [(float(x), float(y)) for line in lines for x, y in line.get_xydata()]


@pytest.mark.parametrize("setting", ["lr", "safe.lr", "SAFE.lr"])
def test_a_training_setting_is_drawn_at_its_recorded_values(swept: pd.DataFrame, setting: str) -> None:
    drawn = figures.plot(swept, "sweep", setting=setting)
    (ax,) = drawn.figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("lr", "accuracy on birds (%)", "SAFE")
    assert ax.get_xscale() == "log"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.0001", "0.001", "0.01"]
    assert legend(drawn) == ["1 shot", "4 shots", "the method's own value"]
    rows = swept[(swept["variant"] == "lr=0.01") & (swept["shots"] == 4)].sort_values("seed")
    expected = mean_interval(np.stack([correct(p) for p in rows["path"]]))
    got = drawn.points[(drawn.points["series"] == "4 shots") & (drawn.points["x"] == 0.01)].iloc[0]
    assert (got.y, got.low, got.high) == pytest.approx(
        (100 * expected.estimate, 100 * expected.low, 100 * expected.high)
    )
    plain = drawn.points[drawn.points["own"]]
    assert rings(drawn) == [(0.001, y) for y in plain["y"]] and len(plain) == 2


def test_lines_of_several_methods_and_panels_of_several_datasets(tmp_path: Path) -> None:
    for method in ("safe", "tip-adapter"):
        trained(tmp_path, method, ("birds", "fish"))
    drawn = figures.plot(load_results(tmp_path), "sweep", setting="lr")
    names = [ax.get_ylabel() for ax in drawn.figure.axes]
    assert names == ["average accuracy, 2 datasets (%)", "accuracy on birds (%)", "accuracy on fish (%)"]
    assert {"SAFE, 1 shot", "SAFE, 4 shots", "Tip-Adapter, 1 shot", "Tip-Adapter, 4 shots"} < set(
        legend(drawn)
    )
    assert len(drawn.points) == 3 * 4 * 3


def test_a_missing_seed_leaves_its_point_out_and_is_said(tmp_path: Path) -> None:
    drawn = figures.plot(load_results(trained(tmp_path, lack=(2, 1e-2))), "sweep", setting="lr")
    assert set(drawn.points[drawn.points["series"] == "4 shots"]["value"]) == {1e-3, 1e-4}
    assert "Left out, because seeds or datasets are missing or failed: 4 shots at lr = 0.01." in drawn.notes


def test_a_value_that_the_method_chooses_is_a_line_and_no_point(tmp_path: Path) -> None:
    for lr in ([1e-2], [1e-3], [1e-3, 1e-2]):
        where = made.cell("coop", "birds", 1, 1)
        made.one(tmp_path, where, settings={"lr": lr})
    frame = load_results(tmp_path)
    own = frame["variant"] == "lr=0.001/0.01"
    frame.loc[own, "variant"] = ""  # as where the grid is the method's own
    drawn = figures.plot(frame, "sweep", setting="lr")
    assert not rings(drawn) and "value chosen by the method itself" in legend(drawn)
    (line,) = [line for line in drawn.figure.axes[0].lines if line.get_linestyle() == ":"]
    assert line.get_ydata()[0] == pytest.approx(frame[own]["accuracy"].iloc[0])


def test_words_and_inference_values(tmp_path: Path) -> None:
    for tail in ("head", "block", "all"):
        made.one(tmp_path, made.cell("safe", "birds", 1, 1), settings={"tail": tail})
    frame = load_results(tmp_path)
    frame.loc[frame["variant"] == "tail=head", "variant"] = ""  # as where it is the method's own
    drawn = figures.plot(frame, "sweep", setting="safe.tail")
    assert [t.get_text() for t in drawn.figure.axes[0].get_xticklabels()] == ["head", "all", "block"]
    assert [x for x, _ in rings(drawn)] == [0.0]
    made.one(tmp_path, made.cell("safe", "birds", 1, 1))
    drawn = figures.plot(load_results(tmp_path), "sweep", setting="tail")
    assert "Left out: records that do not say what tail was." in drawn.notes and not rings(drawn)
    beta = load_results(made.sweep(tmp_path / "beta", targets=("birds",)))
    drawn = figures.plot(beta, "sweep", setting="beta")
    assert list(drawn.points["x"]) == [0.5, 0.0, 1.0] and drawn.figure.axes[0].get_xscale() == "linear"
    assert [x for x, _ in rings(drawn)] == [0.5]


@pytest.mark.parametrize(
    ("values", "kind", "order"),
    [
        ([1e-3, 1e-4, 1e-2], "log", ["0.0001", "0.001", "0.01"]),
        ([0.0, 1e-3, 1e-2], "symlog", ["0", "0.001", "0.01"]),
        ([i / 4 for i in range(9)], "linear", ["0", "0.25", "0.5", "0.75", "1", "1.25", "1.5", "1.75", "2"]),
        ([i / 10 for i in range(21)], "linear", [f"{i / 10:g}" for i in range(21)]),
        ([50, 100, 200], "linear", ["50", "100", "200"]),
        (["raw", "unit"], "words", ["raw", "unit"]),
        ([False, True], "words", ["False", "True"]),
        ([1234567, 1234568], "linear", ["1234567", "1234568"]),
    ],
)
def test_axes_follow_the_values(values: list[Any], kind: str, order: list[str]) -> None:
    made_of = scale(values)
    assert made_of.kind == kind and list(made_of.at) == order


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("sweep", {}, r"name a setting with --setting; these records have sweeps of: safe\.lr"),
        ("sweep", {"setting": "lrr"}, r"no recorded method has a setting 'lrr' \(did you mean 'lr'\?\)"),
        ("sweep", {"setting": "saef.lr"}, r"no records of method 'saef' \(did you mean 'safe'\?\)"),
        (
            "sweep",
            {"setting": "steps"},
            r"--sweep safe\.steps=50,100,200 --results \S+` makes one, with a fit for every value",
        ),
        (
            "sweep",
            {"setting": "beta"},
            r"--sweep safe\.beta=0\.05,0\.5,5 --results \S+` makes one, without fitting again",
        ),
        ("beta", {"setting": "lr"}, r"lr changes the fit of safe, .*bench plot sweep --setting safe\.lr"),
        ("beta", {"setting": "safe.betta"}, r"did you mean 'beta'"),
        ("time", {"setting": "lr"}, r"plot time has no setting; --setting is for sweep and beta"),
    ],
)
def test_wrong_settings_get_one_line(
    swept: pd.DataFrame, kind: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(BenchError) as caught:
        figures.plot(swept, kind, **options)
    assert re.search(says, str(caught.value)) and "\n" not in str(caught.value), str(caught.value)


def test_one_value_is_no_sweep(tmp_path: Path) -> None:
    frame = load_results(trained(tmp_path, values=(1e-2,)))
    with pytest.raises(BenchError, match=r"needs two values, but there is 0\.01"):
        figures.plot(frame, "sweep", setting="lr")


def test_the_command_refuses_before_it_reads(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from bench.cli.app import app

    (tmp_path / "file").write_text("")
    for arguments, says in (
        (["--out", str(tmp_path / "a.jpeg")], "ends in '.jpeg'; name it"),
        (["--out", str(tmp_path / "a")], "no ending; name it"),
        (["--out", str(tmp_path / "file" / "a.png")], "is not a folder"),
        (["--setting", "lr"], "plot shots has no setting"),
    ):
        # There are no records: an error that names something else came first.
        done = CliRunner().invoke(app, ["plot", "--results", str(tmp_path / "none"), *arguments])
        assert isinstance(done.exception, BenchError) and says in str(done.exception), done.exception
