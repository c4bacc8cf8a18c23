"""Remark on what may change the meaning of numbers on a user's class folders; each remark is one line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bench.data.gather import Gathered
from bench.data.parts import part_of
from bench.errors import BenchError
from bench.names import few, printable, shown

_NUMBER = re.compile(r"\d+|n\d{8}")  # n and eight digits is a WordNet id, as ImageNet's folders have


def refuse_parts_inside(found: Gathered) -> None:
    """Raise BenchError if class folders hold train and test folders of their own."""
    for folder, inner in _sub_folders_with_pictures(found).items():
        parts = {part[0] for name in inner if (part := part_of(name))}
        if {"train", "test"} <= parts:
            raise BenchError(
                f"{shown(str(found.root))}: class {shown(folder)} holds {few(sorted(inner))}; "
                "arrange it the other way round: train/ and test/ outside, the class folders inside them"
            )


def remarks(found: Gathered, kept: Sequence[str]) -> tuple[str, ...]:
    """Return one line for each oddity of the ``kept`` classes."""
    names = [found.names[folder] for folder in kept]
    lines = []
    if numbers := [name for name in names if _NUMBER.fullmatch(name)]:
        lines.append(
            f"{len(numbers)} of {len(names)} class names are numbers ({few(numbers)}), which say nothing "
            "in a prompt; rename the folders, or write a TOML file: [classnames] rename = "
            f'{{ "{numbers[0]}" = "..." }}'
        )
    if foreign := [printable(folder) for folder in kept if printable(folder) != folder]:
        lines.append(
            f"class folders whose names are not UTF-8 are read as {few(foreign)}; rename them, or write a "
            f"TOML file: [classnames] rename = {{ '{foreign[0]}' = \"...\" }}"
        )
    for part in ("val", "test"):
        there = found.paths.get(part)
        absent = [found.names[folder] for folder in kept if there and not there.get(folder)]
        if absent and len(absent) < len(kept):
            lines.append(f"no {part} images of {len(absent)} of {len(kept)} classes ({few(absent)})")
    made = {
        folder: within
        for folder, within in _sub_folders_with_pictures(found).items()
        if folder in kept and len(within) > 1
    }
    if made:
        folder, within = next(iter(made.items()))
        lines.append(
            f"class {shown(found.names[folder])} is made of folders ({few(sorted(within))}) and holds no "
            "image itself; if those are the classes, name the folder that holds them, or, if it is a part of "
            "a split, call it train/, val/ or test/"
        )
    return tuple(lines)


def _sub_folders_with_pictures(found: Gathered) -> Mapping[str, set[str]]:
    """Return the sub-folders with pictures of each class folder that holds no picture directly."""
    result = {}
    for folder, paths in found.learnt.items():
        start = len(found.home(folder)) + 1
        below = [found.real.get(path, path)[start:].split("/") for path in paths]
        if all(len(steps) > 1 for steps in below):
            result[folder] = {steps[0] for steps in below}
    return result
