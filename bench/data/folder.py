"""Read a user's own images, which lie in one folder per class.

The class folders may lie inside train, val and test folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.data import layout
from bench.data.catalog import Place
from bench.data.cut import NO_SPLIT, NO_VAL, SHARES, carved, cut
from bench.data.dataset import Dataset, Items, dataset_digest
from bench.data.gather import ALL, Gathered, gather
from bench.data.parts import split_folders, unwrap
from bench.data.reading import HIDDEN, Reading, counted
from bench.data.remarks import refuse_parts_inside, remarks
from bench.data.repeats import alike, repeats
from bench.data.spec import DatasetSpec
from bench.data.splitfile import Split, split_rows
from bench.data.walk import look
from bench.errors import BenchError
from bench.files import write_json
from bench.names import by_reason, printable, shown

Rows = dict[str, list[tuple[str, int]]]  # maps each part to its pairs (path, label)


def class_folders(spec: DatasetSpec, place: Place) -> Dataset:
    """Read a dataset of class folders.

    The sorted order of the folders gives the labels, and their names are the class names. A TOML file may
    rename or drop classes.

    If there are train and test folders (``bench.data.parts`` says which spellings count), they are kept, and
    a missing val folder is replaced by a fifth of train. Otherwise each class is cut 50/20/30 by the SHA-256
    of its files: the split then depends on nothing but the images, and identical files stay together. This
    split is written under ``place.out``. The dataset's digest covers the contents of the files.

    Raises MissingData if the folder is not there. Raises BenchError if the folder holds neither a split nor
    class folders, or fewer than 2 classes. Raises BenchError, naming all of them, for classes with too few
    images, classes that stand in test alone, and files that cannot be read; ``place.skip_bad`` leaves these
    out instead.
    """
    inside, parts, found = _inspected(spec, place)
    carve = bool(parts) and _needs_val(found)
    _mark_small_classes(found, 1 if parts and not carve else 2 if carve else len(SHARES))
    kept = _usable_classes(found, place.skip_bad)
    if parts:
        rows = _given_rows(found, kept, carve)
        notes = (NO_VAL,) if carve else ()
        listed = [path for part in rows.values() for path, _ in part]
    else:
        rows, notes = _cut_rows(found, kept), (NO_SPLIT,)
        listed = [path for folder in kept for path in found.learnt[folder]]
    split = _split_of(rows, tuple(found.names[folder] for folder in kept))
    contents = "\n".join(f"{path}\t{found.hashes[path]}" for path in listed)
    digest = dataset_digest(split.classnames, split.train, split.val, split.test, contents)
    if not parts and place.out is not None:
        write_json(place.out / "splits" / f"{spec.name}-{digest[:12]}.json", split_rows(split))
    return Dataset(
        name=spec.name,
        spec=spec,
        classnames=split.classnames,
        train=split.train,
        val=split.val,
        test=split.test,
        digest=digest,
        source=layout.source(spec, place, found.root, found.real),
        notes=(*notes, *repeats(rows, found.hashes, parts), *remarks(found, kept)),
        own_split=carve or not parts,
        indices=layout.index_folder(spec, place),
        reading=_reading(found, inside, parts),
        same=alike(listed, found.hashes),
    )


def _inspected(spec: DatasetSpec, place: Place) -> tuple[str, dict[str, str], Gathered]:
    """Look through the dataset's folder.

    Returns the folder, relative to the given one, in which classes or parts lie; the folder of each part; and
    what was found in them.
    """
    spec.option_values()
    given = layout.image_folder(spec, place)
    if not given.is_dir():
        raise layout.missing(spec, "its folder of images", layout.image_candidates(spec, place), spec.get)
    classes = {*spec.classnames.rename, *spec.classnames.drop}
    inside = unwrap(given, classes)
    root = given / inside
    parts = split_folders(root, look(root, links=True), classes)
    found = gather(root, parts or {ALL: ""}, spec)
    refuse_parts_inside(found)
    return inside, parts, found


def _reading(found: Gathered, inside: str, parts: Mapping[str, str]) -> Reading:
    """Summarise how the folder was understood, for the user to see."""
    unreadable = [("unreadable", file) for file, _ in found.unreadable]
    skipped = tuple((printable(folder), reason) for folder, reason in sorted(found.bad.items()))
    return Reading(inside, parts, counted([*found.passed, *unreadable]), skipped, tuple(found.outside))


def _needs_val(found: Gathered) -> bool:
    """Return whether no class with training images has validation images."""
    val = found.paths.get("val", {})
    return not any(paths and val.get(folder) for folder, paths in found.learnt.items())


def _mark_small_classes(found: Gathered, need: int) -> None:
    """Mark every class as bad that has fewer than ``need`` different images to learn from or to be cut."""
    part = "" if ALL in found.paths else "training "
    for folder in found.names:
        different = found.different(folder)
        if different < need and folder not in found.bad:
            images = f"{part}image{'' if different == 1 else 's'}"
            found.bad[folder] = (
                f"{different} different {images} where {need} are needed"
                if different
                else f"no {images}{_other_files(found, folder)}"
            )


def _other_files(found: Gathered, folder: str) -> str:
    """Say which files a class folder without images mostly holds; return an empty string if it holds none."""
    within = f"{found.home(folder)}/"
    left = counted((why, path) for why, path in found.passed if why != HIDDEN and path.startswith(within))
    return f", but {left[0].count} {left[0].reason}" if left else ""


def _usable_classes(found: Gathered, skip_bad: bool) -> list[str]:
    """Return the class folders that the dataset keeps.

    Raises BenchError, naming everything that is wrong, unless ``skip_bad`` leaves it out. Raises BenchError
    in any case if fewer than 2 classes are left.
    """
    where = shown(str(found.root))
    faults = []
    if found.bad:
        each = by_reason(sorted(found.bad.items()))
        faults.append(
            f"{len(found.bad)} of {len({*found.names, *found.bad})} class folders cannot be used: {each}"
        )
    if found.unreadable:
        count, each = len(found.unreadable), by_reason(found.unreadable)
        faults.append(f"{count} image file{'' if count == 1 else 's'} cannot be read: {each}")
    kept = [folder for folder in found.names if folder not in found.bad]
    if faults and (not skip_bad or len(kept) < 2):
        raise BenchError(
            f"{where}: {'; '.join(faults)}; mend them or remove them"
            + (" (`bench run --skip-bad` goes on without them)" if len(kept) > 1 else "")
        )
    if len(kept) < 2:
        raise BenchError(
            f"{where}: only one class, {shown(found.names[kept[0]])}; a dataset has at least two folders of "
            "images, each named after its class"
        )
    return kept


def _cut_rows(found: Gathered, kept: Sequence[str]) -> Rows:
    """Cut the images of every class into the three parts, by content."""
    rows: Rows = {part: [] for part in SHARES}
    for label, folder in enumerate(kept):
        hashes = {path: found.hashes[path] for path in found.learnt[folder]}
        for part, paths in cut(hashes).items():
            rows[part] += [(path, label) for path in paths]
    return rows


def _given_rows(found: Gathered, kept: Sequence[str], carve: bool) -> Rows:
    """Return the rows of the parts as the folders give them; with ``carve`` a fifth of train becomes val.

    Raises BenchError if the test folder's class folders hold no images.
    """
    rows: Rows = {
        part: [(path, label) for label, folder in enumerate(kept) for path in classes.get(folder, ())]
        for part, classes in ((part, found.paths.get(part, {})) for part in SHARES)
    }
    if not rows["test"]:
        test = found.root / found.homes["test"]
        raise BenchError(f"{shown(str(test))}: no images in its class folders; put the test images there")
    if carve:
        rows["train"], rows["val"] = carved(found.hashes, rows["train"])
    return rows


def _split_of(rows: Rows, names: tuple[str, ...]) -> Split:
    lists = {
        part: Items(tuple(path for path, _ in pairs), tuple(label for _, label in pairs))
        for part, pairs in rows.items()
    }
    return Split(lists["train"], lists["val"], lists["test"], names)
