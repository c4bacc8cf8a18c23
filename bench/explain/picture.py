"""Images to explain, as the tower sees them: a file, or one of a dataset, with part masks where known.

This module imports no torch.

Legend: S side of the tower's input in px, h w the image's own height and width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from bench.clip.backbone import BackboneSpec
from bench.data import catalog
from bench.data.dataset import Dataset
from bench.data.imagefile import open_rgb
from bench.data.opening import Opening
from bench.data.views import render
from bench.errors import BenchError
from bench.pocket.scenes import SceneSource, render_masks

BACKGROUND = "background"
OWN = Opening()  # as its owner sees it: turned, and transparent pixels on white
Masks = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Picture:
    """A picture to explain, with what is known of it.

    ``pixels``: uint8 (S, S, 3), the view ``eval``. ``size``: (w, h) of the image itself. ``label``: its
    class, if known.

    ``masks``: boolean (S, S) arrays by part that share no pixel and cover the image; empty where no parts are
    known.
    """

    name: str
    pixels: np.ndarray
    size: tuple[int, int]
    resize: str = "shortest"
    label: int | None = None
    masks: Masks = field(default_factory=dict)

    def seen_at(self, x: float, y: float) -> tuple[float, float]:
        """Where the image's point (x, y) px lies in ``pixels``. BenchError for a point outside the view."""
        (w, h), S = self.size, len(self.pixels)
        if self.resize == "squash":
            at = (x * S / w, y * S / h)
        else:
            scale = S / min(w, h)
            at = (x * scale - (w * scale - S) / 2, y * scale - (h * scale - S) / 2)
        if not (0 <= x < w and 0 <= y < h):
            raise BenchError(f"--at {x:g},{y:g} lies outside {self.name}, which is {w} x {h} px")
        if not all(0 <= v < S for v in at):
            raise BenchError(
                f"--at {x:g},{y:g} lies outside what the model sees of {self.name}, its centre: "
                "go nearer to it"
            )
        return at


def of_dataset(dataset: Dataset, path: str, spec: BackboneSpec) -> Picture:
    """A dataset's image by its path in the lists. The embedded suite's scenes bring masks of their parts."""
    labels = {
        p: y
        for part in (dataset.test, dataset.val, dataset.train)
        for p, y in zip(part.paths, part.labels, strict=True)
    }
    if path not in labels:
        raise BenchError(
            f"{dataset.name} has no image '{path}'; its test images start with {dataset.test.paths[0]}"
        )
    picture = of_image(dataset.source.open(path), f"{dataset.name}:{path}", spec)
    source = dataset.source
    masks = fit_masks(render_masks(source.scene(path)), spec) if isinstance(source, SceneSource) else {}
    return replace(picture, label=labels[path], masks=masks)


def of_image(image: Image.Image, name: str, spec: BackboneSpec) -> Picture:
    """Any RGB image, without class and parts."""
    how = spec.preprocess
    pixels = render(image, "eval", "", spec.image_size, how.interpolation, how.resize_mode)
    return Picture(name, pixels, image.size, how.resize_mode)


def find(
    text: str, spec: BackboneSpec, data_root: Path | None = None, opening: Opening | None = OWN
) -> tuple[Picture, Dataset | None]:
    """The image a command line names: a file, ``DATASET:PATH`` or ``DATASET:NUMBER`` (place in test list).

    ``opening``: how a file becomes RGB; images of a dataset are opened as it says. Raises BenchError for one
    that is not there.
    """
    if Path(text).is_file():
        return of_image(open_rgb(Path(text), opening), Path(text).name, spec), None
    name, colon, item = text.rpartition(":")
    if not colon:
        raise BenchError(
            f"no image file '{text}'; an image of a dataset is named DATASET:NUMBER or DATASET:PATH"
        )
    dataset = catalog.find(name, data_root)
    if item.isdecimal():
        if int(item) >= len(dataset.test):
            raise BenchError(f"{text}: {dataset.name} has {len(dataset.test)} test images, counted from 0")
        item = dataset.test.paths[int(item)]
    return of_dataset(dataset, item, spec), dataset


def spread(total: int, count: int) -> list[int]:
    """``count`` positions evenly over a list of ``total``: classes listed in order all get their share."""
    if not 1 <= count <= total:
        raise BenchError(
            f"{count} images asked for, {total} test images are there: choose a number from 1 to {total}"
        )
    return [i * total // count for i in range(count)]


def fit_masks(masks: Masks, spec: BackboneSpec) -> dict[str, np.ndarray]:
    """Masks (h, w) of an image's parts as parts of its view ``eval``, (S, S).

    Each pixel goes to the part that fills it most.
    """
    return _fitted(list(masks), masks.values(), spec)


def _fitted(names: Sequence[str], masks: Iterable[np.ndarray], spec: BackboneSpec) -> dict[str, np.ndarray]:
    how = spec.preprocess
    layers = [
        render(
            Image.fromarray(m.astype(np.uint8) * 255),
            "eval",
            "",
            spec.image_size,
            how.interpolation,
            how.resize_mode,
        )
        for m in masks
    ]
    owner = np.argmax([layer[:, :, 0] for layer in layers], axis=0)
    return {name: owner == i for i, name in enumerate(names)}


def grid_masks(side: int, cells: int) -> dict[str, np.ndarray]:
    """``cells`` x ``cells`` rectangles as parts, named row.column from 1."""
    if not 1 <= cells <= side:
        raise BenchError(f"--grid {cells}: choose from 1 to {side} cells a side")
    cell = np.arange(side) * cells // side
    return {
        f"{r + 1}.{c + 1}": (cell == r)[:, None] & (cell == c)[None, :]
        for r in range(cells)
        for c in range(cells)
    }


def file_masks(file: Path, picture: Picture, spec: BackboneSpec) -> dict[str, np.ndarray]:
    """Parts from a picture as large as the image, each part in a colour of its own.

    The parts are named by colour; black is background.

    Raises BenchError for another size or more than 64 colours.
    """
    painted = np.asarray(open_rgb(file))
    if painted.shape[1::-1] != picture.size:
        w, h = picture.size
        is_w, is_h = painted.shape[1::-1]
        raise BenchError(f"{file}: masks must be as large as the image, {w} x {h} px, not {is_w} x {is_h}")
    codes = painted[:, :, 0].astype(np.int32)
    for channel in (1, 2):
        codes = (codes << 8) | painted[:, :, channel]
    colours = np.unique(codes)
    if len(colours) > 64:
        raise BenchError(
            f"{file}: {len(colours)} colours, at most 64 parts: "
            "paint each part in one flat colour and save as PNG"
        )
    names = [BACKGROUND if c == 0 else f"#{c:06x}" for c in colours]
    masks = _fitted(names, (codes == c for c in colours), spec)  # one at a time: the image may be large
    return {name: mask for name, mask in masks.items() if mask.any()}
