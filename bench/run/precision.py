"""Choose the precision for ``--precision auto``: the fastest in which the image tower's features agree.

The choice is made before a run is planned, because fit keys hold the precision. If noise changed the choice,
a resumed run would begin again from the start. So the choice for these weights on this device is kept beside
the feature store, and precisions are measured only if there is no kept choice. To measure, precisions are
timed in turns, and the median of the ratios decides. A lower precision must be clearly faster.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

import msgspec
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity

from bench import typed
from bench.clip import backbone as backbones
from bench.clip.backbone import BackboneSpec
from bench.data.views import render
from bench.errors import BenchError
from bench.features.forward import Tower, batch_of, normaliser, raw_features
from bench.features.key import ARITHMETIC
from bench.features.store import default_root
from bench.files import digest, write_json
from bench.interface import DENSE, EVAL, POOLED
from bench.records.keys import PRECISIONS, SINGLE, dtype
from bench.run import devices
from bench.run.provenance import device_name
from bench.run.session import repeatable

FOLDER = "precision"  # below the feature store
AGREES = 0.999  # least cosine similarity of an image's features to those in single precision
# A lower precision is taken only if it is 1.25 times as fast as single precision, and 1.1 times as fast as
# the next more exact one that would be taken.
_WORTH = 1.25
_CLEARLY = 1.1
# A precision is timed once, and 5 times more unless the first time is 2 times that of single precision.
_ROUNDS, _HOPELESS = 5, 2.0
_ROWS = 8  # images that are encoded on a processor, where they take seconds with a large tower
_WITHOUT_HALVES = {"DEFAULT", "NO AVX", "AVX", "AVX2"}  # on x86 half precision comes with AVX-512 and AMX


@dataclass(frozen=True)
class Measured:
    """The measurement of one precision on a device.

    ``times``: its speed divided by that of single precision. ``cosine``: the least cosine similarity of an
    image's features to those in single precision.
    """

    precision: str
    images_per_second: float
    times: float
    cosine: float


class Kept(msgspec.Struct):
    """A choice on disk: the precision, what it holds for, and the line that says why."""

    precision: Literal["fp32", "fp16", "bf16"]
    made_for: dict[str, str]
    said: str


def auto(spec: BackboneSpec, device: str, store: Path | None = None) -> tuple[str, str]:
    """Return the precision, one of ``PRECISIONS``, and one line that says why.

    ``store``: the feature store beside whose features the choice is kept (None: the default one). If there is
    no kept choice, the model is loaded and timed in every precision, unless the device surely has no half
    precision. Raises BenchError as ``backbones.load`` does, and if the kept choice cannot be read.
    """
    device = devices.pick(device)
    if device == "cpu" and _without_halves():
        return SINGLE, f"precision: {SINGLE} (this processor has no half precision)"
    made_for = {
        "weights": spec.digest,
        "device": device_name(device),
        "torch": str(torch.__version__),
        "arithmetic": str(ARITHMETIC),
    }
    file = (store or default_root()) / FOLDER / f"{digest(made_for)[:16]}.json"
    if (kept := _read(file)) is not None:
        why = f"as measured before on {made_for['device']}; to measure again delete {file}"
        return kept.precision, f"precision: {kept.precision} for {spec.name} on {device}, {why}"
    measured = _measured(spec, device)
    if device != "cpu":
        torch.cuda.empty_cache()  # frees the memory of the towers
    found, line = choose(measured), told(measured, spec.name, device)
    try:
        write_json(file, {"precision": found, "made_for": made_for, "said": line})
    except OSError as error:  # a dry run must also work with a store that cannot be written
        line += f"; not kept for later runs ({error})"
    return found, line


def _read(file: Path) -> Kept | None:
    """Return the kept choice, or None if there is none."""
    try:
        return typed.json(file, Kept)
    except FileNotFoundError:
        return None
    except typed.Odd as why:
        raise BenchError(f"{why}: it holds what --precision auto chose; delete it to measure anew") from why


def _measured(spec: BackboneSpec, device: str) -> list[Measured]:
    """Load the model in every precision and measure each."""
    repeatable()  # before the first product, because libraries read their settings then
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    towers = {name: backbones.load(replace(spec, dtype=dtype(name)), device) for name in PRECISIONS}
    rows = batch_of(towers[SINGLE]) if device != "cpu" else _ROWS
    return measure(towers, probe(spec, rows), _clock(device))


def choose(measured: Sequence[Measured]) -> str:
    """Return the precision to take. Single precision is taken if no lower one agrees and is fast enough."""
    fit = [m for m in measured if m.precision != SINGLE and m.cosine >= AGREES and m.times >= _WORTH]
    best = SINGLE
    speed = 0.0
    for m in sorted(fit, key=lambda m: -m.cosine):
        if m.times >= _CLEARLY * speed:
            best, speed = m.precision, m.times
    return best


def told(measured: Sequence[Measured], backbone: str, device: str) -> str:
    """Return one line with the choice and the measurements of all precisions."""
    found = [
        f"{m.precision} {m.images_per_second:,.0f} images/s"
        + ("" if m.precision == SINGLE else f" (agrees to {m.cosine:.5f})")
        for m in measured
    ]
    lacking = [name for name in PRECISIONS if all(m.precision != name for m in measured)]
    note = f"; not on this device: {', '.join(lacking)}" if lacking else ""
    return (
        f"precision: {choose(measured)} for {backbone} on {device}, measured {', '.join(found)}{note}; "
        f"a lower one must agree to {AGREES} and be {_WORTH} times as fast"
    )


def measure(
    towers: Mapping[str, Tower], pixels_BHWC: np.ndarray, clock: Callable[[], float]
) -> list[Measured]:
    """Measure every precision that the device has. They are timed in turns, single precision first.

    ``towers``: the loaded towers by precision. ``clock`` waits until the device has finished its work and
    returns seconds.
    """
    single = towers[SINGLE]
    taps = [tap for tap in (DENSE, POOLED) if tap == POOLED or single.spec.family != "other"]
    x_BCHW = normaliser(single)(torch.from_numpy(pixels_BHWC).to(single.device))

    def seconds(tower: Tower) -> float:
        began = clock()
        raw_features(tower, x_BCHW, taps)
        return clock() - began

    cosines: dict[str, float] = {}
    want: dict[str, Tensor] = {}
    for name in sorted(towers, key=lambda name: name != SINGLE):
        try:
            found = raw_features(towers[name], x_BCHW, taps)  # not timed, because a first call sets things up
        except BenchError:  # the device lacks this precision
            if name == SINGLE:
                raise
            continue
        want = want or found
        cosines[name] = min(_cosine(found[tap], want[tap]) for tap in taps)
    times: dict[str, list[float]] = {name: [seconds(towers[name])] for name in cosines}
    going = [name for name in times if times[name][0] < _HOPELESS * times[SINGLE][0]]
    for _ in range(_ROUNDS if len(going) > 1 else 0):
        for name in going:
            times[name].append(seconds(towers[name]))
    return [
        Measured(
            name,
            len(pixels_BHWC) / median(taken),
            median(one / other for one, other in zip(times[SINGLE], taken, strict=False)),
            cosines[name],
        )
        for name, taken in times.items()
    ]


def probe(spec: BackboneSpec, rows: int) -> np.ndarray:
    """Return fixed noise images, uint8 (rows, S, S, 3), of several grain sizes, preprocessed like images."""
    draw, side, how = np.random.default_rng(0), spec.image_size * 5 // 4, spec.preprocess
    pixels = []
    for i in range(rows):
        coarse = draw.integers(0, 256, (4 << i % 4, 4 << i % 4, 3), np.uint8)
        image = Image.fromarray(coarse).resize((side, side + side // 8), Image.Resampling.BICUBIC)
        grain = draw.integers(-24, 25, (image.height, image.width, 3))
        noisy = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))
        pixels.append(render(noisy, EVAL, "", spec.image_size, how.interpolation, how.resize_mode))
    return np.stack(pixels)


def _cosine(x_BF: Tensor, y_BF: Tensor) -> float:
    """Return the least cosine similarity of all rows, or minus infinity if one is not finite."""
    least = float(cosine_similarity(x_BF.double().flatten(1), y_BF.double().flatten(1)).min())
    return -math.inf if math.isnan(least) else least


def _without_halves() -> bool:
    """Return whether this processor surely has no half-precision arithmetic."""
    capability = torch.backends.cpu.get_cpu_capability()
    return platform.machine() in ("x86_64", "AMD64") and capability in _WITHOUT_HALVES


def _clock(device: str) -> Callable[[], float]:
    """Return a clock that waits until the device has finished its work."""

    def clock() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    return clock
