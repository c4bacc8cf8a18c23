"""What the device is, what it does at the most, and what a recording that fails leaves behind."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import torch

from tests.benchmarks import ratios_device
from tests.benchmarks.gpu import seams, watch
from tests.benchmarks.gpu.place import Place

Found = Iterator[tuple[str, Any]]


def machine(place: Place) -> Found:
    """Device, versions, commit, day; nothing that names the machine."""
    yield from watch.origin(place.device.type).items()
    yield "processor", ratios_device.label(torch.device("cpu"))
    yield "day", datetime.now(UTC).strftime("%Y-%m-%d")
    yield "python", platform.python_version()
    yield "torch", torch.__version__
    if place.gpu:
        p = torch.cuda.get_device_properties(0)
        yield "memory_GB", p.total_memory / 1e9
        yield "capability", f"{p.major}.{p.minor}"
        yield "cudnn", torch.backends.cudnn.version()


def ceilings(place: Place) -> Found:
    """Products, copies, transfers; microseconds of an operation launched alone and in a graph."""
    side, device = place.pick(8192, 128), place.device
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        x, y = a.to(dtype), b.to(dtype)
        yield f"{name}_tflops", 2e-12 * side**3 / place.median(lambda x=x, y=y: x @ y)
    wide = torch.randn(place.pick(1 << 28, 1 << 16), device=device)
    to = torch.empty_like(wide)
    yield "copy_GBps", 2e-9 * wide.nbytes / place.median(lambda: to.copy_(wide))
    host = torch.empty(place.pick(1 << 28, 1 << 16), dtype=torch.uint8)
    there = host.to(device)
    yield "pageable_to_device_GBps", 1e-9 * host.nbytes / place.median(lambda: there.copy_(host))
    yield "device_to_pageable_GBps", 1e-9 * host.nbytes / place.median(lambda: host.copy_(there))
    if place.gpu:
        pinned = host.pin_memory()
        up = place.median(lambda: there.copy_(pinned, non_blocking=True))
        down = place.median(lambda: pinned.copy_(there, non_blocking=True))
        yield "pinned_to_device_GBps", 1e-9 * host.nbytes / up
        yield "device_to_pinned_GBps", 1e-9 * host.nbytes / down
    small = torch.zeros(8, device=device)

    def many() -> None:
        for _ in range(1000):
            small.add_(1.0)

    yield "launch_us", 1e3 * place.median(many)
    if place.gpu:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            many()
        yield "launch_in_a_graph_us", 1e3 * place.median(graph.replay)
    roof = place.roofline()
    yield "roofline", {"flops": roof.flops, "bytes": roof.bytes}


def broken_recording(place: Place) -> Found:
    """A step that waits for the device while it is recorded, and the process's state afterwards."""
    recorder = seams.recorder(place.device)
    if recorder is None:
        yield "recorded", "steps are not recorded on this device"
        return
    x = torch.ones(1000, 1000, device=place.device)
    yield "before", _state(place)
    recorder.warm(lambda: x.sum())
    try:
        recorder.capture(lambda: x * float(x.sum()))
        raise AssertionError("a step that waits was recorded")
    except RuntimeError as error:
        yield "recording", str(error).splitlines()[0]
    after = _state(place)
    yield "after", after
    made = recorder.capture(lambda: (x + 1.0).sum())
    made.replay()
    yield "next recording", float(made.loss_R)
    assert float(made.loss_R) == 2e6, "the next recording computes something else"
    wrong = [k for k, good in after.items() if not good]
    assert not wrong, f"after a failed recording: {', '.join(wrong)}"


def _state(place: Place) -> dict[str, bool]:
    """What must hold before and after; the memory is a block that is freed and given back."""
    held = torch.empty(1 << 28, dtype=torch.uint8, device=place.device)
    reserved = torch.cuda.memory_reserved()
    del held
    torch.cuda.empty_cache()
    found = {
        "the default stream is current": torch.cuda.current_stream() == torch.cuda.default_stream(),
        "freed memory is given back": reserved - torch.cuda.memory_reserved() >= 1 << 28,
    }
    try:
        found["random numbers can be drawn"] = float(torch.rand((), device=place.device)) >= 0.0
    except RuntimeError:
        found["random numbers can be drawn"] = False
    return found
