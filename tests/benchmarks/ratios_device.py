"""Where the measurement runs: the device's name, what it can do at the most, and the aims for its kind."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import torch

from bench.run.provenance import device_name


@dataclass(frozen=True)
class Effort:
    """How much is measured: steps of a whole fit, repeats, single steps in the engine and in a plain loop."""

    steps: int
    repeats: int
    engine_steps: int
    plain_steps: int


# A GPU records steps (bench.train.graphs) only where there are 32 or more, so the engine's runs must be long.
QUICK, CPU, CUDA = Effort(12, 1, 1, 1), Effort(60, 3, 3, 2), Effort(600, 5, 100, 20)


def effort(device: torch.device, quick: bool) -> Effort:
    """The measurement's size on a device; ``quick``: rough ratios in little time."""
    if device.type == "cuda":
        return Effort(100, 1, 40, 3) if quick else CUDA
    return QUICK if quick else CPU


def goals(device: torch.device, replicas: int) -> tuple[float | None, float]:
    """What is aimed at: times faster than the engine's replicas one by one, and than the plain online loop.

    Training R replicas together can be at most R times faster than training them in turn, so five times is
    asked of more than five only; of fewer, and on a processor, not to be slower; of one alone, nothing.
    """
    gpu = device.type == "cuda"
    return (None if replicas == 1 else 5.0 if gpu and replicas > 5 else 1.0), (30.0 if gpu else 5.0)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def label(device: torch.device) -> str:
    """The device in words: the accelerator's name, or the processor's and how many of its cores."""
    name = device_name(str(device))
    return name if device.type == "cuda" else f"{name}, {cores()} cores"


def slug(device: torch.device) -> str:
    """The device in a file's name: ``cpu``, or an accelerator's name such as ``nvidia-h100-80gb-hbm3``."""
    return (
        re.sub(r"[^a-z0-9]+", "-", device_name(str(device)).lower()).strip("-")
        if device.type == "cuda"
        else "cpu"
    )
