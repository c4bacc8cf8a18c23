"""Write records of predictions that were made elsewhere: of a fit that is known by its name alone, and of its
evaluation, which is counted here.

The fit's key holds the coordinates of its cell. The evaluation's key holds the digest of the predictions too.
So the same predictions are recorded once, and others for the same cell replace them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from msgspec.structs import replace as with_fields

from bench.clip import spec as towers
from bench.data import catalog, seen
from bench.data.dataset import Dataset
from bench.data.targets import matched
from bench.errors import BenchError
from bench.features.store import default_root
from bench.imported import outputs, table
from bench.imported.table import Predictions
from bench.metrics import per_class, values
from bench.names import PROTOCOLS, RECIPE, canonical, nearest, printable, short
from bench.records import outcomes, places, store
from bench.records.codec import SCHEMA
from bench.records.keys import EvaluationKey, FitKey
from bench.records.types import Cell, EvaluationRecord, Failure, FitRecord, PerClass, Record

PROMPTS = "imported"  # stands for the prompt set, of which nothing is known
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,63}")
_PRESETS = ("paper", "quick")


@dataclass(frozen=True)
class Asked:
    """The cell that predictions are of, as a user names it.

    ``name``: the method. ``shots``: 0 for a method that used no labels. ``target``: the test set, empty for
    the dataset's own. ``preset``: empty for the backbone's own.
    """

    name: str
    dataset: str
    shots: int
    seed: int
    backbone: str = towers.POCKET[0]
    target: str = ""
    protocol: str = RECIPE
    preset: str = ""


@dataclass(frozen=True)
class Done:
    """What an import did.

    - ``path``: the evaluation's record. ``top1``: its accuracy, a share. ``n``: its test images.
    - ``new``: whether it was written; False if the same predictions were recorded before.
    - ``replaced``: records of other predictions of this cell that were deleted. ``packed``: how many such
      records are packed; they stay, and the new one counts.
    - ``floored``: images whose true class has a probability below ``outputs.LEAST``.
    """

    path: Path
    top1: float
    n: int
    new: bool
    replaced: tuple[Path, ...] = ()
    packed: int = 0
    floored: int = 0


def bring(
    file: Path,
    asked: Asked,
    results: Path,
    methods: Collection[str],
    data_root: Path | None = None,
    cache: Path | None = None,
    replaces: bool = False,
) -> Done:
    """Read a CSV file of predictions (``table.read``), and record them in the folder ``results``.

    ``methods``: the names of the program's own methods, which imported ones may not have. ``replaces``:
    whether other predictions of the same cell may be replaced. Nothing is written unless everything is right.
    Raises BenchError, with the mend, for what is not.
    """
    asked = _checked(asked, methods)
    dataset, target = datasets(asked.dataset, asked.target, results, data_root, cache)
    predictions = table.read(file, target)
    store.require_present(results)
    before = list(store.every(results, []))
    _refuse_taken(asked.name, (record for _, record in before), results)
    fit = _fit(asked, dataset)
    record, arrays, floored = _evaluation(fit, target, predictions, printable(file.name))
    where = places.folder(results, fit.cell.backbone, dataset.spec.name, asked.name)
    path = places.evaluation_path(where, fit.key, record.key)
    known = store.evaluation(path, record.key, [], fit=fit.parts)
    # A packed record may have dropped the probabilities that the file brings again.
    whole = known is not None and set(record.outputs) <= set(known.outputs)
    if whole and store.fit(places.fit_path(where, fit.key), fit.key):
        return Done(path, record.top1, record.n, new=False, floored=floored)
    others = [
        other
        for other, old in before
        if isinstance(old, EvaluationRecord)
        and old.imported
        and (old.fit, old.target) == (record.fit, record.target)
        and old.key != record.key
    ]
    if others and not replaces:
        rivals = [old for other, old in before if other in others]
        raise _taken_cell(asked, target, max(rivals, key=lambda old: old.provenance.order), results)
    last = max((old.provenance.order for _, old in before), default=0)
    clock = store.Clock.of(results, last)
    store.write(places.fit_path(where, fit.key), fit, clock)
    sums = store.write_predictions(path, arrays)
    store.write(path, with_fields(record, predictions=sums), clock)
    loose = tuple(other for other in others if other.is_file())
    for other in loose:
        other.unlink()
        other.with_suffix(".npz").unlink(missing_ok=True)
    packed = len(others) - len(loose)
    return Done(path, record.top1, record.n, True, loose, packed, floored)


def datasets(
    dataset: str, target: str, results: Path, data_root: Path | None = None, cache: Path | None = None
) -> tuple[Dataset, Dataset]:
    """Return the dataset of a fit, and the test set of its predictions, with the digests of a run.

    ``target`` is empty for the dataset's own test images. Raises BenchError for unknown names, and if the two
    do not belong together.
    """
    own = _found(dataset, results, data_root, cache)
    if own.spec.source:
        raise BenchError(
            f"{own.name} is a test set for models of {own.spec.source}: "
            f"write --dataset {own.spec.source} --target {own.name}"
        )
    return own, matched(_found(target, results, data_root, cache), own) if target else own


def _taken_cell(asked: Asked, target: Dataset, old: Record, results: Path) -> BenchError:
    """Return the error of an import that would replace other predictions of its cell."""
    seed = f" and seed {asked.seed}" if asked.shots else ""
    source = old.imported if isinstance(old, EvaluationRecord) else ""
    return BenchError(
        f"{results} has other predictions of {asked.name} on {target.name} at {asked.shots} "
        f"shot{'' if asked.shots == 1 else 's'}{seed}, imported from {source}: write --replace to replace "
        f"them{', or the --seed that this file is of' if asked.shots else ''}"
    )


def _checked(asked: Asked, methods: Collection[str]) -> Asked:
    """Return what was asked for in its usual form. Raises BenchError for what cannot be."""
    name = asked.name
    if not _NAME.fullmatch(name):
        raise BenchError(
            f"--name '{short(name)}': use letters, digits, '-', '_', '+' and '.', at most 64, and begin with "
            "a letter or digit"
        )
    if canonical(name) in map(canonical, methods):
        raise BenchError(
            f"--name {name}: is a method of the program; choose another name, such as {name}-ours"
        )
    if asked.shots < 0 or asked.seed < 0 or (asked.shots and not asked.seed):
        raise BenchError("--shots begins at 0 and --seed at 1: write --shots 16 --seed 1, as in `bench run`")
    for flag, value, known in (
        ("--protocol", asked.protocol, PROTOCOLS),
        ("--preset", asked.preset, ("", *_PRESETS)),
    ):
        if value not in known:
            raise BenchError(
                f"{flag} {value}: unknown{nearest(value, known)}; choose {', '.join(filter(None, known))}"
            )
    backbone, preset = towers.printed(asked.backbone)
    seed = asked.seed if asked.shots else 0  # without images there is nothing to draw
    return replace(asked, backbone=backbone, preset=asked.preset or preset, seed=seed)


def _found(name: str, results: Path, data_root: Path | None, cache: Path | None) -> Dataset:
    """Return a dataset with the digest that a run would record. Image files may be absent."""
    found = catalog.find(name, data_root, images=False, out=results if results.is_dir() else None)
    return seen.current(found, (results, cache or default_root()))


def _refuse_taken(name: str, records: Iterable[Record], results: Path) -> None:
    """Raise BenchError if the folder has records of a method of this name that ran here."""
    for record in records:
        ran_here = isinstance(record, Failure) or not record.imported
        if canonical(record.cell.method) == canonical(name) and ran_here:
            raise BenchError(
                f"--name {name}: {results} has records of a method of this name that ran here; choose another"
            )


def _fit(asked: Asked, dataset: Dataset) -> FitRecord:
    """Return the record of a fit of which the coordinates alone are known."""
    cell = Cell(
        method=asked.name,
        dataset=dataset.name,
        shots=asked.shots,
        seed=asked.seed,
        backbone=asked.backbone,
        prompts=PROMPTS,
        protocol=asked.protocol,
        preset=asked.preset,
    )
    parts = FitKey(
        method=asked.name,
        version=1,
        settings={"backbone": asked.backbone, "preset": asked.preset},
        recipe={},
        dataset=dataset.digest,
        draw="",
        shots=asked.shots,
        seed=asked.seed,
        weights="",
        preprocessing="",
        prompts="",
        protocol=asked.protocol,
        encode_dtype="float32",
        source=PROMPTS,
    )
    return FitRecord(
        schema=SCHEMA,
        key=parts.digest(),
        cell=cell,
        parts=parts,
        title=f"{asked.name} (imported)",
        notes=["Imported: the fit was made elsewhere, and bench counted what its predictions are worth."],
        prompts_also=[],
        dataset_identity=dataset.spec.identity,
        dataset_place=dataset.spec.short_place,
        dataset_covers=dataset.covers,
        imported=True,
    )


def _evaluation(
    fit: FitRecord, target: Dataset, predictions: Predictions, source: str
) -> tuple[EvaluationRecord, dict[str, np.ndarray], int]:
    """Return the evaluation's record without checksums, its arrays, and how many images were floored."""
    labels, top1 = np.asarray(target.test.labels), predictions.top1
    K = len(target.classnames)
    key = EvaluationKey(fit=fit.key, target=target.digest, imported=predictions.digest)
    more: dict[str, np.ndarray] = {}
    floored = 0
    if predictions.probabilities is not None:
        floored = int((predictions.probabilities[np.arange(len(labels)), labels] < outputs.LEAST).sum())
        more = outputs.arrays(predictions.probabilities, top1, labels)
    arrays = {"top1": top1, "labels": labels, **more}
    counts = per_class(top1, labels, K)
    record = EvaluationRecord(
        schema=SCHEMA,
        key=key.digest(),
        fit=fit.key,
        cell=fit.cell,
        target=target.name,
        parts=key,
        n=len(labels),
        top1=float((top1 == labels).mean()),
        top5=float((more["classes"] == labels[:, None]).any(1).mean()) if more else None,
        metrics=values(outcomes.outputs(arrays, K, temperature=None)),
        per_class=PerClass(**{name: counted.tolist() for name, counted in counts._asdict().items()}),
        outputs=[*more],
        target_identity=target.spec.identity,
        target_covers=target.covers,
        imported=source,
    )
    return record, arrays, floored
