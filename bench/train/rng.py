"""Make random generators that are keyed by a seed and a purpose, and give the same numbers everywhere.

Every generator is on the CPU, so that its numbers do not depend on the device. They are moved to the device
afterwards. Importing this module does not import torch.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from bench.lazy import torch


def key(seed: int, *purpose: str | int) -> int:
    """Return the 128-bit key of a stream: SHA-256 of (seed, purpose...), with the parts kept apart.

    ``("a", "bc")`` and ``("ab", "c")`` are different purposes, and so are ``1`` and ``"1"``.
    """
    text = json.dumps([int(seed), *purpose], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a fresh CPU ``torch.Generator`` for one purpose, for parameter initialisation and noise."""
    made = torch.Generator(device="cpu")
    made.manual_seed(key(seed, *purpose) >> 65)  # 63 bits: what every torch version takes without wrapping
    return made


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return a fresh ``numpy.random.Generator`` (PCG64) for one purpose."""
    return np.random.Generator(np.random.PCG64(key(seed, *purpose)))
