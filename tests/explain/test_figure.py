"""Figures of explanations name their colours and values, and say what is true and what is predicted."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.cli.app import app
from bench.errors import BenchError
from bench.explain import figure
from bench.explain.picture import Picture, grid_masks
from bench.explain.shapley import Shapley

PICTURE = Picture("a picture", np.full((32, 32, 3), 200, np.uint8), (32, 32), masks=grid_masks(32, 2))


@pytest.mark.parametrize(
    ("true", "predicted", "explained", "lines"),
    [
        ("fox", ["cat", "fox"], "fox", ["true: fox", "predicted before: cat", "predicted after: fox"]),
        ("fox", ["cat", "cat"], "fox", ["true: fox", "predicted: cat"]),
        ("fox", ["fox", "fox"], "dog", ["true: fox", "predicted: fox", "explained: dog"]),
        (None, ["cat", "cat"], "cat", ["true: not known", "predicted: cat"]),
    ],
)
def test_captions(true: str | None, predicted: list[str], explained: str, lines: list[str]) -> None:
    assert figure.caption(true, predicted, explained).splitlines() == lines


def test_heat_maps_have_colour_bars_with_names_and_scales() -> None:
    pools = [("attention before", np.full((2, 2), 0.25)), ("attention after", np.eye(2) / 2)]
    heats = [("before", np.array([[0.0, 4.0], [1.0, 2.0]])), ("after", np.zeros((2, 2)))]
    axes = figure.heat_maps([(PICTURE, "true: fox", pools, heats)]).axes
    assert axes[0].get_title() == "true: fox"
    names = [ax.get_ylabel().replace("\n", " ") for ax in axes if ax.get_ylabel()]
    assert names == ["attention weight (all cells: 1)", "evidence for the class (largest of a map: 1)"]
    shown = [ax.images[-1] for ax in axes[1:5]]
    assert [image.get_clim() for image in shown] == [(0.0, 0.5)] * 2 + [(0.0, 1.0)] * 2
    assert np.asarray(shown[2].get_array()).max() == 1.0, "a map's largest value is its 1"


def test_stages_share_the_scale_of_the_cosine() -> None:
    stages = {
        "layer1": (np.array([[-0.2, 0.5], [0.1, 0.9]]), (0, 1)),
        "layer2": (np.full((1, 1), 0.3), (0, 0)),
    }
    axes = figure.correspondence(PICTURE, PICTURE, (3, 4), stages, ("fox", None)).axes
    assert [ax.get_title() for ax in axes[:2]] == ["query (cross)\ntrue: fox", "searched"]
    assert {ax.images[-1].get_clim() for ax in axes[2:4]} == {(-0.2, 1.0)}
    assert axes[-1].get_ylabel() == "cosine similarity"


def test_shapley_values_have_a_colour_bar_and_a_unit() -> None:
    phi = np.array([[0.1, -0.3], [0.0, 0.1], [0.2, 0.0], [0.0, 0.0]])
    values = Shapley(phi, np.zeros_like(phi), phi.sum(0), np.zeros(2))
    drawn = figure.part_values(PICTURE, "true: fox", values, ("before", "after"), "probability of fox")
    labels = {ax.get_ylabel().replace("\n", " ") for ax in drawn.axes} - {""}
    assert labels == {"Shapley value", "Shapley value: adds to the probability of fox"}
    assert drawn.axes[1].images[-1].get_clim() == (-0.3, 0.3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("maps", "mammals", "--class", "foxx"), r"mammals has no class 'foxx' \(did you mean 'fox'\?\)"),
        (("shapley", "mammals:0", "--value", "logit"), "margin or probability"),
        (("share", "--scenes", "2", "--fill", "black"), "mean or background"),
        (("maps", "mammals", "--out", "maps.jpg"), "name it maps.png"),
        (("correspond", "mammals:0", "mammals:1", "--at", "1,1", "--out", "/proc/none/a.png"), "--out /proc"),
    ],
)
def test_wrong_input_is_refused_before_a_fit(
    arguments: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    more = () if arguments[0] == "correspond" else ("--results", str(tmp_path / "results"))
    done = CliRunner().invoke(app, ["explain", *arguments, *more])
    assert isinstance(done.exception, BenchError), done.exception
    assert re.search(says, str(done.exception))
    assert not (tmp_path / "results").exists() and not list(tmp_path.rglob("*.npy"))
