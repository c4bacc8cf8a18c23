"""Read images in IDX files (MNIST and its relatives).

Each part has two files: one array of images and one of labels.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data import layout, limit
from bench.data.catalog import Place
from bench.data.dataset import Dataset, Items, dataset_digest
from bench.data.spec import DatasetSpec
from bench.errors import BenchError
from bench.files import read_bytes, regular
from bench.unpack import GIB, Torn, gz

FILES = {"train": "train", "test": "t10k"}
VAL_EVERY = 6
_HEAD = 4096  # first bytes of a compressed file; they surely contain the whole header


@dataclass(frozen=True)
class IdxSource:
    """An opener of images inside IDX files.

    A path is ``train/00042`` or ``test/00042``: the part, and the position in its file.
    """

    train: Path
    test: Path

    def open(self, path: str) -> Image.Image:
        """Return the grey image as RGB. Raises BenchError if the file is damaged or has no such position."""
        part, _, position = path.partition("/")
        file = {"train": self.train, "test": self.test}.get(part)
        images = read_idx(file) if file is not None else np.empty(0)
        if not position.isdecimal() or int(position) >= len(images):
            raise BenchError(f"no image {path} in {file or self.train.parent}")
        return Image.fromarray(images[int(position)]).convert("RGB")


def idx(spec: DatasetSpec, place: Place) -> Dataset:
    """Read a dataset in IDX files, plain or gzipped.

    Every sixth training image of a class, by position, becomes validation. The class names are those of the
    description. Raises MissingData with the places tried, and BenchError for damaged files.
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
        _check_shapes(files[f"{part} images"], files[f"{part} labels"], place.max_pixels or limit.usual())
    lists = {part: _items(part, files[f"{part} labels"], len(spec.classnames.names)) for part in FILES}
    train, val = _cut(lists["train"])
    names_ = spec.classnames.names
    contents = [
        hashlib.sha256(read_idx(file).data).hexdigest() for key, file in files.items() if "images" in key
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
    """Return the uint8 array in an IDX file.

    Raises BenchError if the file is no IDX file, or if its length is not the one that its header gives.
    """
    shape = shape_of(file)
    start = 4 + 4 * len(shape)
    size = start + math.prod(shape)
    if file.suffix == ".gz":
        try:
            data = gz(file, size)
        except Torn as error:
            raise BenchError(f"{error}, its header says {size:,} bytes; download it again") from error
    else:
        data = read_bytes(file) if file.stat().st_size == size else b""
    if len(data) != size:
        raise BenchError(f"{file}: cut short, or longer than its header says; download it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def shape_of(file: Path) -> tuple[int, ...]:
    """Return the shape in an IDX file's header; the rest of the file is not looked at.

    Raises BenchError if the file is no IDX file of bytes, or if its header announces more than one GiB.
    """
    with regular(file) as handle:
        packed = handle.read(_HEAD)
    try:
        head = zlib.decompressobj(wbits=31).decompress(packed, 16) if file.suffix == ".gz" else packed[:16]
    except zlib.error as error:
        raise BenchError(f"{file}: damaged ({error}); download it again") from error
    axes = head[3] if head[:3] == b"\0\0\x08" and len(head) > 3 else 0
    if not 1 <= axes <= 3 or len(head) < 4 + 4 * axes:
        raise BenchError(f"{file}: not an IDX file of bytes; download it again")
    shape = tuple(int(n) for n in np.frombuffer(head, ">u4", count=axes, offset=4))
    if math.prod(shape) > GIB:
        raise BenchError(
            f"{file}: its header announces {' x '.join(map(str, shape))} bytes, but at most 1 GiB is read; "
            "download it again"
        )
    return shape


def _check_shapes(images: Path, labels: Path, most: int) -> None:
    """Raise BenchError if images have more than ``most`` pixels, or if there is not one label for each.

    Only the headers of the two files are read.
    """
    of_images, of_labels = shape_of(images), shape_of(labels)
    if len(of_images) != 3 or 0 in of_images[1:]:
        raise BenchError(f"{images}: not an IDX file of images; download it again")
    if math.prod(of_images[1:]) > most:
        raise BenchError(
            f"{images}: its images have {limit.in_words(math.prod(of_images[1:]))} pixels, --max-pixels "
            f"allows {limit.in_words(most)}: give `bench run` and `bench data verify` a larger one"
        )
    if of_labels != of_images[:1]:
        raise BenchError(
            f"{labels}: labels of shape {of_labels} for {of_images[0]} images in {images.name}: the "
            "two do not belong together; download both again"
        )


def _items(part: str, file: Path, classes: int) -> Items:
    """Return the images of a part as paths, with their labels."""
    labels = tuple(int(label) for label in read_idx(file))
    if labels and max(labels) >= classes:
        raise BenchError(
            f"{file}: label {max(labels)}, but the description names {classes} classes; download it again, "
            "or name all classes"
        )
    return Items(tuple(f"{part}/{position:05d}" for position in range(len(labels))), labels)


def _cut(pool: Items) -> tuple[Items, Items]:
    """Cut the training images into train and val: every sixth image of a class becomes validation."""
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
