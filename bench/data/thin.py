"""Compute the middle of a long thin image at the tower's size, without enlarging what is cut away.

Pillow enlarges in two passes, first the width and then the height, and rounds after each. With a size of 224
px, an image of 1 x 20,000 px becomes 224 x 4,480,000 px on the way, of which only 224 rows are kept. Here
Pillow enlarges the short side. The long side is computed for the kept rows or columns alone, with Pillow's
own weights, so that every bit is the same. (An image that is made smaller never needs more memory than it has
itself, so it does not need this; the order of the passes would also differ between Pillow's versions there.)
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_BITS = 22  # binary digits behind the point in Pillow's weights
_SUPPORT = {Image.Resampling.BILINEAR: 1.0, Image.Resampling.BICUBIC: 2.0}

_Weights = list[tuple[int, np.ndarray]]


def middle(
    image: Image.Image, width: int, height: int, start: int, side: int, resample: Image.Resampling
) -> np.ndarray:
    """Enlarge an RGB image to ``width`` x ``height`` and cut its long side to ``start`` .. ``start + side``.

    ``side`` is the shorter of the two, so the result is uint8 (side, side, 3). ``resample`` is bicubic or
    bilinear.
    """
    assert width >= image.width and height >= image.height, "the order of the passes is known for enlarging"
    if height > width:
        weights = _weights(image.height, height, start, side, resample)
        low, high = _span(weights)
        band = image.crop((0, low, image.width, high)).resize((side, high - low), resample)
        return _weighted(np.asarray(band), weights, low)
    weights = _weights(image.width, width, start, side, resample)
    low, high = _span(weights)
    columns = np.asarray(image.crop((low, 0, high, image.height))).swapaxes(0, 1)
    band = Image.fromarray(np.ascontiguousarray(_weighted(columns, weights, low).swapaxes(0, 1)))
    return np.asarray(band.resize((side, side), resample))


def _weights(length: int, out: int, start: int, count: int, resample: Image.Resampling) -> _Weights:
    """Return each output pixel's first input pixel and whole-number weights, as Pillow computes them."""
    scale = float(np.float32(length)) / out  # Pillow's lengths are single precision here
    support = _SUPPORT[resample]
    result = []
    for position in range(start, start + count):
        centre = (position + 0.5) * scale
        first = max(0, int(centre - support + 0.5))
        last = min(length, int(centre + support + 0.5))
        at = np.abs(np.arange(first, last) - centre + 0.5)
        shares = _bicubic(at) if resample == Image.Resampling.BICUBIC else np.maximum(1.0 - at, 0.0)
        shares = shares / np.cumsum(shares)[-1]  # summed in order: another order changes the last bit
        result.append((first, np.trunc(shares * (1 << _BITS) + np.copysign(0.5, shares)).astype(np.int64)))
    return result


def _bicubic(at: np.ndarray) -> np.ndarray:
    """Return the bicubic weights (a = -0.5) of pixels at these distances."""
    a = -0.5
    near = ((a + 2.0) * at - (a + 3.0)) * at * at + 1
    far = (((at - 5) * at + 8) * at - 4) * a
    return np.where(at < 1.0, near, np.where(at < 2.0, far, 0.0))


def _span(weights: _Weights) -> tuple[int, int]:
    """Return the first input pixel that the weights need, and the one behind the last."""
    first, (last, shares) = weights[0][0], weights[-1]
    return first, last + len(shares)


def _weighted(lines: np.ndarray, weights: _Weights, low: int) -> np.ndarray:
    """Return weighted sums of lines, uint8 (n, m, 3) to (count, m, 3).

    ``lines`` begins at the input's ``low``.
    """
    out = np.empty((len(weights), *lines.shape[1:]), np.uint8)
    for row, (first, shares) in zip(out, weights, strict=True):
        part = lines[first - low : first - low + len(shares)].astype(np.int64)
        total = np.tensordot(shares, part, 1) + (1 << (_BITS - 1))
        row[:] = np.clip(total >> _BITS, 0, 255)
    return out
