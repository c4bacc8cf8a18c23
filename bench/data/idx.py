"""Images in IDX files (MNIST and its relatives): one array of images and one of labels per part."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data import layout
from bench.data.catalog import Place
from bench.data.dataset import Dataset, Items, dataset_digest
from bench.data.spec import DatasetSpec
from bench.errors import BenchError

FILES = {"train": "train", "test": "t10k"}
VAL_EVERY = 6


@dataclass(frozen=True)
class IdxSource:
    """Images inside IDX files; a path is ``train/00042`` or ``test/00042``: part and position in the file."""

    train: Path
    test: Path

    def open(self, path: str) -> Image.Image:
        """The grey image as RGB. Raises BenchError when the file is damaged or the position is not in it."""
        part, _, position = path.partition("/")
        file = {"train": self.train, "test": self.test}.get(part)
        images = read_idx(file) if file is not None else np.empty(0)
        if not position.isdecimal() or int(position) >= len(images):
            raise BenchError(f"no image {path} in {file or self.train.parent}")
        return Image.fromarray(images[int(position)]).convert("RGB")


def idx(spec: DatasetSpec, place: Place) -> Dataset:
    """A dataset in IDX files, plain or gzipped.

    Every sixth training image of a class, by position, is validation.

    The class names are the description's. Raises MissingData with the places tried, BenchError for damaged
    files.
    """
    spec.option_values()
    folders = layout.image_candidates(spec, place)
    files: dict[str, Path] = {}
    for part, stem in FILES.items():
        for kind in ("images-idx3", "labels-idx1"):
            names = [f"{stem}-{kind}-ubyte{suffix}" for suffix in ("", ".gz")]
            file = layout.first_existing(folder / name for folder in folders for name in names)
            if file is None:
                raise layout.missing(spec, names[1], folders, spec.get)
            files[f"{part} {kind[:6]}"] = file
    lists = {part: _items(part, files[f"{part} labels"], len(spec.classnames.names)) for part in FILES}
    train, val = _cut(lists["train"])
    names_ = spec.classnames.names
    contents = [
        hashlib.sha256(read_idx(file).tobytes()).hexdigest() for key, file in files.items() if "images" in key
    ]
    return Dataset(
        name=spec.name,
        spec=spec,
        classnames=names_,
        train=train,
        val=val,
        test=lists["test"],
        digest=dataset_digest(names_, train, val, lists["test"], *contents),
        source=IdxSource(files["train images"], files["test images"]),
        notes=("validation is every sixth training image of a class",),
        own_split=True,
        indices=layout.index_folder(spec, place),
    )


@lru_cache(maxsize=4)
def read_idx(file: Path) -> np.ndarray:
    """The uint8 array in an IDX file. Raises BenchError when it is not one or is cut short."""
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError) as error:
        raise BenchError(f"{file}: damaged file ({error}); download it again") from error
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise BenchError(f"{file}: not an IDX file of bytes")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", count=data[3], offset=4)) if data[3] <= 3 else ()
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if body.size != int(np.prod(shape)):
        raise BenchError(f"{file}: cut short; download it again")
    return body.reshape(shape)


def _items(part: str, file: Path, classes: int) -> Items:
    labels = tuple(int(label) for label in read_idx(file))
    if labels and max(labels) >= classes:
        raise BenchError(f"{file}: label {max(labels)}, but the description names {classes} classes")
    return Items(tuple(f"{part}/{position:05d}" for position in range(len(labels))), labels)


def _cut(pool: Items) -> tuple[Items, Items]:
    seen: dict[int, int] = {}
    held_out: set[int] = set()
    for position, label in enumerate(pool.labels):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] % VAL_EVERY == 0:
            held_out.add(position)
    positions = range(len(pool))
    return pool.take(p for p in positions if p not in held_out), pool.take(
        p for p in positions if p in held_out
    )
