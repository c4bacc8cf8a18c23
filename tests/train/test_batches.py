"""Batch rules: what an epoch is, what is legal, and that orders are fixed by their key."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.recipe import RULES, check_legal, legal, pool_rows, steps_per_epoch
from bench.train.batches import cycle, index_batches, locate, order

KEY = (1, "batches", "image")


def run(rule: str, n_rows: int, batch: int, **length: int) -> list[tuple[int, np.ndarray]]:
    return list(index_batches(rule, n_rows, batch, key=KEY, **length))


def test_batch_legality_of_the_published_grids() -> None:
    """Protocol 21.10: EuroSAT has 10 prompts and, at one shot without flip, 10 images."""
    assert not legal("restart", 10, 32 // 2)
    assert legal("restart", 10, 8 // 2)
    assert legal("restart", 10, 8)
    assert not legal("restart", 8, 8)
    with pytest.raises(
        BenchError, match=r"batch 16 of text must be strictly smaller .* 10; choose at most 9"
    ):
        index_batches("restart", 10, 16, key=(1, "text"), steps=1)
    with pytest.raises(BenchError, match="add shots or views"):
        check_legal("restart", 1, 1, "image")
    with pytest.raises(BenchError, match="no rows"):
        check_legal("full", 0, 1)
    with pytest.raises(BenchError, match="not a positive number"):
        check_legal("epoch-keep", 5, 0)
    with pytest.raises(BenchError, match="did you mean 'epoch-keep'"):
        legal("epoch-kep", 5, 1)


@settings(max_examples=80, deadline=None)
@given(
    rule=st.sampled_from(RULES),
    n_images=st.integers(1, 30),
    views=st.integers(1, 3),
    batch=st.integers(1, 20),
)
def test_cycles_foretell_the_sizes_of_batches(rule: str, n_images: int, views: int, batch: int) -> None:
    n_rows = n_images * views
    if not legal(rule, n_rows, batch):
        return
    steps = 2 * steps_per_epoch(rule, n_rows, batch, n_images) + 1
    size, *ending = cycle(rule, n_rows, batch, n_images)
    last, each = ending or (size, 1)
    expected = [last if (step + 1) % each == 0 else size for step in range(steps)]
    assert [len(rows) for _, rows in run(rule, n_rows, batch, steps=steps, n_images=n_images)] == expected


def test_steps_per_epoch() -> None:
    assert steps_per_epoch("restart", 20, 8) == 2
    assert steps_per_epoch("epoch-keep", 24, 10) == 3
    assert steps_per_epoch("epoch-drop", 32, 32) == 1
    assert steps_per_epoch("epoch-drop", 10, 32) == 1
    assert steps_per_epoch("epoch-drop", 95, 32) == 2
    assert steps_per_epoch("full", 95, 0) == 1
    assert steps_per_epoch("images", 20 * 1600, 256, 1600) == 6
    assert steps_per_epoch("images", 20 * 100, 256, 100) == 1


@settings(max_examples=80, deadline=None)
@given(
    rule=st.sampled_from(RULES), n_rows=st.integers(2, 60), batch=st.integers(1, 70), epochs=st.integers(1, 4)
)
def test_every_epoch_draws_without_replacement(rule: str, n_rows: int, batch: int, epochs: int) -> None:
    if not legal(rule, n_rows, batch):
        assert rule == "restart" and batch >= n_rows
        return
    each = steps_per_epoch(rule, n_rows, batch)
    drawn = run(rule, n_rows, batch, epochs=epochs)
    assert [epoch for epoch, _ in drawn] == [epoch for epoch in range(epochs) for _ in range(each)]
    for epoch in range(epochs):
        rows = np.concatenate([index for e, index in drawn if e == epoch])
        assert rows.dtype == np.int64 and len(set(rows.tolist())) == len(rows)
        assert rows.min() >= 0 and rows.max() < n_rows
        dropped = {"restart": n_rows % batch, "epoch-keep": 0, "full": 0}.get(rule)
        if dropped is None:  # epoch-drop and images drop a partial batch only where a full one exists
            dropped = n_rows % batch if n_rows >= batch else 0
        assert len(rows) == n_rows - dropped
    sizes = {len(index) for _, index in drawn}
    if rule == "restart":
        assert sizes == {batch}


def test_images_touches_about_n_of_the_pool() -> None:
    """Protocol 18.4: an epoch takes max(1, N // B) batches from a permutation of all V*N rows."""
    drawn = run("images", 20 * 30, 8, epochs=2, n_images=30)
    assert [len(index) for _, index in drawn] == [8] * 6
    assert max(index.max() for _, index in drawn) >= 30
    short = run("images", 20 * 3, 256, epochs=1, n_images=3)
    assert [len(index) for _, index in short] == [60]


def test_full_keeps_the_order_of_the_rows() -> None:
    for epoch, index in run("full", 5, 0, epochs=2):
        assert index.tolist() == [0, 1, 2, 3, 4], epoch


def test_steps_are_a_prefix_of_epochs_and_restart_reshuffles() -> None:
    long = run("restart", 11, 4, epochs=5)
    short = run("restart", 11, 4, steps=7)
    assert len(short) == 7
    for (e, ours), (f, theirs) in zip(short, long, strict=False):
        assert e == f and (ours == theirs).all()
    passes = [np.concatenate([index for e, index in long if e == epoch]).tolist() for epoch in range(5)]
    assert len({tuple(rows) for rows in passes}) == 5


def test_orders_depend_on_seed_purpose_and_epoch_only() -> None:
    base = order(1, ("image",), 0, 50).tolist()
    assert base == order(1, ("image",), 0, 50).tolist()
    others = [order(2, ("image",), 0, 50), order(1, ("text",), 0, 50), order(1, ("image",), 1, 50)]
    assert all(other.tolist() != base for other in others)
    assert order(1, ("image",), 0, 50, take=20).tolist() == base[:20]


def test_an_order_is_pinned() -> None:
    """A change here changes every trained number of every recipe."""
    assert order(1, ("batches", "image"), 0, 8).tolist() == [2, 3, 7, 4, 0, 5, 6, 1]


def test_orders_are_uniform() -> None:
    """Rows are first equally often: 2,000 epochs of 10 rows, chi-square (9 degrees of freedom) below 40."""
    first = [index[0] for _, index in islice(index_batches("epoch-keep", 10, 10, key=KEY, epochs=2000), 2000)]
    counts = np.bincount(first, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 40


def test_view_layouts() -> None:
    assert pool_rows("union", 6, 2) == 12
    assert pool_rows("per-epoch", 6, 2) == 6
    rows = np.array([0, 5, 2])
    assert locate("union", np.array([0, 11, 6]), 3, 6, 2).tolist() == [0, 11, 6]
    assert [locate("per-epoch", rows, e, 6, 3).tolist() for e in range(4)] == [
        [0, 5, 2],
        [6, 11, 8],
        [12, 17, 14],
        [0, 5, 2],
    ]
    assert locate("per-epoch", rows, 2, 6, 3, first=1).tolist() == [0, 5, 2]
    with pytest.raises(BenchError, match="did you mean 'union'"):
        pool_rows("unoin", 6, 2)
