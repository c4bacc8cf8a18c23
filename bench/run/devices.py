"""The device that a name means. torch is loaded only where a device has to be looked for."""

from __future__ import annotations

import re
from pathlib import Path

from bench.errors import BenchError
from bench.lazy import torch

# What a machine has whose torch may see a GPU: NVIDIA's driver, also on Tegra and in WSL, and AMD's.
_GPUS = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg", "/dev/kfd")


def check(name: str) -> None:
    """Raises BenchError for a name that no device can have, or for a GPU that is not there."""
    given = re.fullmatch(r"auto|(cpu|cuda)(?::(0|[1-9]\d*))?", name)
    if not given:
        raise BenchError(f"--device {name}: choose auto, cpu, cuda or cuda:N")
    if given[1] == "cuda":
        if not torch.cuda.is_available():
            raise BenchError(f"--device {name}: this PyTorch sees no CUDA device; use --device cpu")
        count = torch.cuda.device_count()
        if int(given[2] or 0) >= count:
            raise BenchError(
                f"--device {name}: this PyTorch sees {count} CUDA device(s); the last is cuda:{count - 1}"
            )


def kind(name: str) -> str:
    """The kind of device that a name means here, ``cpu`` or ``cuda``.

    torch is loaded only where ``cuda`` is named or the machine has a GPU. Raises BenchError for a device that
    is not there.
    """
    if name == "auto" and not any(Path(place).exists() for place in _GPUS):
        return "cpu"
    return pick(name).partition(":")[0]


def card(name: str) -> str:
    """What tells a GPU from every other, in all processes and on all machines, whatever its number there.

    Raises BenchError for one that is not there.
    """
    check(name)
    return str(torch.cuda.get_device_properties(name).uuid)


def pick(name: str) -> str:
    """``auto`` is CUDA where there is one. Raises BenchError for a device that is not there."""
    check(name)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name
