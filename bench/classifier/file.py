"""Read and write a classifier: a folder with ``classifier.json`` and ``classifier.safetensors``.

The JSON file says what the classifier is and holds a checksum of itself and one of the tensors, so that a
damaged or exchanged file is refused. The checksums find damage; they are no signature. This module imports
no torch before tensors are read or written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct

from bench import typed
from bench.data.opening import Opening
from bench.errors import BenchError
from bench.files import read_bytes, write_together
from bench.names import shown
from bench.records.codec import NO_JSON
from bench.records.keys import Count, Hex, Shots
from bench.records.types import Share, Temperature

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = 1  # raise it when files of the old form cannot be read any more
JSON, TENSORS = "classifier.json", "classifier.safetensors"
_PARAMS, _CONSTS = "params/", "consts/"


class _Base(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The settings that all parts of the JSON file share."""


class Preprocessing(_Base, frozen=True, kw_only=True):
    """The way from an RGB image to the input of the image tower (protocol 1.2).

    ``size``: the side of the input, px. ``mean``, ``std``: of red, green and blue, for values from 0 to 1.
    ``interpolation``: ``bicubic`` or ``bilinear``. ``resize_mode``: ``shortest`` (then a centre crop) or
    ``squash``. ``name``: all of this as the program names it in keys; another name means other pixels.
    """

    size: Annotated[int, Meta(ge=1)]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    resize_mode: str
    name: str


class Images(_Base, frozen=True, kw_only=True):
    """How the values of an image file become RGB (``bench.data.opening.Opening``).

    ``rule``: the rule as the program names it in keys, with its version.
    """

    rule: str
    background: tuple[int, int, int]
    white: float | None = None


class Estimate(_Base, frozen=True, kw_only=True):
    """The accuracy to expect on new images, as shares: its interval, and the labelled images behind it."""

    accuracy: Share
    low: Share
    high: Share
    images: Count


class Made(_Base, frozen=True, kw_only=True):
    """Where a classifier comes from. Nothing of it is needed to use the classifier.

    ``written``: ISO time (UTC). ``libraries``: versions, the program's among them. ``dataset``: its name, and
    ``dataset_digest`` what identifies its images. ``shots``, ``seed``, ``prompts``, ``protocol``, ``preset``:
    of the cell. ``images``: labelled images that the fit saw, and ``chosen_on`` those that chose its values.
    ``fit``: the key of the fit.
    """

    written: str
    libraries: dict[str, str]
    dataset: str
    dataset_digest: str
    shots: Shots
    seed: Count
    prompts: str
    protocol: str
    preset: str
    images: Count
    chosen_on: Count
    fit: Hex


class About(_Base, frozen=True, kw_only=True):
    """All that is said of a classifier beside its tensors.

    - ``classnames``: K names in the order of the logits, as the dataset writes them.
    - ``method``, ``title``, ``cite``, ``version``: of the method. ``source``: the digest of its source if it
      does not come with the program, else empty.
    - ``settings``: those of the fit. ``values``: what ``Method.logits`` gets.
    - ``backbone``: the name of the CLIP; ``weights``: the digest of its weights and architecture; ``dtype``:
      torch's name of the precision in which the image tower computes. ``taps``: what the method reads of it.
    - ``preprocessing``; ``opening``: how files are opened, None: as published (protocol 1.2).
    - ``temperature``: what logits are divided by before probabilities are read; None if none was fitted.
    - ``estimate``: the accuracy to expect, if it is known.
    - ``thresholds``: for errors such as "0.05" the least probability of an answer whose error is at most that
      large; None: no answer is sure enough. None for the whole if they are not known.
    - ``constants``: the tree of the method's constants (``bench.classifier.parts``).
    - ``made``: where it comes from.
    """

    classnames: Annotated[tuple[str, ...], Meta(min_length=1)]
    method: str
    title: str
    cite: str = ""
    version: int
    source: str = ""
    settings: dict[str, Any]
    values: dict[str, Any]
    backbone: str
    weights: Hex
    dtype: str
    taps: Annotated[tuple[str, ...], Meta(min_length=1)]
    preprocessing: Preprocessing
    opening: Images | None = None
    temperature: Temperature | None = None
    estimate: Estimate | None = None
    thresholds: dict[str, Share | None] | None = None
    constants: Any
    made: Made


class _File(_Base, frozen=True, kw_only=True):
    """The content of ``classifier.json``. ``tensors``: SHA-256 of the other file; ``checksum``: of this."""

    schema: int
    about: About
    tensors: Hex
    checksum: str = ""


class _Head(Struct):
    schema: int = 0


@dataclass(frozen=True)
class Classifier:
    """A fitted method with everything that it needs, except the weights of its CLIP.

    ``about``: what it is. ``params``: the fitted tensors by name. ``tensors``: those of its constants, to
    which ``about.constants`` refers by number. All are on the processor.
    """

    about: About
    params: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]


