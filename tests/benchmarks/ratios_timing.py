"""Interleaved timing: every variant once a round, so that what else the machine does falls on all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Row:
    """One ratio: how many times longer ``baseline`` takes than ``ours``, medians of interleaved repeats.

    ``ratio`` is the median over rounds of the ratio within a round. ``cached`` and ``folded`` describe the
    baseline: does it read stored features, does it run the folded head (None: nothing of the kind takes
    part). ``floor``: the seconds that the cost model thinks possible for ``ours`` on this device (None: not
    modelled).
    """

    name: str
    baseline: str
    ratio: float
    ours_s: float
    baseline_s: float
    repeats: int
    cached: bool | None
    folded: bool | None
    note: str = ""
    floor: float | None = None
    least: float | None = None
    more: Mapping[str, Any] | None = None


def now() -> float:
    """The clock, read when a GPU's work is done; without one, or before its first use, nothing is awaited."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def clock(fn: Callable[[], Any]) -> float:
    """Seconds of a call."""
    began = now()
    fn()
    return now() - began


def interleaved(
    variants: Mapping[Any, Callable[[], Any]],
    repeats: int,
    warm: bool = True,
    timer: Callable[[Callable[[], Any]], float] = clock,
) -> dict[Any, list[float]]:
    """Seconds of every variant in every round.

    ``warm``: one round goes before, not counted. ``timer`` makes seconds of a call.
    """
    if warm:
        for fn in variants.values():
            fn()
    seconds: dict[Any, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, fn in variants.items():
            seconds[name].append(timer(fn))
    return seconds


def recorded(fn: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """On a GPU what replays ``fn`` as a CUDA graph, as training does with its steps; elsewhere ``fn`` itself.

    A small part that is launched operation by operation shows what launches cost, whatever it computes.
    ``fn`` must not wait for the device.
    """
    if device.type != "cuda":
        return fn
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):  # PyTorch's notes on CUDA graphs ask for a few
            fn()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = fn()

    def replay(kept: Any = kept) -> None:  # the outputs live as long as the recording
        graph.replay()

    return replay


def told(variants: Mapping[Any, Callable[[], float]], repeats: int) -> dict[Any, list[float]]:
    """As ``interleaved``, of calls that give their own seconds, having left their warm-up out."""
    return interleaved(variants, repeats, warm=False, timer=lambda fn: fn())


def row(
    name: str,
    baseline: str,
    ours: list[float],
    theirs: list[float],
    cached: bool | None,
    folded: bool | None,
    note: str = "",
    **more: Any,
) -> Row:
    """A row from the rounds of ours and of a baseline."""
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    return Row(
        name,
        baseline,
        ratio,
        statistics.median(ours),
        statistics.median(theirs),
        len(ours),
        cached,
        folded,
        note,
        **more,
    )
