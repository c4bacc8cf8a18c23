"""Recognise the train, val and test folders of a user's dataset, in their many spellings."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from bench.data.walk import Listing, look
from bench.errors import BenchError
from bench.names import shown

WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "tst"),
}
_PART_OF = {word: part for part, words in WORDS.items() for word in words}
# Words that do not say which part a folder is, as in training_set, TestImages, val-data.
_FILLERS = ("sets", "set", "data", "dataset", "split", "images", "image", "imgs", "img", "pictures", "folder")
_TOKEN = re.compile(rf"(?:{'|'.join(_FILLERS)})?({'|'.join(_PART_OF)})(?:{'|'.join(_FILLERS)})?")


def part_of(name: str) -> tuple[str, str] | None:
    """Return the part that a folder's name stands for and the rest of the name; None for no part, or several.

    Examples: ``Training_Set`` gives ("train", ""), ``seg_test`` gives ("test", "seg").
    """
    tokens = re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    parts = [found[1] for token in tokens if (found := _TOKEN.fullmatch(token))]
    if len(parts) != 1:
        return None
    rest = [token for token in tokens if not _TOKEN.fullmatch(token) and token not in _FILLERS]
    return _PART_OF[parts[0]], "_".join(rest)


def unwrap(root: Path, classes: Collection[str]) -> str:
    """Return the folder below ``root`` in which classes or parts lie, as a path relative to ``root``.

    Wrappers are stepped into. A wrapper is a folder that holds only one folder, which itself holds folders
    and no images: of root/images/train/ and root/images/test/ the result is "images". ``classes`` are folders
    that are known to be classes. Raises Unlisted if a folder cannot be listed.
    """
    return _unwrapped(root, "", classes, parts_count=True)


def _unwrapped(root: Path, folder: str, classes: Collection[str], parts_count: bool) -> str:
    """Step into wrappers from ``root/folder`` and return the folder below them, relative to ``root``.

    With ``parts_count`` the folder of a part, such as train/, is no wrapper.
    """
    while True:
        here = look(root, folder, links=True)
        if len(here.folders) != 1 or here.pictures:
            return folder
        only = here.folders[0]
        inner = f"{folder}/{only}" if folder else only
        if (root / folder).resolve().is_relative_to((root / inner).resolve()):
            return folder  # this link leads back up, so stepping in would never end
        within = look(root, inner, links=True)
        if only in classes or (parts_count and part_of(only)) or within.pictures or not within.folders:
            return folder
        folder = inner


def split_folders(root: Path, top: Listing, classes: Collection[str]) -> dict[str, str]:
    """Return the folder of class folders of each part, relative to ``root``; wrappers are stepped into.

    The result is empty if ``top``, the listing of ``root``, holds classes. ``classes`` are folders that are
    known to be classes. Raises BenchError for what is neither a split nor classes: a part without train or
    test, two spellings of one part, or a part without class folders.
    """
    recognised = {
        folder: words for folder in top.folders if folder not in classes and (words := part_of(folder))
    }
    groups: dict[str, dict[str, list[str]]] = {}
    for folder, (part, rest) in recognised.items():
        groups.setdefault(rest, {}).setdefault(part, []).append(folder)
    # A longer name that contains such a word (train_station) is a part only if a folder of another part has
    # the same rest (test_station).
    groups = {
        rest: group for rest, group in groups.items() if not rest or len(group) > 1 or len(top.folders) == 1
    }
    members = [folder for group in groups.values() for folders in group.values() for folder in folders]
    held = {folder: look(root, folder, links=True) for folder in members}
    flat = [folder for folder in members if not held[folder].folders]
    if len(flat) == len(members):
        if len({recognised[folder][0] for folder in flat}) > 1:
            raise BenchError(
                f"{shown(str(root))}: {_names(flat)} hold images but no class folders; "
                f"put the images of each class into a folder named after it; {_declare_class(flat[0])}"
            )
        return {}  # a single such name is a class: bus, car, train
    group = _complete_split(root, groups)
    for part, folders in group.items():
        if len(folders) > 1:
            raise BenchError(
                f"{shown(str(root))}: {_names(folders)} all say {part}; "
                "which one is meant? Keep one of them and move the others elsewhere; "
                f"{_declare_class(folders[0])}"
            )
        if folders[0] in flat:
            raise BenchError(
                f"{shown(str(root))}: {_names(folders)} has no class folders, and other parts have; "
                "put the images of each class into a folder named after it, or remove the folder; "
                f"{_declare_class(folders[0])}"
            )
    found = {part: group[part][0] for part in WORDS if part in group}
    known = set(look(root, _unwrapped(root, found["train"], classes, False), links=True).folders)
    return {part: _unwrapped(root, folder, known | set(classes), False) for part, folder in found.items()}


def _complete_split(root: Path, groups: dict[str, dict[str, list[str]]]) -> dict[str, list[str]]:
    """Return the group of parts that has both train and test.

    If several have, it is the one whose names say nothing else. Raises BenchError if that does not decide, or
    if no group has both.
    """
    whole = [group for _, group in sorted(groups.items()) if {"train", "test"} <= set(group)]
    if len(whole) == 1 or (whole and whole[0] is groups.get("")):
        return whole[0]
    if whole:
        raise BenchError(
            f"{shown(str(root))}: more than one split ({_names(group['train'][0] for group in whole)}); "
            "move all but one of them elsewhere"
        )
    there = {part: folders for group in groups.values() for part, folders in group.items()}
    here = there.get("train") or [folder for folders in there.values() for folder in folders]
    lacking, mend = (
        ("test", "name the folder of test images test/ (val/ is for choosing settings)")
        if "train" in there
        else ("train", "name the folder of training images train/")
    )
    raise BenchError(
        f"{shown(str(root))} has {_names(here)} but no {lacking}/: {mend}, or, to have the images of "
        f"{_names(here[:1])} split, name that folder itself; {_declare_class(here[0])}"
    )


def _declare_class(folder: str) -> str:
    """Say how to declare in a TOML file that ``folder`` is a class and no part."""
    return (
        f"if {shown(folder)}/ is a class, say so in a TOML file: "
        f'[classnames] rename = {{ "{shown(folder)}" = "..." }}'
    )


def _names(folders: Iterable[str]) -> str:
    return ", ".join(f"{shown(folder)}/" for folder in folders)
