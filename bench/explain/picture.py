"""Read images to explain, as the tower sees them: a file or an image of a dataset, with part masks if known.

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
OWN = Opening()  # opens an image as its owner sees it: turned upright, transparent pixels on white
Masks = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Picture:
    """A picture to explain, with what is known of it.

    ``pixels``: uint8 (S, S, 3), the view ``eval``. ``size``: (w, h) of the image itself, in px. ``label``:
    its class, if known.

    ``masks``: boolean (S, S) arrays by part. They share no pixel and cover the image. There are none if the
    parts are not known.
    """

    name: str
    pixels: np.ndarray
    size: tuple[int, int]
    resize: str = "shortest"
    label: int | None = None
    masks: Masks = field(default_factory=dict)

    def seen_at(self, x: float, y: float) -> tuple[float, float]:
        """Return where the image's point (x, y) px lies in ``pixels``.

        Raises BenchError for a point outside.
        """
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
                f"--at {x:g},{y:g} lies outside what the model sees of {self.name}, which is its centre: "
                "choose a point nearer to the centre"
            )
        return at


def of_dataset(dataset: Dataset, path: str, spec: BackboneSpec) -> Picture:
    """Return an image of a dataset by its path in the lists.

    Scenes of the embedded suite come with masks of their parts. Raises BenchError for an unknown path.
    """
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
    """Return any RGB image as a picture, without class and parts."""
    how = spec.preprocess
    pixels = render(image, "eval", "", spec.image_size, how.interpolation, how.resize_mode)
    return Picture(name, pixels, image.size, how.resize_mode)


def find(
    text: str, spec: BackboneSpec, data_root: Path | None = None, opening: Opening | None = OWN
) -> tuple[Picture, Dataset | None]:
    """Return the image that a command line names: a file, ``DATASET:PATH`` or ``DATASET:NUMBER``.

    The number is a position in the test list, from 0. ``opening`` says how a file becomes RGB; images of a
    dataset are opened as the dataset says. Raises BenchError for an image that is not there.
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
    """Return ``count`` positions, evenly spread over a list of ``total``.

    Classes that are listed in order all get their share. Raises BenchError for a count below 1 or above
    ``total``.
    """
    if not 1 <= count <= total:
        raise BenchError(
            f"{count} images are asked for, but there are {total} test images: choose from 1 to {total}"
        )
    return [i * total // count for i in range(count)]


def fit_masks(masks: Masks, spec: BackboneSpec) -> dict[str, np.ndarray]:
    """Turn masks (h, w) of an image's parts into masks (S, S) of its view ``eval``.

    Each pixel goes to the part that fills most of it.
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
    """Return ``cells`` x ``cells`` rectangles as parts, named row.column from 1.

    Raises BenchError for fewer than one cell a side, or more cells than pixels.
    """
    if not 1 <= cells <= side:
        raise BenchError(f"--grid {cells}: choose from 1 to {side} cells a side")
    cell = np.arange(side) * cells // side
    return {
        f"{r + 1}.{c + 1}": (cell == r)[:, None] & (cell == c)[None, :]
        for r in range(cells)
        for c in range(cells)
    }


def file_masks(file: Path, picture: Picture, spec: BackboneSpec) -> dict[str, np.ndarray]:
    """Read parts from a picture as large as the image, in which each part has a colour of its own.

    The parts are named by their colours; black is the background. Raises BenchError for another size or more
    than 64 colours.
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
            f"{file} has {len(colours)} colours, but at most 64 parts are possible: "
            "paint each part in one flat colour and save as PNG"
        )
    names = [BACKGROUND if c == 0 else f"#{c:06x}" for c in colours]
    # A generator makes one mask at a time, because the image may be large.
    masks = _fitted(names, (codes == c for c in colours), spec)
    return {name: mask for name, mask in masks.items() if mask.any()}
