"""Compute backgrounds of scenes: two tones of a colour in one of eight textures.

Every texture is a continuous function of its parameters, with soft edges instead of thresholds. So rounding
that differs between machines moves a pixel by less than one level. This module imports no torch.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import numpy as np
from PIL import Image

TEXTURES = ("plain", "striped", "dotted", "checkered", "gradient", "noisy", "wavy", "gridded")
COLOURS = {  # maps a name to red, green and blue in 0..255
    "red": (217, 38, 38),
    "green": (38, 166, 64),
    "blue": (51, 89, 217),
    "yellow": (242, 217, 51),
    "purple": (140, 64, 179),
    "orange": (242, 140, 38),
    "pink": (242, 153, 191),
    "brown": (128, 84, 51),
    "black": (20, 20, 20),
    "white": (247, 247, 247),
    "gray": (128, 128, 128),
}
_GRAIN = 16  # cells of the noise on each side
_SOFT = 4.0  # slope of a texture's edges


def tones(colour: int, shift: tuple[int, int, int], depth: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return two tones: ``colour`` (row of COLOURS) shifted by channel, and one ``depth`` levels away.

    The second tone is darker if the first is light, and lighter if it is dark.
    """
    first = tuple(min(255, max(0, v + s)) for v, s in zip(list(COLOURS.values())[colour], shift, strict=True))
    step = -depth if sum(first) > 3 * 127 else depth
    return first, tuple(min(255, max(0, v + step)) for v in first)


def weight(texture: int, side: int, angle: int, frequency: int, phase: int, seed: int) -> np.ndarray:
    """Return how much of the second tone each pixel takes, float (side, side) in [0, 1].

    ``angle`` and ``phase`` are in degrees, and ``frequency`` is in hundredths of the base frequency. ``seed``
    selects the noise.
    """
    name = TEXTURES[texture]
    if name == "plain":
        return np.zeros((side, side))
    if name == "noisy":
        cells = np.frombuffer(hashlib.shake_256(b"noise %d" % seed).digest(_GRAIN * _GRAIN), np.uint8)
        grain = Image.fromarray(cells.reshape(_GRAIN, _GRAIN)).resize((side, side), Image.Resampling.BILINEAR)
        return np.asarray(grain) / 255.0
    x, y = _grid(side)
    turn, f, shift = math.radians(angle), frequency / 100, math.radians(phase)
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    if name == "striped":
        return _edge(np.sin(3 * f * u + shift))
    if name == "dotted":
        return _edge(np.sin(2.2 * f * u + shift) * np.sin(2.2 * f * v) - 0.45)
    if name == "checkered":
        return _edge(np.sin(2 * f * u + shift) * np.sin(2 * f * v))
    if name == "gradient":
        return np.clip(0.5 + 0.5 * u, 0, 1)
    if name == "wavy":
        return _edge(np.sin(3 * f * (u + 0.15 * np.sin(f * v)) + shift))
    lines = np.minimum(np.abs(np.sin(2.5 * f * u + shift)), np.abs(np.sin(2.5 * f * v)))
    return _edge(0.18 - lines)


def _edge(wave: np.ndarray) -> np.ndarray:
    return np.clip(0.5 + _SOFT * wave, 0, 1)


@lru_cache
def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    line = (2 * np.arange(side) + 1) / side - 1
    return np.broadcast_to(line, (side, side)), np.broadcast_to(line[:, None], (side, side))
