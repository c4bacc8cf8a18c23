"""Join results folders, so that what several machines measured becomes one folder.

``plan`` compares the records of all folders by their places, which their keys give, and changes nothing.
``Merge.write`` then copies what the output folder lacks. Four rules keep every number true:

- Two records of one key are equal if their numbers and predictions are (bench.records.alike). It does not
  matter when, where and how fast they were made.
- A record of the output folder is never replaced, unless it is damaged, says that a cell failed, or an equal
  one keeps more. Example: an evaluation without metrics makes way for an equal one with metrics.
- A record comes only with the fits that it was made with. Example: if the fit of an evaluation is damaged in
  its folder, the evaluation is left out, because another folder may have a different fit of the same key. If
  the evaluation lies in the output folder, it is deleted before such a fit arrives.
- If two results differ, the user chooses a folder. Records of the other folders that build on a rejected fit
  are left out too. Example: if two fits of ``safe`` differ, an evaluation that only the rejected folder has
  is left out, because it is about a fit that the output does not hold.

Records in files stay files, and packed records stay packed, because those keep fewer arrays. Lines
of the output's packed records that cannot be believed stay there, unless their replacement is packed too.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench.errors import BenchError
from bench.files import read_bytes, write_bytes
from bench.records import codec, packed, places, states, store
from bench.records.alike import differing, keeps
from bench.records.types import EvaluationRecord, Failure, FitRecord, Record
from bench.records.whole import Bad, fault_of_fits, lacking

_DIGITS = 12  # hex digits in the name of a file of image stamps


class Held(NamedTuple):
    """A record, its path, and the results folder that holds it."""

    folder: Path
    path: Path
    record: Record

    @property
    def loose(self) -> bool:
        """Return whether the record is a file of its own and, for an evaluation, so are its predictions."""
        its_own = isinstance(self.record, EvaluationRecord)
        return self.path.is_file() and (not its_own or self.path.with_suffix(".npz").is_file())


class Conflict(NamedTuple):
    """Two files of one name with different contents. ``what``: the fields that differ."""

    one: Path
    other: Path
    what: str


@dataclass
class Merge:
    """The plan of joining folders into ``out``, as counts of records and lists of files.

    - ``equal``: records that several folders hold. ``remade`` of them were measured more than once.
    - ``new``: records that one input alone holds, by input. ``kept``: those that ``out`` alone holds.
    - ``richer``: records of ``out`` that an equal one, which keeps more, replaces.
    - ``mended``: failures in one folder for which another folder has the result.
    - ``conflicts``: pairs of files that differ, where neither ``out`` nor the preferred folder decides.
    - ``decided``: records that differ, where the preferred folder decides. ``dropped``: records left out
      because they build on a fit that was not chosen.
    - ``bad``: what is damaged and left out, and records whose fits are not beside them.
    """

    out: Path
    equal: int = 0
    remade: int = 0
    new: Counter[Path] = field(default_factory=Counter)
    kept: int = 0
    richer: int = 0
    mended: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    decided: int = 0
    dropped: int = 0
    bad: list[Bad] = field(default_factory=list)
    rootless: dict[str, Held] = field(default_factory=dict)  # of ``out``, without their fits, by path
    removed: list[str] = field(default_factory=list)  # those of them whose fits come from elsewhere
    copies: dict[Path, Path] = field(default_factory=dict)  # target to source, in the order of writing
    packed: dict[str, Held] = field(default_factory=dict)  # by path below ``runs/``

    @property
    def records(self) -> int:
        """Return how many records ``write`` writes."""
        runs = places.runs(self.out)
        return len(self.packed) + sum(t.suffix == ".json" and t.is_relative_to(runs) for t in self.copies)

    def write(self) -> None:
        """Copy what the output folder lacks.

        Every file is written whole or not at all, and a record after the files that it refers to. After an
        interruption the same call writes the files that are still missing.
        """
        assert not self.conflicts
        root = places.runs(self.out)
        # These go before other folders' fits of their keys come, which they were not made with.
        for at in self.removed:
            _unlink(root / at)
        if not packed.rows(self.out).keys().isdisjoint(self.removed):
            packed.add(self.out, {}, {}, self.removed)
        for target, source in self.copies.items():
            write_bytes(target, read_bytes(source))
        if self.packed:
            _write_packed(self.out, self.packed)
        # A file in the place of a packed record is damaged or of a failed cell, and would hide the record.
        for at in self.packed:
            _unlink(root / at)


def plan(inputs: Sequence[Path], out: Path, prefer: Path | None = None) -> Merge:
    """Return what joining ``inputs`` into ``out``, a new or an existing folder, would do.

    ``prefer`` is the folder whose results are taken if results differ: an input, or ``out``. Raises
    BenchError for an input without records, for an input that is ``out`` itself, and for records of an older
    schema.
    """
    given = list(dict.fromkeys(folder.resolve() for folder in inputs))
    named = {folder.resolve(): folder for folder in reversed((*inputs, out))}
    target = out.resolve()
    if target in given or any(target.is_relative_to(f / part) for f in given for part in store.PARTS):
        raise BenchError(
            f"--out {out}: is one of the folders to read; name another, or leave it out of the inputs"
        )
    if prefer is not None and prefer.resolve() not in named:
        raise BenchError(f"--prefer {prefer}: is none of the folders; name {' or '.join(map(str, inputs))}")
    merge = Merge(out)
    folders = {out: _read(out, merge.bad, merge.rootless)}
    for folder in (named[one] for one in given):
        merge.new[folder] = 0
        before = len(merge.bad)
        folders[folder] = _read(folder, merge.bad, {})
        if not folders[folder] and len(merge.bad) == before:
            raise BenchError(
                f"{folder}: no records there; name the folder that `bench run --results` wrote to"
            )
    preferred = named[prefer.resolve()] if prefer is not None else None
    _decide(merge, folders, preferred)
    _note_others(merge, list(folders), preferred)
    return merge


def _read(folder: Path, bad: list[Bad], rootless: dict[str, Held]) -> dict[str, Held]:
    """Return the believed records of a folder by their paths below ``runs/``; add the others to ``bad``.

    Those of them whose fits are not in the folder are added to ``rootless`` too.
    """
    store.require_present(folder)
    found = {}
    with codec.many():
        for path, record in store.every(folder, bad):
            try:
                if isinstance(record, EvaluationRecord) and record.outputs and not path.is_file():
                    store.arrays(path, record)  # packed ones may have lost what their records name
                elif isinstance(record, EvaluationRecord):
                    store.outcome(path, record)
            except BenchError as error:
                bad.append(store.bad_of(path, error))
                continue
            if isinstance(record, FitRecord) and record.state and not _state_is_whole(folder, record):
                state = places.state_path(folder, record.key)
                bad.append(Bad(str(state), "not the state that the record of its fit speaks of"))
            found[path.relative_to(places.runs(folder)).as_posix()] = Held(folder, path, record)
    # Another folder may have a different fit of the same key, so a record must come with its own fits.
    fits = _fits(found)
    for at, held in list(found.items()):
        if why := fault_of_fits(held.record, fits):
            bad.append(Bad(str(held.path), why))
            del found[at]
            if _missing(held.record, fits):
                rootless[at] = held
    return found


def _missing(record: Record, fits: Mapping[str, FitRecord]) -> str:
    """Return the key of a fit that a record is built on and that has no record in ``fits``; empty if none."""
    return "" if isinstance(record, Failure) else lacking(_fit_key(record), fits)


def _fit_key(record: Record) -> str:
    return record.key if isinstance(record, FitRecord) else record.fit


def _state_is_whole(folder: Path, fit: FitRecord) -> bool:
    """Return whether the state of a fit is the recorded one, or was not kept."""
    return not places.state_path(folder, fit.key).is_file() or states.there(folder, fit)


def _decide(merge: Merge, folders: Mapping[Path, Mapping[str, Held]], prefer: Path | None) -> None:
    """Fill in ``merge``: compare the holders of each place, choose one, and note what is to be copied."""
    chosen: dict[str, list[Held]] = {}  # the holders of the result that counts, the best first
    lost: dict[Path, set[str]] = {folder: set() for folder in folders}
    decided = set()
    for at in sorted({at for held in folders.values() for at in held}):
        ways = _ways([held[at] for held in folders.values() if at in held])
        number = _winner([[held.folder for held in way] for way in ways], merge.out, prefer)
        if number is None:
            one, other = ways[0][0], ways[1][0]
            what = ", ".join(differing(one.record, other.record))
            merge.conflicts.append(Conflict(one.path, other.path, what))
            continue
        if ways[1:]:
            decided.add(at)
        for held in (held for i, way in enumerate(ways) if i != number for held in way):
            if isinstance(held.record, FitRecord):
                lost[held.folder].add(held.record.key)
        chosen[at] = _ordered(ways[number], merge.out)
    fits = {folder: _fits(held) for folder, held in folders.items()}
    for at in list(chosen):
        chosen[at] = [
            held
            for held in chosen[at]
            if not lost[held.folder].intersection(_built_on(held.record, fits[held.folder]))
        ]
        if not chosen[at]:
            del chosen[at]
            merge.dropped += 1
        elif at in decided:
            merge.decided += 1
        else:
            _count(merge, [held[at] for held in folders.values() if at in held], chosen[at][0])
    _note_removed(merge, chosen)
    _note_copies(merge, chosen)


def _note_removed(merge: Merge, chosen: Mapping[str, Sequence[Held]]) -> None:
    """Note the records of the output folder whose own fits are gone and would come from another folder.

    Those that another folder's record replaces are among them: between the fit and that record, an
    interruption would leave the old record beside the fit.
    """
    elsewhere = {at: way[0] for at, way in chosen.items() if all(held.folder != merge.out for held in way)}
    coming = _fits(elsewhere).keys()
    there = _fits(merge.rootless)
    merge.removed += [
        at for at, held in merge.rootless.items() if not coming.isdisjoint(_built_on(held.record, there))
    ]


def _winner(ways: Sequence[Sequence[Path]], out: Path, prefer: Path | None) -> int | None:
    """Return the position of the result to take, or None if nothing decides.

    ``ways``: for each different result, the folders that hold it. A result of the output folder is never
    replaced, because other records there may build on it.
    """
    if len(ways) == 1:
        return 0
    wanted = next((i for i, folders in enumerate(ways) if prefer in folders), None)
    there = next((i for i, folders in enumerate(ways) if out in folders), wanted)
    return wanted if wanted == there else None


def _ordered(way: Sequence[Held], out: Path) -> list[Held]:
    """Return the holders of equal records, the one to take first.

    It is the one that keeps most; of several, that of ``out``, or else a file. That of ``out`` is taken even
    so, unless the other keeps all that it does.
    """
    order = sorted(way, key=lambda held: (-len(keeps(held.record)), held.folder != out, not held.loose))
    own = next((held for held in order if held.folder == out), None)
    if own is not None and not keeps(own.record) < keeps(order[0].record):
        order = [own, *(held for held in order if held is not own)]
    return order


def _ways(here: Sequence[Held]) -> list[list[Held]]:
    """Group the holders of one place by their results.

    Failures are returned only if no holder has a result.
    """
    ways: list[list[Held]] = []
    for held in [h for h in here if not isinstance(h.record, Failure)] or here:
        same = (way for way in ways if not differing(way[0].record, held.record))
        if (way := next(same, None)) is not None:
            way.append(held)
        else:
            ways.append([held])
    return ways


def _count(merge: Merge, here: Sequence[Held], taken: Held) -> None:
    """Add one place whose holders agree to the counts of ``merge``. ``taken``: the holder that was chosen."""
    failed = [isinstance(held.record, Failure) for held in here]
    if any(failed) and not all(failed):
        merge.mended += 1
    elif here[1:]:
        merge.equal += 1
        merge.richer += here[0].folder == merge.out != taken.folder
        merge.remade += any(held.record.provenance != here[0].record.provenance for held in here)
    elif here[0].folder == merge.out:
        merge.kept += 1
    else:
        merge.new[here[0].folder] += 1


def _fits(held: Mapping[str, Held]) -> dict[str, FitRecord]:
    return {h.record.key: h.record for h in held.values() if isinstance(h.record, FitRecord)}


def _built_on(record: Record, fits: Mapping[str, FitRecord]) -> Iterator[str]:
    """Yield the keys of a record's fit and of all fits that it builds on, as far as ``fits`` has them."""
    waiting = [_fit_key(record)]
    while waiting:
        key = waiting.pop()
        yield key
        waiting += fits[key].parts.after.values() if key in fits else ()


