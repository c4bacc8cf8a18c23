"""Read the datasets of the embedded suite: ``scenes`` (composed images) and ``digits`` (scanned ones).

This module imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.catalog import Place
from bench.data.catalog import spec as spec_of
from bench.data.dataset import Dataset, Items, dataset_digest
from bench.data.spec import DatasetSpec
from bench.errors import BenchError, MissingData
from bench.names import nearest
from bench.pocket import plans
from bench.pocket.glyphs import glyph_id
from bench.pocket.scenes import SceneSource, folder
from bench.unpack import gz

SPLITS = ("train", "val", "test")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SCANS_BYTES = 1 << 20  # a bound on the bytes of scikit-learn's table, which has a quarter of that
DIGIT_SIDE = 128  # px, to which a scan of 8 x 8 is enlarged


def read_scenes(spec: DatasetSpec, place: Place) -> Dataset:
    """Read a dataset of composed scenes. Nothing is rendered here, and ``place`` is not used.

    Options: ``artists`` are drawn from in turn. ``glyphs`` maps a class name to a code point (one drawing, in
    every split) or to several (divided between the splits). ``style`` is the style of the scenes. ``classes``
    is a subset of the classes. A dataset with a ``source`` takes its glyphs from there. Raises BenchError if
    the description and its counts do not fit together.
    """
    options = spec.option_values(artists=["openmoji"], glyphs={}, style="common", classes=[])
    if not options["artists"]:
        raise BenchError(f"{spec.name}: [options] artists must name at least one artist")
    glyphs = dict(options["glyphs"] or (spec_of(spec.source).extra.get("glyphs", {}) if spec.source else {}))
    subset = options["classes"]
    for name in subset:
        if name not in glyphs:
            raise BenchError(f"{spec.name}: class '{name}' has no glyph{nearest(name, glyphs)}")
    rows = tuple(row for row, name in enumerate(glyphs) if not subset or name in subset)
    names = tuple(name for name in glyphs if not subset or name in subset)
    if spec.counts.get("classes") != len(names) or len({folder(name) for name in names}) != len(names):
        raise BenchError(f"{spec.name}: [counts] classes must be {len(names)}, and the names must differ")
    splits = {split: spec.counts[split] // len(names) for split in SPLITS if spec.counts.get(split)}
    shared = {name: _share(spec.name, glyphs[name]) for name in names}
    drawings = {
        split: tuple(
            tuple(glyph_id(code, artist) for code in shared[name][split] for artist in options["artists"])
            for name in names
        )
        for split in splits
    }
    source = SceneSource(spec.name, names, drawings, options["style"])
    items = {split: _items(split, names, splits.get(split, 0)) for split in SPLITS}
    shown = plans.digest(source, splits)
    return Dataset(
        spec.name,
        spec,
        names,
        items["train"],
        items["val"],
        items["test"],
        dataset_digest(names, items["train"], items["val"], items["test"], shown, repr(rows)),
        source,
        classes=rows if subset else None,
    )


def _share(dataset: str, codes: str | list[str]) -> dict[str, list[str]]:
    """Return the code points that each split shows.

    A single one is in all splits. Several are divided 50/20/30, and none is in two splits.
    """
    if isinstance(codes, str):
        return {split: [codes] for split in SPLITS}
    if len(codes) < 3 or len(set(codes)) != len(codes):
        raise BenchError(f"{dataset}: a class of several glyphs needs at least 3 different ones, not {codes}")
    mixed = sorted(codes, key=lambda code: hashlib.sha256(f"{dataset}/{code}".encode()).digest())
    val, test = max(1, len(mixed) // 5), max(1, 3 * len(mixed) // 10)
    return {"test": mixed[:test], "val": mixed[test : test + val], "train": mixed[test + val :]}


def _items(split: str, names: tuple[str, ...], each: int) -> Items:
    """List ``each`` images per class, with the classes in order."""
    paths = tuple(f"{split}/{folder(name)}/{index:04d}.png" for name in names for index in range(each))
    return Items(paths, tuple(label for label in range(len(names)) for _ in range(each)))


@dataclass(frozen=True)
class DigitSource:
    """An opener (ImageSource) of scikit-learn's digit scans by path, such as ``train/three/0013.png``."""

    rows: Mapping[str, int]

    def open(self, path: str) -> Image.Image:
        """Return dark ink on white paper, RGB, (DIGIT_SIDE, DIGIT_SIDE).

        Raises BenchError for a path without a scan.
        """
        if path not in self.rows:
            raise BenchError(f"digits has no image '{path}'; paths look like train/zero/0000.png")
        ink = _scans()[0][self.rows[path]].reshape(8, 8).astype(np.int32)
        paper = Image.fromarray((255 - ink * 255 // 16).astype(np.uint8))
        return paper.resize((DIGIT_SIDE, DIGIT_SIDE), Image.Resampling.BICUBIC).convert("RGB")


def read_digits(spec: DatasetSpec, place: Place) -> Dataset:
    """Read scikit-learn's 1,797 scans in a fixed split.

    The counts give train and val per class, and the rest is test.
    """
    spec.option_values()
    pixels, labels = _scans()
    order = sorted(range(len(labels)), key=lambda row: hashlib.sha256(b"digits %d" % row).digest())
    each = {split: spec.counts.get(split, 0) // len(DIGITS) for split in ("train", "val")}
    rows: dict[str, int] = {}
    parts: dict[str, list[tuple[str, int]]] = {split: [] for split in SPLITS}
    for label, name in enumerate(DIGITS):
        mine = [row for row in order if labels[row] == label]
        ends = (0, each["train"], each["train"] + each["val"], len(mine))
        for split, start, end in zip(SPLITS, ends, ends[1:], strict=False):
            for row in mine[start:end]:
                path = f"{split}/{name}/{row:04d}.png"
                rows[path] = row
                parts[split].append((path, label))
    items = {s: Items(tuple(p for p, _ in part), tuple(y for _, y in part)) for s, part in parts.items()}
    content = hashlib.sha256(pixels.tobytes()).hexdigest()
    return Dataset(
        spec.name,
        spec,
        DIGITS,
        items["train"],
        items["val"],
        items["test"],
        dataset_digest(DIGITS, items["train"], items["val"], items["test"], content),
        DigitSource(rows),
    )


@lru_cache
def _scans() -> tuple[np.ndarray, tuple[int, ...]]:
    """Read pixels (1797, 64) uint8 in 0..16 and labels from scikit-learn's file.

    scikit-learn is not imported.
    """
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise MissingData("the digits come with scikit-learn: `pip install scikit-learn`")
    file = Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    if not file.is_file():
        raise MissingData(f"scikit-learn has no {file.name}: install scikit-learn again")
    text = gz(file, _SCANS_BYTES).decode("ascii")
    table = np.array([line.split(",") for line in text.splitlines()], np.float64).astype(np.uint8)
    return np.ascontiguousarray(table[:, :-1]), tuple(table[:, -1].tolist())
