"""Measure the most operations and bytes per second of a run's device. torch is loaded only for a GPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from bench.errors import BenchError
from bench.lazy import torch
from bench.plan import cost

_REPEATS = 5
_SIDE = 4096  # rows of the matrices; one product takes 0.14 TFLOP
_NUMBERS = 1 << 27  # most floats that are copied
_SHARE = 32  # a matrix, or the copied numbers, take at most 1/32 of the free memory
_LEAST = 512  # fewest rows: the time for smaller matrices is that of launching work, not of computing


def of(device: str) -> cost.Device:
    """Measure the roofline of ``cpu``, ``cuda`` or ``cuda:N``.

    Products are in single precision without TF32, as in training. On a GPU this takes about a tenth of a
    second, and the memory is freed. Raises BenchError if too little memory is free.
    """
    if not device.startswith("cuda"):
        return cost.this_processor()
    from bench.run.session import repeatable  # imports torch

    repeatable()  # before the first product, because cuBLAS reads its settings only then
    try:
        free, _ = torch.cuda.mem_get_info(device)
        numbers = free // (_SHARE * 4)
        side = min(_SIDE, math.isqrt(numbers))
        if side < _LEAST:
            raise BenchError(f"{device} cannot be measured: only {free / 1e6:,.0f} MB of its memory are free")
        name = torch.cuda.get_device_name(device)
        limits = measured(name, device, lambda: torch.cuda.synchronize(device), side, min(_NUMBERS, numbers))
    except RuntimeError as error:  # for example: starting CUDA or cuBLAS needs memory that is not free
        said = str(error).partition("\n")[0]
        raise BenchError(f"{device} cannot be measured: {said}") from error
    torch.cuda.empty_cache()
    return limits


def measured(name: str, device: str, wait: Callable[[], object], side: int, numbers: int) -> cost.Device:
    """Measure a device by the best of five products of matrices and of five copies of ``numbers`` floats.

    The matrices have ``side`` rows. ``wait`` returns when the device has finished its work.
    """
    a = torch.ones(side, side, device=device)
    wide = torch.ones(numbers, device=device)
    out, to = torch.empty_like(a), torch.empty_like(wide)

    def best(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(_REPEATS + 2):  # the first two load kernels and wake the device
            wait()
            began = time.perf_counter()
            work()
            wait()
            seconds.append(time.perf_counter() - began)
        return min(seconds[2:])

    product = best(lambda: torch.mm(a, a, out=out))
    copy = best(lambda: to.copy_(wide))
    return cost.Device(name, 2 * side**3 / product, 2 * wide.nbytes / copy)
