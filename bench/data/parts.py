"""Which sub-folders of somebody's folder are the parts of a split, however they are spelt."""

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
# Words that say nothing of which part it is: training_set, TestImages, val-data.
_FILLERS = ("sets", "set", "data", "dataset", "split", "images", "image", "imgs", "img", "pictures", "folder")
_TOKEN = re.compile(rf"(?:{'|'.join(_FILLERS)})?({'|'.join(_PART_OF)})(?:{'|'.join(_FILLERS)})?")


def part_of(name: str) -> tuple[str, str] | None:
    """The part that a folder's name says, and what else the name says; None where it says no part, or two.

    ``Training_Set`` is ("train", ""), ``seg_test`` ("test", "seg").
    """
    tokens = re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    parts = [found[1] for token in tokens if (found := _TOKEN.fullmatch(token))]
    if len(parts) != 1:
        return None
    rest = [token for token in tokens if not _TOKEN.fullmatch(token) and token not in _FILLERS]
    return _PART_OF[parts[0]], "_".join(rest)


def unwrap(root: Path, classes: Collection[str]) -> str:
    """The folder below ``root`` where classes or parts lie: wrappers, which hold nothing but one folder of
    folders, are gone through. ``classes`` are folders known to be classes. Raises Unlisted.
    """
    return _unwrapped(root, "", classes, parts_count=True)


def _unwrapped(root: Path, folder: str, classes: Collection[str], parts_count: bool) -> str:
    while True:
        here = look(root, folder, links=True)
        if len(here.folders) != 1 or here.pictures:
            return folder
        only = here.folders[0]
        inner = f"{folder}/{only}" if folder else only
        if (root / folder).resolve().is_relative_to((root / inner).resolve()):
            return folder  # a link that leads back
        within = look(root, inner, links=True)
        if only in classes or (parts_count and part_of(only)) or within.pictures or not within.folders:
            return folder
        folder = inner


def split_folders(root: Path, top: Listing, classes: Collection[str]) -> dict[str, str]:
    """Part to its folder below ``root``, wrappers gone through; empty where ``top`` holds classes.

    ``top`` lists ``root``; ``classes`` are folders known to be classes. Raises BenchError for what is neither
    a split nor classes: a part without train or test, two spellings of one part, a part without class
    folders.
    """
    said = {folder: words for folder in top.folders if folder not in classes and (words := part_of(folder))}
    groups: dict[str, dict[str, list[str]]] = {}
    for folder, (part, rest) in said.items():
        groups.setdefault(rest, {}).setdefault(part, []).append(folder)
    # A word in a longer name (train_station) makes a part only beside another part of that name.
    groups = {
        rest: group for rest, group in groups.items() if not rest or len(group) > 1 or len(top.folders) == 1
    }
    members = [folder for group in groups.values() for folders in group.values() for folder in folders]
    held = {folder: look(root, folder, links=True) for folder in members}
    flat = [folder for folder in members if not held[folder].folders]
    if len(flat) == len(members):
        if len({said[folder][0] for folder in flat}) > 1:
            raise BenchError(
                f"{shown(str(root))}: {_list(flat)} hold images but no class folders; "
                f"put the images of each class into a folder named after it; {_if_class(flat[0])}"
            )
        return {}  # one such name alone is a class, as in bus, car, train
    group = _whole(root, groups)
    for part, folders in group.items():
        if len(folders) > 1:
            raise BenchError(
                f"{shown(str(root))}: {_list(folders)} all say {part}; "
                f"which one is meant? Keep one of them and move the others elsewhere; {_if_class(folders[0])}"
            )
        if folders[0] in flat:
            raise BenchError(
                f"{shown(str(root))}: {_list(folders)} has no class folders, and other parts have; "
                "put the images of each class into a folder named after it, or take the folder away; "
                f"{_if_class(folders[0])}"
            )
    found = {part: group[part][0] for part in WORDS if part in group}
    known = set(look(root, _unwrapped(root, found["train"], classes, False), links=True).folders)
    return {part: _unwrapped(root, folder, known | set(classes), False) for part, folder in found.items()}


def _whole(root: Path, groups: dict[str, dict[str, list[str]]]) -> dict[str, list[str]]:
    """The group of parts that has train and test; of several the one whose names say nothing else."""
    whole = [group for _, group in sorted(groups.items()) if {"train", "test"} <= set(group)]
    if len(whole) == 1 or (whole and whole[0] is groups.get("")):
        return whole[0]
    if whole:
        raise BenchError(
            f"{shown(str(root))}: more than one split ({_list(group['train'][0] for group in whole)}); "
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
        f"{shown(str(root))} has {_list(here)} but no {lacking}/: {mend}, or, to have the images of "
        f"{_list(here[:1])} split, name that folder itself; {_if_class(here[0])}"
    )


def _if_class(folder: str) -> str:
    return (
        f"if {shown(folder)}/ is a class, say so in a TOML file: "
        f'[classnames] rename = {{ "{shown(folder)}" = "..." }}'
    )


def _list(folders: Iterable[str]) -> str:
    return ", ".join(f"{shown(folder)}/" for folder in folders)
