"""Positions drawn for many steps at once are those of one step after the other, for every rule and layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from bench.interface import TEXT, Stream, points
from bench.recipe import LAYOUTS, RULES, check_legal, drawn, legal
from bench.train import batches, blocks, loop, rng, span
from tests.train.engine_cases import case

CPU = torch.device("cpu")
STEPS = 41


def lanes(streams: dict[str, Stream], images: list[int], prompts: int = 11) -> list[loop.Lane]:
    """One lane for each number of images; two of them have the seed of another."""
    made = []
    for i, n in enumerate(images):
        pools = {
            name: loop.Pool(y := torch.zeros(prompts if s.source == TEXT else n), y, len(s.views))
            for name, s in streams.items()
        }
        made.append(loop.Lane({}, [], pools, seed=1 + i % 2))
    return made


def one_by_one(
    streams: dict[str, Stream], of: list[loop.Lane]
) -> Iterator[tuple[list[int], tuple[int, ...]]]:
    """The positions and sizes of every step, made step by step and lane by lane."""
    for parts in zip(*(loop.orders(streams, x.pools, x.seed, STEPS)[1] for x in of), strict=True):
        rows = [at for positions in parts for at in positions.values()]
        yield np.concatenate(rows).tolist(), tuple(map(len, rows))


def at_once(streams: dict[str, Stream], of: list[loop.Lane], due: Any) -> list[list[Any]]:
    made = blocks.blocks(loop.all_orders(streams, of), STEPS, due, CPU)
    return [[(at.tolist(), sizes) for at, sizes in block] for block in made]


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rule", RULES)
def test_blocks_equal_single_steps(rule: str, layout: str, first: int, views: int) -> None:
    for batch in (1, 4, 7, 25, None):
        image = Stream(
            views=("eval",) * views,
            rows=layout,
            order=rule,
            batch=None if rule == "full" else batch,
            first=first,
        )
        streams = {"image": image, "text": Stream(source=TEXT, order=rule, batch=batch and min(batch, 5))}
        of = lanes(streams, [20, 13, 20])
        if all(legal(rule, *drawn(image, lane.pools["image"].images, views)) for lane in of):
            cut = at_once(streams, of, lambda step: step % 9 == 4)
            assert [len(block) for block in cut] == [5, 9, 9, 9, 9]
            assert [step for block in cut for step in block] == list(one_by_one(streams, of))


def test_sorting_few_rows_is_finding_the_first_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [batches.order(1, ("x",), epoch, 300, take=96).tolist() for epoch in range(20)]
    monkeypatch.setattr(batches, "FEW", 0)
    assert few == [batches.order(1, ("x",), epoch, 300, take=96).tolist() for epoch in range(20)]


def test_blocks_end_where_many_rows_came_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MOST", 50)
    streams = {"image": Stream(order="epoch-keep", batch=8)}
    of, asked = lanes(streams, [20, 20]), list[int]()

    def due(step: int) -> bool:
        asked.append(step)
        return step == 30

    cut = at_once(streams, of, due)
    ends = np.cumsum([len(block) for block in cut]).tolist()
    assert 31 in ends and len(cut) > 8
    for block, end in zip(cut, ends, strict=True):
        rows = [len(at) for at, _ in block]
        assert sum(rows[:-1]) < 50 and (sum(rows) >= 50 or end in (31, STEPS))
    assert [step for block in cut for step in block] == list(one_by_one(streams, of))
    assert asked == [*range(STEPS)], "each step is asked about once"
    monkeypatch.setattr(blocks, "MOST", 1)
    assert {len(block) for block in at_once(streams, of, lambda step: False)} == {1}


def test_lanes_that_draw_alike_draw_once(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = {
        "image": Stream(order="restart", batch=8),
        "text": Stream(source=TEXT, order="restart", batch=8),
    }
    of, calls = lanes(streams, [20, 20, 40, 40]), list[Any]()  # seeds 1, 2, 1, 2
    expected, original = list(one_by_one(streams, of)), batches.order

    def counted(seed: int, purpose: list[str | int], *given: Any) -> np.ndarray:
        calls.append((seed, *purpose))
        return original(seed, purpose, *given)

    monkeypatch.setattr(batches, "order", counted)
    assert [step for block in at_once(streams, of, lambda step: False) for step in block] == expected
    assert calls.count((1, "order", "text")) == STEPS, "one batch of 11 prompts an epoch"
    assert calls.count((1, "order", "image")) == -(-STEPS // 2) + -(-STEPS // 5)


def test_a_block_is_drawn_before_the_check_of_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU a check waits for the steps that were launched; orders are drawn meanwhile."""
    c, heard, original = case("cross-modal-linear"), list[str](), loop.blocks

    def drawn_one_by_one(*given: Any) -> Iterator[Any]:
        for block in original(*given):
            heard.append(f"drawn {len(block)}")
            yield block

    def score(params: Any, values: Any) -> tuple[torch.Tensor, torch.Tensor]:
        heard.append("check")
        return (torch.zeros(len(values), dtype=torch.float64),) * 2

    values = points(c.recipe.grid)
    start = [c.method.init(c.task, c.consts, {**c.task.settings, **v}, rng.generator(1, "x")) for v in values]
    monkeypatch.setattr(loop, "blocks", drawn_one_by_one)
    recipe = span.with_static(c.recipe, {"batch": 4})
    loop.train(c.method, recipe, c.consts, start, values, c.task.settings, c.pools, 1, score)
    assert heard == ["drawn 1", *["drawn 3", "check"] * 4, "drawn 1", "check"]


def test_what_cannot_be_drawn_is_refused() -> None:
    streams = {"image": Stream(order="restart", batch=20)}
    with pytest.raises(ValueError, match="batch 20 of image must be strictly smaller"):
        loop.all_orders(streams, lanes(streams, [20]))
    check_legal("restart", 20, 19)
