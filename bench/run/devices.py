"""Find the device that a name such as ``auto`` means. torch is loaded only to look for a GPU."""

from __future__ import annotations

import re
from pathlib import Path

from bench.errors import BenchError
from bench.lazy import torch

# One of these exists on every machine whose torch may see a GPU: the driver of NVIDIA (also on Tegra and in
# WSL) or of AMD.
_GPUS = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg", "/dev/kfd")


def check(name: str) -> None:
    """Raise BenchError for a name that no device can have, or for a GPU that is not there."""
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
    """Return the kind of device that a name means here, ``cpu`` or ``cuda``.

    torch is loaded only if the name asks for ``cuda`` or the machine has a GPU. Raises BenchError for a
    device that is not there.
    """
    if name == "auto" and not any(Path(place).exists() for place in _GPUS):
        return "cpu"
    return pick(name).partition(":")[0]


def card(name: str) -> str:
    """Return the UUID of a GPU, which identifies it among the GPUs of all machines.

    Raises BenchError if the GPU is not there.
    """
    check(name)
    return str(torch.cuda.get_device_properties(name).uuid)


def pick(name: str) -> str:
    """Return the device that a name means: ``auto`` is CUDA if there is a GPU, else the processor.

    Raises BenchError for a device that is not there.
    """
    check(name)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name
