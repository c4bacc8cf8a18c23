"""What a run writes down, as types: a fit, an evaluation of it, a failure (docs/architecture.md, "Records").

msgspec checks types, ranges and unknown fields where records are read (bench/records/store.py). A field that
has its default is not written, so a field that is added later leaves the checksums of old records alone.
Fields marked "reserved" are filled by what is built on them later.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from bench.records.keys import Count, EvaluationKey, FitKey, Hex, Shots

Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=1e12)]
Stage = Literal["read", "encode", "prepare", "fit", "evaluate"]
Covers = Literal["lists", "contents"]  # what a dataset's digest is taken of


class Base(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What all types here share."""


class Cell(Base, frozen=True, kw_only=True):
    """The coordinates of a fit as tables name them. ``classes``: the dataset's, all or a part (reserved)."""

    method: str
    dataset: str
    shots: Shots
    seed: Count
    backbone: str
    prompts: str
    protocol: str
    preset: str
    classes: str = "all"


class Provenance(Base, frozen=True, kw_only=True):
    """Where a number came from: what may move it by rounding, and when it was written.

    ``flags``: switches of the run. ``source``: digest of the code of the method's file
    (``sources.code_digest``). ``written``: ISO time, UTC, for people; ``order`` decides which of two records
    is the later one: it is above that of every record that was in the results folder ``folder`` before,
    whatever the clock says.
    """

    commit: str | None = None
    dirty: bool | None = None
    libraries: dict[str, str] = {}
    device: str = ""
    device_name: str = ""
    threads: Count = 0
    flags: dict[str, bool] = {}
    source: str = ""
    written: str = ""
    order: Count = 0
    folder: str = ""


class Budget(Base, frozen=True, kw_only=True):
    """What a fit cost.

    It counts configurations, checks and search points scored on validation, optimiser steps and validation
    images. ``waves``, ``halvings``: where memory split the grid. ``graphs``, ``eager``: recorded steps, and
    why others were not. ``joined``: keys of all fits that trained together; ``apart``: why this one did not.
    """

    configurations: Count = 0
    checks: Count = 0
    search_points: Count = 0
    steps: Count = 0
    val_images: Count = 0
    waves: Count = 0
    halvings: Count = 0
    graphs: Count = 0
    eager: list[str] = []
    joined: list[str] = []
    apart: str = ""


class Curve(Base, frozen=True, kw_only=True):
    """Validation accuracy of one grid point: (step, share right) at every check."""

    point: dict[str, Any]
    checks: list[tuple[Count, Share]]


class PerClass(Base, frozen=True, kw_only=True):
    """Counts by class (reserved): test images, those that were right, and predictions of the class."""

    images: list[Count]
    right: list[Count]
    predicted: list[Count]


class FitRecord(Base, frozen=True, kw_only=True, tag_field="kind", tag="fit"):
    """A fit that succeeded.

    ``key`` is the digest of ``parts``. ``reads``: the methods whose fits it builds on, by role as in
    ``parts.after``. ``changed``: settings that the user set away from the method's own. ``values``: what was
    chosen. ``step``: the chosen one. ``seconds`` by phase; ``first``: its process had made no other fit with
    the method, so that imports and compilation are in them. ``peak_memory``: bytes; on a GPU the most
    that PyTorch held there in tensors during the fit (during all of those that joined it), on a processor the
    largest resident memory of the process since it began, other fits included. ``state``: checksum of
    the fitted tensors, empty where there are none; ``temperature`` (reserved): what calibration divides
    logits by. ``dataset_identity``: what tells datasets of one name apart (``DatasetSpec.identity``), and
    ``dataset_place``: the end of its path, for people; ``dataset_covers``: what the digest in
    ``parts.dataset`` was taken of.
    """

    schema: Literal[2]
    key: Hex
    cell: Cell
    parts: FitKey
    title: str = ""
    reads: dict[str, str] = {}
    changed: dict[str, Any] = {}
    values: dict[str, Any] = {}
    step: Count | None = None
    val_accuracy: Share | None = None
    curve: list[Curve] = []
    budget: Budget = Budget()
    seconds: dict[str, Seconds] = {}
    first: bool = False
    peak_memory: Count = 0
    notes: list[str] = []
    prompts_use_labels: bool | None = None
    prompts_also: list[str] | None = None
    has_state: bool = False
    state: str = ""
    temperature: float | None = None
    dataset_identity: str = ""
    dataset_place: str = ""
    dataset_covers: Covers = "lists"
    provenance: Provenance = Provenance()
    checksum: str = ""


class EvaluationRecord(Base, frozen=True, kw_only=True, tag_field="kind", tag="evaluation"):
    """An evaluation of a fit on a test set.

    ``target``: the test set's name. ``values``: the inference-time values that counted; ``changed``: those
    that the user set. ``n``: test images. ``top1``, ``top5``: shares right. ``predictions``: checksum of each
    array beside the record, by name. ``target_identity`` and ``target_covers``: of the test set, as
    a fit's record has them of its dataset. Reserved: ``metrics`` by name, ``per_class``, and ``outputs`` (the
    names of further arrays, a row an image).
    """

    schema: Literal[2]
    key: Hex
    fit: Hex
    cell: Cell
    target: str
    parts: EvaluationKey
    n: Count
    top1: Share
    top5: Share
    values: dict[str, Any] = {}
    changed: dict[str, Any] = {}
    seconds: Seconds = 0.0
    predictions: dict[str, str] = {}
    metrics: dict[str, float] = {}
    per_class: PerClass | None = None
    outputs: list[str] = []
    target_identity: str = ""
    target_covers: Covers = "lists"
    provenance: Provenance = Provenance()
    checksum: str = ""


class Failure(Base, frozen=True, kw_only=True, tag_field="kind", tag="failure"):
    """A fit or an evaluation that failed, in the place where its record would be.

    ``of``: which of the two. ``stage``: what failed, reading an image, encoding, preparing, fitting or
    evaluating. ``target`` and ``values``: of an evaluation. ``dataset_identity``: as in a fit's record.
    ``traceback`` is for people and is left out of packed records.
    """

    schema: Literal[2]
    key: Hex
    of: Literal["fit", "evaluation"]
    fit: Hex
    cell: Cell
    stage: Stage
    error: str
    traceback: str = ""
    title: str = ""
    parts: FitKey | None = None
    target: str = ""
    values: dict[str, Any] = {}
    changed: dict[str, Any] = {}
    dataset_identity: str = ""
    provenance: Provenance = Provenance()
    checksum: str = ""


Record = FitRecord | EvaluationRecord | Failure
