"""Images a second: encoding by precision, the tower alone by layout, and from JPEG files to the store.

Legend: B batch, C colours, H W pixels.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from bench.clip.backbone import Backbone
from bench.data.imagefile import FolderSource
from bench.features.decode import default_workers
from bench.features.encode import Wanted, encode
from bench.features.store import FeatureStore
from bench.interface import DENSE, EVAL, FLIP, POOLED
from tests.benchmarks import ratios_device
from tests.benchmarks.gpu import seams
from tests.benchmarks.gpu.place import Place
from tests.benchmarks.ratios_encode import photographs

Found = Iterator[tuple[str, Any]]
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


def images(place: Place) -> Found:
    """Encoding of pixels that are decoded already, and the tower alone on pixels in a layout."""
    for family in ("rn", "vit"):
        own = place.tower(family)
        batch, side, taps = place.pick(256, 4), own.image_size, [DENSE, POOLED]
        g = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, generator=g).numpy()
        x_BCHW = torch.randn(batch, 3, side, side, generator=g).to(place.device)
        for name, dtype in {"fp32": torch.float32, **HALVES}.items():
            tower = own if dtype == torch.float32 else Backbone(own.spec, own.model, place.device, dtype)
            many = place.pick(20, 2)
            encode = partial(seams.encoded, tower, pixels, taps, many)
            found = {"as encoding does": many * batch / place.median(encode, 3, 1)}
            for layout, form in LAYOUTS.items():
                x = x_BCHW.contiguous(memory_format=form)
                with seams.laid_out(form):
                    laid = Backbone(own.spec, deepcopy(own.model), place.device, dtype)
                    laid.model.visual.to(memory_format=form)
                    found[f"alone, {layout}"] = _speed(place, batch, partial(_alone, laid, x, taps))
            yield f"{own.spec.name} {name}", found


def _alone(tower: Backbone, x_BCHW: torch.Tensor, taps: list[str]) -> Any:
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        return tower.encode_images(x_BCHW, taps)


def _speed(place: Place, batch: int, fn: Callable[[], Any]) -> float:
    return batch / place.median(fn, 5, 2)


def files(place: Place) -> Found:
    """As ``bench run`` encodes: decoding, tower and store together."""
    many = place.pick(4000, 6)
    precisions = place.pick({"fp32": torch.float32, **HALVES}, {"fp32": torch.float32})
    own = place.tower("rn")
    yield "cores", ratios_device.cores()
    with photographs(place.pick(60, 2)) as (root, few):
        paths = [f"{i}-{few[i % len(few)]}" for i in range(many)]
        for i, path in enumerate(paths):
            os.link(root / few[i % len(few)], root / path)
        data: Any = SimpleNamespace(stored_as="d" * 64, source=FolderSource(root))
        kinds = (("pooled", (EVAL,), [POOLED]), ("dense, image and mirrored", (EVAL, FLIP), [DENSE, POOLED]))
        for precision, dtype in precisions.items():
            tower = own if dtype == torch.float32 else Backbone(own.spec, own.model, place.device, dtype)
            tower.encode_images(torch.zeros(2, 3, own.image_size, own.image_size), [DENSE, POOLED])
            for name, views, taps in kinds:
                with tempfile.TemporaryDirectory() as folder:
                    store = FeatureStore(Path(folder))
                    processes, threads = default_workers(many * len(views), place.device.type)
                    report = encode(tower, data, [Wanted(paths, {v: taps for v in views})], store)
                yield (
                    f"{precision}, {name}",
                    {
                        "images": report.images,
                        "passes": report.encodes,
                        "passes_per_s": report.images_per_second,
                        **({"processes": processes} if processes else {"threads": threads}),
                    },
                )
