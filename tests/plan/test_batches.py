"""Batches that a support set cannot fill are shortened in the plan, and said; others are left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import BenchError, MissingData
from bench.interface import TEXT, Facts, Method, Recipe, Stream
from bench.plan import batches
from bench.recipe import EVAL, FLIP, RULES, check_legal, drawn, points
from bench.registry import builtin
from bench.train.span import with_static

TWO = (EVAL, FLIP)


class Probe(Method):
    name = "probe"
    title = "Probe"


def facts(n_support: int, n_prompts: int = 4, shots: int = 1) -> Facts:
    return Facts(shots, 2, n_support, n_prompts, "default", "rn", "quick")


def made(
    recipe: Recipe, n_support: int, n_prompts: int = 4, values: Mapping[str, Any] | None = None
) -> tuple[Recipe, tuple[str, ...]]:
    return batches.shortened(Probe(), values or {}, recipe, facts(n_support, n_prompts))


def recipe_of(name: str, given: Facts, **changes: object) -> tuple[Recipe, tuple[str, ...]]:
    method = builtin().get(name)
    values = {**method.settings, **method.presets.get("quick", {}), **changes}
    return batches.shortened(method, values, method.recipe(values, given), given)


def test_safe_on_two_images() -> None:
    """Two images in two views are four rows, of which three can be drawn (protocol 13.1)."""
    recipe, notes = recipe_of("safe", facts(2))
    assert recipe.streams["image"].batch == 3
    assert notes == ("safe, 1 shot: batch 8 -> 3 (2 support images x 2 views = 4 rows)",)
    recipe, notes = recipe_of("safe", facts(2), augment="none", batch=5)
    assert recipe.streams["image"].batch == 1
    assert notes == ("safe, 1 shot: batch 5 -> 1 (2 support images)",)


@pytest.mark.parametrize("images", [5, 100])
def test_a_batch_that_can_be_drawn_stays(images: int) -> None:
    method = builtin().get("safe")
    before = method.recipe(method.settings, facts(images))
    after, notes = batches.shortened(method, method.settings, before, facts(images))
    assert after is before and notes == ()


@pytest.mark.parametrize("order", sorted(set(RULES) - {"restart"}))
def test_rules_that_take_what_there_is_stay(order: str) -> None:
    recipe = Recipe(streams={"image": Stream(order=order, batch=32)})
    assert made(recipe, 2) == (recipe, ())


def test_each_stream_has_its_own_rows() -> None:
    streams = {
        "image": Stream(views=TWO, batch=8),
        "crop": Stream(views=TWO, rows="per-epoch", batch=8),
        "text": Stream(TEXT, batch=2),
        "whole": Stream(views=TWO, batch=None),
    }
    recipe, notes = made(Recipe(streams=streams), 3, n_prompts=3)
    assert {name: s.batch for name, s in recipe.streams.items()} == {
        "image": 5, "crop": 2, "text": 2, "whole": None,
    }  # fmt: skip
    assert drawn(recipe.streams["whole"], 3, len(TWO)) == (6, 5), "none asks for what can be drawn"
    assert [note.split(" (")[0] for note in notes] == [
        "probe, 1 shot: batch of image 8 -> 5",
        "probe, 1 shot: batch of crop 8 -> 2",
    ]


def halves(batch: int, sizes: tuple[int, ...]) -> Recipe:
    streams = {"image": Stream(views=TWO, batch=batch - batch // 2), "text": Stream(TEXT, batch=batch // 2)}
    return Recipe(streams=streams, static={"batch": sizes}, fixed={"batch": sizes[-1]})


def test_static_sizes_that_cannot_be_drawn_are_left_out() -> None:
    """EuroSAT has 10 prompts: 32 is out, 8 stays (protocol 21.10)."""
    recipe, notes = made(halves(8, (8, 32)), 10, n_prompts=10)
    assert recipe.static == {"batch": (8,)} and recipe.fixed == {"batch": 8}
    assert notes == ("probe, 1 shot: batch 32 left out (10 support images x 2 views = 20 rows, 10 prompts)",)


def test_where_no_static_size_is_left_the_largest_takes_its_place() -> None:
    recipe, notes = made(halves(8, (8, 32)), 2, n_prompts=3)
    assert recipe.static == {"batch": (4,)} and recipe.fixed == {"batch": 4}
    assert {name: s.batch for name, s in recipe.streams.items()} == {"image": 2, "text": 2}
    assert notes[0].startswith("probe, 1 shot: batch 8, 32 -> 4 (")
    assert with_static(recipe, {"batch": 4}) == recipe


@pytest.mark.parametrize("order", RULES)
def test_a_stream_without_a_batch_is_no_part_of_a_static_one(order: str) -> None:
    """It takes what its rule can draw, and the others' shares are those of the method."""
    before = halves(8, (8, 16))
    extra = Stream(views=TWO, rows="per-epoch", order=order)
    after, notes = made(replace(before, streams={**before.streams, "extra": extra}), 24, n_prompts=24)
    assert notes == ()
    streams = with_static(after, {"batch": 16}).streams
    assert (streams["image"].batch, streams["text"].batch) == (8, 8)
    assert drawn(streams["extra"], 24, len(TWO)) == (24, 23 if order == "restart" else 24)
    with pytest.raises(MissingData, match="has too few rows for a batch"):
        made(replace(before, streams={**before.streams, "extra": replace(extra, order="restart")}), 1)


