"""Find what is wrong in a results folder: stale, drifted, orphaned, failed and damaged records.

Which records count is decided where tables decide it (``believed``, ``current``), so that removing replaced
records changes no table. What a method is today comes from the caller, because this room knows no methods.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import files
from bench.data import catalog
from bench.names import canonical
from bench.records import codec, packed, places, states, store
from bench.records.today import Today, drifted, stale
from bench.records.types import EvaluationRecord, Failure, FitRecord, Record
from bench.records.whole import Bad, lacking
from bench.report import current
from bench.report.apart import apart
from bench.report.believed import believed
from bench.report.frame import few_shot, rows_of

STALE, DRIFTED, ORPHANED, FAILED, DAMAGED = "stale", "drifted", "orphaned", "failed", "damaged"
KINDS = {
    STALE: "a run makes another record in its place, or has made it",
    DRIFTED: "the code of its method has changed since, under the same version",
    ORPHANED: "what it belongs to is gone",
    FAILED: "the cell failed; a run tries it again",
    DAMAGED: "it, or something that it needs, is missing or changed; a run makes it again",
}
REMOVABLE = (STALE, ORPHANED)
YOUNG = 10  # minutes


@dataclass(frozen=True)
class Finding:
    """One record or file that is not as it should be.

    ``what``: its path. ``files``: what would be deleted with it; none for a packed record, which shares its
    file with others.
    """

    kind: str
    what: str
    reason: str
    files: tuple[Path, ...]

    @property
    def size(self) -> int:
        """The bytes of its files."""
        return sum(stamp.size for file in self.files if (stamp := files.stamp_if_there(file)))

    @property
    def is_state(self) -> bool:
        """Whether it is a fitted state without a record of its fit."""
        return self.kind == ORPHANED and self.what.endswith(".safetensors")

    def is_young(self) -> bool:
        """Return whether a run may be about to write the record of this state or of these predictions.

        A run writes them first. Files younger than ``YOUNG`` minutes count as young.
        """
        if self.kind != ORPHANED or not self.what.endswith((".safetensors", ".npz")):
            return False
        stamp = files.stamp_if_there(self.what)
        return stamp is not None and time.time() - stamp.mtime_ns / 1e9 < 60 * YOUNG


@dataclass(frozen=True)
class Survey:
    """What is in a results folder.

    ``records``: how many records were read. ``unjudged``: methods that are not loaded here, but that a plugin
    may bring.
    """

    records: int
    findings: list[Finding]
    unjudged: list[str]


def survey(results: Path, methods: Mapping[str, Today], complete: bool = True) -> Survey:
    """Look at every record, state and leftover file of a results folder; nothing is changed.

    ``methods``: what the program has, by canonical name; ``complete``: whether none failed to load. Raises
    BenchError where packed records do not unpack.
    """
    with codec.many():
        return _Surveyor(results, methods, complete).survey()


class _Surveyor:
    """One look at a results folder. Each record gets the first reason that is found for it."""

    def __init__(self, results: Path, methods: Mapping[str, Today], complete: bool) -> None:
        self.results, self.methods, self.complete = results, methods, complete
        self.found: dict[str, Finding] = {}
        self.unjudged: set[str] = set()
        self.fits: dict[str, FitRecord] = {}

    def survey(self) -> Survey:
        """Go through the kinds, the gravest first."""
        bad: list[Bad] = []
        older = set(store.of_older_schema(self.results))
        records = [(path, r) for path, r in store.every(self.results, bad) if path not in older]
        for path in older:
            self._add(STALE, path, "of an older schema; `bench convert` brings it over")
        self.fits = {r.key: r for _, r in records if isinstance(r, FitRecord)}
        rooted = list(self._rooted(records, {Path(one.what).stem for one in bad}))
        sound = believed(rooted, bad)
        for one in bad:
            self._add_bad(one)
        self._states(path for path, _ in records)
        self._leftovers()
        self._unknown(sound)
        self._replaced(sound)
        for path, record in sound:
            if isinstance(record, Failure):
                self._add(FAILED, path, f"{record.cell.method}: {record.stage}: {record.error}")
            elif isinstance(record, FitRecord) and self._has_drifted(record):
                self._add(DRIFTED, path, f"{record.cell.method}, version {record.parts.version}")
        return Survey(len(records) + len(older), list(self.found.values()), sorted(self.unjudged))

    def _add(self, kind: str, path: Path, reason: str, more: Sequence[Path] = ()) -> None:
        files = tuple(file for file in (path, *more) if file.is_file())
        self.found.setdefault(str(path), Finding(kind, str(path), reason, files))

    def _add_record(self, kind: str, path: Path, record: Record, reason: str) -> None:
        """Note a record with its predictions or its state."""
        if isinstance(record, EvaluationRecord):
            more = [path.with_suffix(".npz")]
        elif isinstance(record, FitRecord):
            more = [places.state_path(self.results, record.key)]
        else:
            more = []
        self._add(kind, path, reason, more if path.is_file() else ())

    def _add_bad(self, bad: Bad) -> None:
        file = Path(bad.what)
        self.found.setdefault(
            bad.what, Finding(DAMAGED, bad.what, bad.why, (file,) if file.is_file() else ())
        )

    def _rooted(
        self, records: Iterable[tuple[Path, Record]], damaged: Collection[str]
    ) -> Iterator[tuple[Path, Record]]:
        """Yield the records whose fits are there, and note the others."""
        for path, record in records:
            if isinstance(record, FitRecord) or record.key == record.fit:  # a fit, or one that failed
                yield path, record
                continue
            key = lacking(record.fit, self.fits)
            if not key:
                yield path, record
            elif key[: places.SHORT] in damaged:
                self._add_record(DAMAGED, path, record, "the record of its fit is damaged")
            else:
                self._add_record(ORPHANED, path, record, "there is no record of its fit, or of one below it")

    def _states(self, paths: Iterable[Path]) -> None:
        """Look at the fitted states: each belongs to the record of a fit and is as that record says."""
        by_name = {key[: places.SHORT]: fit for key, fit in self.fits.items()}
        named = {path.stem for path in paths} | {Path(what).stem for what in self.found}
        for file in sorted((self.results / "states").glob("*.safetensors")):
            fit = by_name.get(file.stem)
            if fit is not None and fit.state and not states.there(self.results, fit):
                self._add(DAMAGED, file, "not the state that the record of its fit speaks of")
            elif file.stem not in named:
                self._add(ORPHANED, file, "a fitted state without a record of its fit")

    def _leftovers(self) -> None:
        """Look for predictions without a record, and for what killed processes left half written."""
        root = places.runs(self.results)
        in_pack = {path for path, _ in packed.records(self.results)}
        for file in sorted(root.rglob("*.npz")):
            record = file.with_suffix(".json")
            if not record.exists() and record not in in_pack:
                self._add(ORPHANED, file, "predictions without a record")
        for part in ("", *store.PARTS):
            for file in files.leftovers(self.results / part, deep=bool(part)):
                self._add(ORPHANED, file, "left half written by a process that was killed")

    def _unknown(self, records: Iterable[tuple[Path, Record]]) -> None:
        """Look for records of methods and datasets that the program does not have."""
        datasets = set(map(canonical, catalog.names()))
        known = (fit for fit in self.fits.values() if canonical(fit.cell.method) in self.methods)
        needed = {below.key for fit in known for below in current.below(fit, self.fits)}
        for path, record in records:
            if isinstance(record, FitRecord) and record.key in needed:
                continue  # without it, what builds on it would not be believed
            fit = record if isinstance(record, FitRecord) else self.fits.get(record.fit)
            key = fit.parts if fit else record.parts if isinstance(record, Failure) else None
            method, dataset = record.cell.method, record.cell.dataset
            if canonical(method) not in self.methods and not (fit and fit.imported):
                if (key is not None and key.source) or not self.complete:
                    self.unjudged.add(method)
                else:
                    self._add_record(ORPHANED, path, record, f"of {method}, a method that the program lacks")
            own = fit.dataset_identity if fit else getattr(record, "dataset_identity", "")
            contents = fit is not None and fit.dataset_covers == "contents"
            if canonical(dataset) not in datasets and not own and not contents:
                reason = f"of {dataset}, a dataset that the program lacks"
                self._add_record(ORPHANED, path, record, reason)

    def _replaced(self, records: Sequence[tuple[Path, Record]]) -> None:
        """Look for records that no run would make today, or that newer ones replace in every table."""
        reasons = {key: why for key, fit in self.fits.items() if (why := self._stale(fit))}
        rows = rows_of(apart(few_shot(records)[0]))  # no table shows folds
        current.only(rows)
        replaced = {row["path"]: row[current.LEFT_OUT] for row in rows if current.LEFT_OUT in row}
        used: dict[str, bool] = {}  # by fit: whether anything that builds on it counts
        for row in rows:
            for key in self._chain(row["fit"]):
                used[key] = used.get(key, False) or row["path"] not in replaced
        # A fit stays while it has no evaluation yet, and while one that stays builds on it.
        live = {key for key in self.fits if used.get(key, True) and not self._why(key, reasons)}
        live = {below for key in live for below in self._chain(key)}
        for path, record in records:
            key = record.key if isinstance(record, FitRecord) else record.fit
            why = self._why(key, reasons) or replaced.get(str(path), "")
            if isinstance(record, FitRecord) and not why and key not in live:
                why = "of a fit whose evaluations are all stale"
            if why:
                self._add_record(STALE, path, record, why)

    def _chain(self, key: str) -> Iterator[str]:
        """Yield the keys of a fit and of those that it builds on, as far as their records are there."""
        if key in self.fits:
            yield key
            yield from (fit.key for fit in current.below(self.fits[key], self.fits))

    def _why(self, key: str, reasons: Mapping[str, str]) -> str:
        """Return why a fit, or one that it builds on, is stale; empty if neither is."""
        return next((reasons[other] for other in self._chain(key) if other in reasons), "")

    def _stale(self, fit: FitRecord) -> str:
        method = self.methods.get(canonical(fit.cell.method))
        return stale(fit.parts, method) if method else ""

    def _has_drifted(self, fit: FitRecord) -> bool:
        method = self.methods.get(canonical(fit.cell.method))
        return method is not None and drifted(fit, method.code)


def remove(findings: Iterable[Finding]) -> list[Finding]:
    """Delete the files of these findings and return those that were packed and stay.

    Evaluations go before their fits, and records before their predictions and states, so that an
    interruption leaves nothing that looks whole and is not.
    """
    left = []
    for one in sorted(findings, key=lambda one: "-" not in Path(one.what).stem):
        if not one.files:
            left.append(one)
        for file in one.files:
            if file.suffix == ".tmp":
                files.delete_unheld(file)
            else:
                file.unlink(missing_ok=True)
    return left
