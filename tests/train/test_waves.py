"""Grids larger than the memory are trained in waves, and nothing but the peak changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.interface import Recipe
from bench.recipe import OptimSpec
from bench.train import loop, select, waves
from bench.train.keep import Trained
from tests.train.engine_cases import case
from tests.train.test_fused import assert_same


def test_bytes_of_a_replica() -> None:
    start = {"a": torch.zeros(3, 4), "b": torch.zeros(5)}
    adam, sgd = Recipe(optim=OptimSpec("adamw")), Recipe(optim=OptimSpec("sgd"))
    # start, weights, gradients, best; two moments
    assert waves.bytes_per_replica(start, adam) == 17 * (4 * 4 + 8)
    assert waves.bytes_per_replica(start, sgd) == 17 * (4 * 4 + 4)


def test_shared_memory_is_counted_once() -> None:
    x = torch.zeros(100)
    assert waves.held([x, x[10:], x.view(10, 10), "text", torch.zeros(3)]) == 4 * 103


@pytest.mark.parametrize(
    ("R", "each", "free", "size"),
    [
        (12, 10, None, 12),
        (12, 10, 240, 12),
        (12, 10, 239, 6),
        (12, 10, 100, 4),
        (12, 10, 1, 1),
        (7, 10, 80, 4),
        (1, 10, 0, 1),
    ],
)
def test_size_of_a_wave(R: int, each: int, free: int | None, size: int) -> None:
    assert waves.fitting(R, each, free) == size


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, free: int, whole: int, reserved: int, allocated: int) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, whole))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)


@pytest.mark.parametrize(
    ("sharers", "free", "mine", "part"),
    [
        (1, 90, 0, 90),
        (2, 90, 0, 50),  # the other one has yet to begin
        (2, 50, 0, 50),  # it has begun, and took what is its own
        (2, 90, 10, 40),
        (2, 20, 10, 20),  # somebody else is there too
        (4, 60, 30, 0),
    ],
)
def test_processes_on_one_gpu_have_equal_parts(
    sharers: int, free: int, mine: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_gpu(monkeypatch, free, 100, mine, mine)
    assert waves.own_part(torch.device("cuda"), sharers) == part


def test_memory_that_the_allocator_keeps_is_free_for_the_process_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_a_gpu(monkeypatch, 10, 100, reserved=60, allocated=20)
    assert waves.own_part(torch.device("cuda")) == 50
    assert waves.own_part(torch.device("cuda"), 2) == 30


def test_processes_share_a_processors_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves, "free_bytes", lambda device: 100)
    assert waves.own_part(torch.device("cpu"), 3) == 33
    monkeypatch.setattr(waves, "free_bytes", lambda device: None)
    assert waves.own_part(torch.device("cpu"), 3) is None


def test_sharers_make_smaller_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    c = case("cross-modal-linear")
    each = waves.bytes_per_replica({"W_KC": c.task.W_KC}, c.recipe)
    monkeypatch.setattr(waves, "free_bytes", lambda device: int(4 * each / waves.SHARE))
    alone, shared = (
        select.fit(c.method, c.recipe, c.task, c.consts, c.pools, c.val, sharers) for sharers in (1, 2)
    )
    assert shared.budget["waves"] == 4 and "waves" not in alone.budget, (
        "two batch sizes, four rates and decays"
    )
    assert_same(c, alone, shared)


def test_free_memory_is_known_here() -> None:
    free = waves.free_bytes(torch.device("cpu"))
    assert free is None or 1 << 20 < free < 1 << 50


@pytest.mark.parametrize("name", ["safe", "cross-modal-linear", "tip-adapter-f"])
def test_waves_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    c = case(name)
    whole = c.fit()
    assert "waves" not in whole.budget
    each = waves.bytes_per_replica(
        c.method.init(c.task, c.consts, {**c.task.settings, "lr": 1.0}, None),  # type: ignore[arg-type]
        c.recipe,
    )
    monkeypatch.setattr(waves, "free_bytes", lambda device: int(2 * each / waves.SHARE))
    split = c.fit()
    assert split.budget["waves"] > 1 and split.budget["halvings"] == 0
    assert_same(c, whole, split)
    assert [e["checks"] for e in whole.curve] == [e["checks"] for e in split.curve]
    assert {k: v for k, v in split.budget.items() if k not in ("waves", "halvings")} == whole.budget


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_out_of_memory_halves_the_wave(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    c = case("safe")
    whole, sizes, original = c.fit(), [], loop.train

    def cramped(*arguments: Any) -> Trained:
        sizes.append(len(arguments[4]))
        if len(arguments[4]) > 2:
            raise error
        return original(*arguments)

    monkeypatch.setattr(loop, "train", cramped)
    halved = c.fit()
    assert sizes == [6, 3, 2, 2, 2]
    assert (halved.budget["waves"], halved.budget["halvings"]) == (3, 2)
    assert_same(c, whole, halved)


def test_what_fits_in_no_wave_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any) -> Trained:
        raise MemoryError("not even one")

    c = case("safe")
    monkeypatch.setattr(loop, "train", never)
    with pytest.raises(MemoryError, match="not even one"):
        c.fit()


def test_other_errors_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Trained:
        raise RuntimeError("shapes do not match")

    c = case("safe")
    monkeypatch.setattr(loop, "train", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        c.fit()