@settings(max_examples=150, deadline=None)
@given(
    images=st.integers(1, 12),
    prompts=st.integers(1, 12),
    sizes=st.lists(st.integers(2, 40), min_size=1, max_size=3, unique=True),
    order=st.sampled_from(RULES),
    static=st.booleans(),
)
def test_what_comes_back_can_be_drawn(
    images: int, prompts: int, sizes: list[int], order: str, static: bool
) -> None:
    recipe = halves(sizes[0], tuple(sizes))
    streams = dict(recipe.streams)
    streams["extra"] = Stream(views=TWO, rows="per-epoch", order=order)
    recipe = Recipe(streams=streams, static=recipe.static if static else {}, fixed=recipe.fixed)
    given = facts(images, prompts)
    try:
        fitted, _ = made(recipe, images, prompts)
    except MissingData:
        assert prompts < 2 or images < 2
        return
    for point in points(fitted.static):
        for stream in with_static(fitted, point).streams.values():
            check_legal(stream.order, *drawn(stream, *batches.size(stream, given)))
    assert made(fitted, images, prompts) == (fitted, ()), "what was shortened is not shortened again"


def test_too_few_rows_for_any_batch_block() -> None:
    with pytest.raises(
        MissingData, match=r"probe has too few rows for a batch \(.*1 support image\): add shots"
    ):
        made(Recipe(streams={"image": Stream(batch=8)}), 1)
    with pytest.raises(MissingData, match="1 prompt"):
        made(halves(8, (8, 32)), 4, n_prompts=1)
    with pytest.raises(MissingData, match="1 prompt"):
        recipe_of("cross-modal", facts(4, n_prompts=1))


def test_a_batch_of_no_rows_is_refused() -> None:
    safe, linear = builtin().get("safe"), builtin().get("linear-probe-sgd")
    with pytest.raises(BenchError, match=r"safe\.batch must be a positive number of rows, not 0"):
        batches.check(safe, {**safe.settings, "batch": 0})
    with pytest.raises(BenchError, match="positive number of rows, not 0"):
        batches.check(linear, {**linear.settings, "batch": (8, 0)})
    batches.check(safe, safe.settings)
    batches.check(safe, {**safe.settings, "batch": None})


def test_what_a_method_shortens_by_itself_is_said_too() -> None:
    _, notes = recipe_of("linear-probe-sgd", facts(2), batch=(8, 32))
    assert notes == ("linear-probe-sgd, 1 shot: batch 8, 32 -> 3 (2 support images x 2 views = 4 rows)",)
    _, notes = recipe_of("linear-probe-sgd", facts(10), batch=(8, 32))
    assert notes == ("linear-probe-sgd, 1 shot: batch 32 left out (10 support images x 2 views = 20 rows)",)
    with pytest.raises(BenchError, match=r"batch=1 cannot be shared .*\(image, text\); choose at least 2"):
        recipe_of("cross-modal", facts(20, 20), batch=(1,))