def _note_copies(merge: Merge, chosen: Mapping[str, Sequence[Held]]) -> None:
    """Note what to copy for the chosen records: states and predictions first, evaluations last."""
    records: dict[Path, Path] = {}
    for at, way in sorted(chosen.items(), key=lambda one: "-" in one[0].rpartition("/")[2]):
        held, target = way[0], places.runs(merge.out) / at
        if isinstance(held.record, FitRecord):
            _note_state(merge, held.record, way)
        if held.folder == merge.out:
            continue
        if not held.loose:
            merge.packed[at] = held
            continue
        if isinstance(held.record, EvaluationRecord):
            merge.copies[target.with_suffix(".npz")] = held.path.with_suffix(".npz")
        records[target] = held.path
    merge.copies |= records


def _note_state(merge: Merge, fit: FitRecord, way: Sequence[Held]) -> None:
    """Note the copy of a fit's state if a holder has the recorded state and the output folder has not."""
    target = places.state_path(merge.out, fit.key)
    if not fit.state or (target.is_file() and states.there(merge.out, fit)):
        return
    for held in way:
        source = places.state_path(held.folder, fit.key)
        if source.is_file() and states.there(held.folder, fit):
            merge.copies[target] = source
            return


def _note_others(merge: Merge, folders: Sequence[Path], prefer: Path | None) -> None:
    """Note the copies of split files, and of the stamps of the image files that numbers were made of."""
    ways: dict[Path, list[list[tuple[Path, Path]]]] = {}  # by name: (folder, file) by content
    for folder in folders:
        for file in (*sorted(folder.glob("splits/*.json")), *sorted(folder.glob("images/*/*.json"))):
            at = file.relative_to(folder)
            # A run adds to its own file of images, so copies of it may differ. All such files are read.
            if at.parts[0] == "images" and at in ways and not _equal(ways[at][0][0][1], file):
                content = hashlib.sha256(read_bytes(file)).hexdigest()[:_DIGITS]
                at = at.with_name(f"{at.name.partition('-')[0]}-{content}.json")
            here = ways.setdefault(at, [])
            way = next((way for way in here if _equal(way[0][1], file)), None)
            if way is None:
                here.append(way := [])
            way.append((folder, file))
    for at, here in ways.items():
        number = _winner([[folder for folder, _ in way] for way in here], merge.out, prefer)
        if number is None:
            merge.conflicts.append(Conflict(here[0][0][1], here[1][0][1], "the split"))
        elif here[number][0][0] != merge.out:
            merge.copies[merge.out / at] = here[number][0][1]


def _equal(one: Path, other: Path) -> bool:
    return read_bytes(one) == read_bytes(other)


def _unlink(file: Path) -> None:
    """Delete a record and, if it has some, its predictions."""
    file.unlink(missing_ok=True)
    file.with_suffix(".npz").unlink(missing_ok=True)


def _write_packed(out: Path, new: Mapping[str, Held]) -> None:
    """Add records with their predictions to the packed records of ``out``."""
    arrays = {
        at: packed.top1(held.path) for at, held in new.items() if isinstance(held.record, EvaluationRecord)
    }
    top1 = {at: x for at, x in arrays.items() if x is not None}
    outputs = {
        at: store.arrays(held.path, held.record)
        for at, held in new.items()
        if isinstance(held.record, EvaluationRecord) and held.record.outputs
    }
    packed.add(out, {at: h.record for at, h in new.items()}, top1, (), outputs)
