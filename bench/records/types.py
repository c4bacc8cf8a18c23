"""Define the types of records: a fit, an evaluation of it, and a failure (docs/records.md shows an example).

msgspec checks types, ranges and unknown fields when a record is read (bench/records/store.py). A field with
its default value is not written. So a field that is added later does not change the checksums of old records.
Fields marked "reserved" are not filled yet.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from bench.records.keys import Count, EvaluationKey, FitKey, Hex, Shots

Share = Annotated[float, Meta(ge=0, le=1)]
Temperature = Annotated[float, Meta(gt=0, le=1e6)]
Seconds = Annotated[float, Meta(ge=0, le=1e12)]
Stage = Literal["read", "encode", "prepare", "fit", "evaluate"]
Covers = Literal["lists", "contents"]  # what the digest of a dataset is taken of


class Base(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The settings that all types of records share: frozen, without unknown fields and written defaults."""


class Cell(Base, frozen=True, kw_only=True):
    """The coordinates of a fit, by the names that tables print.

    ``shots`` is ``all`` for a fold of all labelled images, and ``seed`` is then the number of the fold.
    ``classes``: which of the dataset's classes are learnt (reserved; ``all`` today).
    """

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

    - ``commit``, ``dirty``: the program's commit, and whether its files differed from it.
    - ``device``, ``device_name``: torch's name of the device (``cuda:0``), and that of the model.
    - ``flags``: numerical switches of the run.
    - ``source``: digest of the code of the method's file (``sources.code_of``).
    - ``written``: ISO time (UTC), for people.
    - ``order``: a number that is larger in later records. It is above the order of every record that was in
      the results folder before, whatever the clock says.
    - ``folder``: the name of that results folder (``folder.json``).
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
    """The cost of a fit, as counts.

    - ``configurations``, ``checks``, ``search_points``: how many were scored on validation.
    - ``steps``: optimiser steps. ``val_images``: validation images.
    - ``waves``, ``halvings``: how often memory split the grid.
    - ``graphs``: steps recorded as CUDA graphs. ``eager``: why other steps were not recorded.
    - ``joined``: keys of all fits that trained together. ``apart``: why this one trained alone.
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
    """The validation accuracy of one grid point: (step, share of right images) at every check."""

    point: dict[str, Any]
    checks: list[tuple[Count, Share]]


class PerClass(Base, frozen=True, kw_only=True):
    """The counts by class: test images, right ones among them, and predictions of the class."""

    images: list[Count]
    right: list[Count]
    predicted: list[Count]


class FitRecord(Base, frozen=True, kw_only=True, tag_field="kind", tag="fit"):
    """A fit that succeeded.

    - ``key``: the digest of ``parts``.
    - ``reads``: the methods whose fits it builds on, by role as in ``parts.after``.
    - ``changed``: settings that the user set to other values than the method's own.
    - ``values``, ``step``: the hyper-parameters and the optimiser step that were chosen.
    - ``val_accuracy``: share of right validation images of that choice. ``curve``: that of every grid point.
    - ``seconds``: seconds by phase: ``prepare``, ``fit``, ``temperature``. ``first``: whether its process had
      made no fit with the method before, so that the seconds include imports and compilation.
    - ``peak_memory``: bytes. On a GPU it is the most that PyTorch held in tensors during the fit, or during
      all fits that joined it. On a processor it is the largest resident memory of the process so far, other
      fits included.
    - ``prompts_use_labels``: whether its prompt set was made with labels. ``prompts_also``: other prompt sets
      with the same texts.
    - ``has_state``: whether the method has a fitted state. ``state``: checksum of the kept state, empty if
      none was kept.
    - ``temperature``: the number that calibration divides logits by, fitted on validation images; 1 where
      none could be fitted, None in records that are older than temperatures. ``temperature_rule``: the number
      of the rule by which it was computed.
    - ``dataset_identity``: digits that tell datasets of one name apart (``DatasetSpec.identity``).
      ``dataset_place``: the end of the dataset's path, for people. ``dataset_covers``: what the digest in
      ``parts.dataset`` was taken of.
    - ``imported``: whether the fit was made elsewhere, and only its predictions came here (``bench import``).
      What is not known of it is empty.
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
    temperature: Temperature | None = None
    temperature_rule: Count = 1
    dataset_identity: str = ""
    dataset_place: str = ""
    dataset_covers: Covers = "lists"
    imported: bool = False
    provenance: Provenance = Provenance()
    checksum: str = ""

    @property
    def cost(self) -> float:
        """Return the seconds of preparing and fitting, without the temperature, which no accuracy needs."""
        return sum(spent for phase, spent in self.seconds.items() if phase != "temperature")


class EvaluationRecord(Base, frozen=True, kw_only=True, tag_field="kind", tag="evaluation"):
    """An evaluation of a fit on a test set.

    - ``key``: the digest of ``parts``. ``fit``: the key of the fit.
    - ``target``: the name of the test set. ``n``: the number of test images.
    - ``values``: the inference-time values that were used. ``changed``: those that the user set.
    - ``top1``, ``top5``: shares of right images, from 0 to 1. ``top5`` is None if only the best class of each
      image is known.
    - ``predictions``: the checksum of each array beside the record, by name.
    - ``target_identity``, ``target_covers``: as ``dataset_identity`` and ``dataset_covers`` of a fit, for the
      test set.
    - ``imported``: for predictions that were made elsewhere, the name of the file that they came from.
    - ``metrics``: the value of each metric that the evaluation can tell, by name and in natural units
      (bench.metrics): shares from 0 to 1, and nats. ``per_class``: counts by class.
    - ``outputs``: the names of the arrays beside ``top1`` and ``labels`` that are kept of each image.
      ``temperature``: the fit's, at which those that end in ``_t`` are taken; None if there are none.
      Records that are older have none of the four.
    """

    schema: Literal[2]
    key: Hex
    fit: Hex
    cell: Cell
    target: str
    parts: EvaluationKey
    n: Count
    top1: Share
    top5: Share | None
    values: dict[str, Any] = {}
    changed: dict[str, Any] = {}
    seconds: Seconds = 0.0
    predictions: dict[str, str] = {}
    metrics: dict[str, float] = {}
    per_class: PerClass | None = None
    outputs: list[str] = []
    temperature: Temperature | None = None
    target_identity: str = ""
    target_covers: Covers = "lists"
    imported: str = ""
    provenance: Provenance = Provenance()
    checksum: str = ""


class Failure(Base, frozen=True, kw_only=True, tag_field="kind", tag="failure"):
    """A fit or an evaluation that failed, in the place where its record would be.

    - ``of``: which of the two failed.
    - ``stage``: what was done when it failed: reading an image, encoding, preparing, fitting or evaluating.
    - ``error``: the message in one line. ``traceback``: for people; packed records leave it out.
    - ``parts``: for a fit, the parts of its key.
    - ``target``, ``values``: for an evaluation, its test set and its inference-time values.
    - ``dataset_identity``: as in a fit's record.
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
