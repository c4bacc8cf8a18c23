"""Where a step measures, and what several steps need: a clock, memory, towers of true size, SAFE's steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from bench.registry import builtin

builtin()  # makes the folder of methods importable
from tests.benchmarks import ratios_fits, ratios_steps  # noqa: E402
from tests.benchmarks.gpu import seams, worker  # noqa: E402
from tests.benchmarks.ratios_timing import clock  # noqa: E402

ARCH = {"rn": "RN50", "vit": "ViT-B-16"}


@dataclass(frozen=True)
class Place:
    """``out``: for what is found. ``work``: for what is thrown away. ``full``: true sizes, else tiny.

    ``until``: when the step is stopped, by ``time.monotonic``.
    """

    out: Path
    work: Path
    device: torch.device
    full: bool
    until: float

    @classmethod
    def of(cls, out: Path, work: Path, device: str, seconds: float) -> Place:
        """The place by the device's type, for so long, with numerical flags as ``bench run`` sets them."""
        from bench.run.session import repeatable

        repeatable()
        gpu = device.startswith("cuda")
        where = torch.device("cuda", 0) if gpu else torch.device("cpu")
        return cls(out, work, where, gpu, time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds until the step is stopped."""
        return self.until - time.monotonic()

    @property
    def gpu(self) -> bool:
        """Is there one to be measured?"""
        return self.device.type == "cuda"

    def pick(self, full: Any, tiny: Any) -> Any:
        """One of two sizes."""
        return full if self.full else tiny

    def median(self, fn: Callable[[], Any], repeats: int = 5, warm: int = 2) -> float:
        """Median seconds of a call, the device's work included; one call in tiny sizes."""
        for _ in range(self.pick(warm, 1)):
            fn()
        return statistics.median(clock(fn) for _ in range(self.pick(repeats, 1)))

    def memory(self) -> dict[str, float]:
        """GB of CUDA's allocator, whose peak is reset; empty on a processor."""
        if not self.gpu:
            return {}
        found = {
            "peak_GB": torch.cuda.max_memory_allocated() / 1e9,
            "allocated_GB": torch.cuda.memory_allocated() / 1e9,
            "reserved_GB": torch.cuda.memory_reserved() / 1e9,
        }
        torch.cuda.reset_peak_memory_stats()
        return found

    def tower(self, family: str) -> Any:
        """A tower of true size with random weights; the embedded one in tiny sizes."""
        return _tower(family, self.device, self.full)

    def steps(self, family: str, method: str = "safe", shots: int = 16, K: int = 10) -> Any:
        """(fit, case, steps) of a method on noise images, as the ratio script makes them."""
        return _steps(family, method, self.pick(shots, min(shots, 4)), K, self.device, self.full)

    def let_go(self) -> None:
        """Forget towers and steps, and free their memory: for another process that uses the device."""
        _tower.cache_clear()
        _steps.cache_clear()
        worker.let_go()

    def roofline(self) -> Any:
        """What the device reaches, measured once."""
        return _roofline(self.device)


@cache
def _roofline(device: torch.device) -> Any:
    return seams.roofline(device)


@cache
def _tower(family: str, device: torch.device, full: bool) -> Any:
    if full:
        return ratios_steps.random_backbone(ARCH[family], device)
    from bench.clip.backbone import load, resolve

    return load(resolve(f"pocket-{family}"), device)


@cache
def _steps(family: str, method: str, shots: int, K: int, device: torch.device, full: bool) -> Any:
    cases = {"safe": "SAFE, published grid", "cross-modal-linear": "Cross-Modal, linear"}
    case = next(c for c in ratios_fits.CASES if c.title == cases[method])
    fit = ratios_fits.make(case, _tower(family, device, full), K, shots, ratios_fits.shrink(case, 201))
    return fit, case, ratios_steps.of_fit(fit, fit.features()[0])