def opening_of(about: About) -> Opening | None:
    """Return how the classifier's image files are opened. Raises BenchError for a rule of another version."""
    if about.opening is None:
        return None
    rule = Opening(about.opening.background, about.opening.white)
    if str(rule) != about.opening.rule:
        raise BenchError(
            f"this classifier opens images by the rule {shown(about.opening.rule)}, and this program by "
            f"{rule}: {_same_program(about)}"
        )
    return rule


def _same_program(about: About) -> str:
    version = about.made.libraries.get("fewshot-clip-bench", "another version")
    return f"use fewshot-clip-bench {shown(version)}, which made it, or make the classifier again"


def save(classifier: Classifier, folder: Path, force: bool = False) -> None:
    """Write a classifier as a folder; each file is written whole or not at all.

    A classifier of the same dataset is replaced. Raises BenchError if something else is there and ``force``
    is not given, and if a value cannot be written; OSError if the system refuses.
    """
    from safetensors.torch import save as tensors_of

    require_place(folder, classifier.about.made.dataset_digest, force)
    named = {f"{_PARAMS}{name}": x for name, x in classifier.params.items()}
    named |= {f"{_CONSTS}{name}": x for name, x in classifier.tensors.items()}
    # safetensors refuses tensors that share memory
    data = tensors_of({name: x.detach().cpu().clone().contiguous() for name, x in named.items()})
    try:
        file = _File(schema=SCHEMA, about=classifier.about, tensors=hashlib.sha256(data).hexdigest())
        json.dumps(msgspec.to_builtins(file), allow_nan=False)  # msgspec would write NaN and infinity as null
        file = msgspec.json.decode(msgspec.json.encode(file, order="sorted"), type=_File)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise BenchError(f"this classifier cannot be saved: {error}") from error
    text = msgspec.json.encode(msgspec.structs.replace(file, checksum=_checksum(file)), order="sorted")
    # The JSON file comes last: where it is, the tensors are.
    write_together({folder / TENSORS: data, folder / JSON: msgspec.json.format(text, indent=1) + b"\n"})


def require_place(folder: Path, dataset_digest: str, force: bool = False) -> None:
    """Raise BenchError if a classifier of this dataset may not be written to ``folder`` (see ``save``)."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise BenchError(f"{folder}: is no folder; a classifier is a folder, so name another place")
    if force or not any(folder.iterdir()):
        return
    if not (folder / JSON).is_file():
        raise BenchError(
            f"{folder}: holds other files and no classifier; name a new folder, or write beside them with "
            "--force"
        )
    try:
        there = _told(folder).about.made
    except BenchError as error:
        raise BenchError(f"{error}; replace it with --force") from error
    if there.dataset_digest != dataset_digest:
        raise BenchError(
            f"{folder}: holds a classifier of other data ({shown(there.dataset)}); name another folder, or "
            "replace it with --force"
        )


def read(folder: Path) -> Classifier:
    """Return the classifier in a folder. Neither its weights nor its method need to be here.

    Raises BenchError for a folder without one, and for files that are damaged, do not belong together, or
    come from a newer program.
    """
    file = _told(folder)
    data = _bytes(folder, TENSORS)
    if hashlib.sha256(data).hexdigest() != file.tensors:
        raise BenchError(
            f"{folder / TENSORS}: not the tensors that {JSON} speaks of (their checksum differs); copy the "
            "whole folder again, or make the classifier again"
        )
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        named = load(data)
    except SafetensorError as error:
        raise BenchError(f"{folder / TENSORS}: {error}; make the classifier again") from error
    params, tensors = (
        {name.removeprefix(part): x for name, x in named.items() if name.startswith(part)}
        for part in (_PARAMS, _CONSTS)
    )
    return Classifier(file.about, params, tensors)


def told(folder: Path) -> About:
    """Return what a classifier says of itself, without reading its tensors. Raises BenchError as ``read``."""
    return _told(folder).about


def _told(folder: Path) -> _File:
    where, data = folder / JSON, _bytes(folder, JSON)
    try:
        schema = msgspec.json.decode(data, type=_Head).schema
    except NO_JSON as error:
        raise BenchError(
            f"{where}: not readable ({typed.said(error)}); copy the whole folder again, or make the "
            "classifier again"
        ) from error
    if schema != SCHEMA:
        what = "install a newer fewshot-clip-bench" if schema > SCHEMA else "make the classifier again"
        raise BenchError(f"{where}: of schema {schema}, and this program reads schema {SCHEMA}: {what}")
    file = typed.decoded(data, _File, str(where))
    if file.checksum != _checksum(file):
        raise BenchError(
            f"{where}: not as it was written (its checksum differs); copy the whole folder again, or make "
            "the classifier again"
        )
    return file


def _bytes(folder: Path, name: str) -> bytes:
    """Return the content of a file of a classifier. Raises BenchError if it is not there."""
    try:
        return read_bytes(folder / name)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not folder.is_dir():
            what = "is no classifier, which is a folder" if folder.exists() else "no such classifier"
        else:
            what = f"no classifier in it: {name} is missing"
        raise BenchError(f"{folder}: {what}; `bench keep` makes one of a recorded cell") from error


def _checksum(file: _File) -> str:
    bare = msgspec.structs.replace(file, checksum="")
    return hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()
