"""Give the digest of what all scenes of a dataset show, without drawing the scenes if it is known.

A scene is a tuple of integers. Drawing the 48,000 scenes of the embedded datasets takes seconds, and their
integers are always the same. So ``plans.json`` holds the digests of these datasets. Its keys are digests of
all that the scenes are drawn from: the description of the dataset and the code that draws (its comments and
docstrings do not count). If any of that differs, the scenes are drawn. This module imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bench import typed
from bench.pocket import scenes, textures
from bench.pocket.scenes import RENDERING, SceneSource
from bench.source_digest import code_digest

FILE = Path(__file__).with_name("plans.json")
DRAWN_BY = tuple(Path(str(module.__file__)) for module in (scenes, textures))


def digest(source: SceneSource, each: Mapping[str, int]) -> str:
    """Return the SHA-256 of the integers of all scenes; ``each`` has the scenes per class of each split."""
    return _known().get(origin(source, each)) or drawn(source, each)


def origin(source: SceneSource, each: Mapping[str, int]) -> str:
    """Return the SHA-256 of all that the scenes are drawn from, which is the key in ``plans.json``."""
    drawings = {split: source.drawings[split] for split in each}
    said = repr((RENDERING, source.dataset, source.classnames, drawings, source.style, dict(each), _code()))
    return hashlib.sha256(said.encode()).hexdigest()


def drawn(source: SceneSource, each: Mapping[str, int]) -> str:
    """Compute the digest by drawing every scene."""
    every = hashlib.sha256(b"%d" % RENDERING)
    for split, count in each.items():
        for label in range(len(source.classnames)):
            for index in range(count):
                every.update(repr(_flat(source.draw(split, label, index))).encode())
    return every.hexdigest()


def _flat(value: Any) -> list[int]:
    """Return the integers of a scene in order."""
    return [value] if isinstance(value, int) else [number for part in value for number in _flat(part)]


@cache
def _code() -> tuple[str, ...]:
    """Return digests of the code that decides what is drawn.

    The code that turns a scene into pixels is not among it: for pixels, ``RENDERING`` stands in the key.
    """
    return tuple(code_digest(file.read_bytes()) for file in DRAWN_BY)


@cache
def _known() -> dict[str, str]:
    return typed.json(FILE, dict[str, str])
