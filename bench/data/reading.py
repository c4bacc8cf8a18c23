"""What a reader of somebody's own folder took, passed over and left out, so that a plan can say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

HIDDEN = "hidden"  # a reason to leave out a file


@dataclass(frozen=True)
class LeftOut:
    """Files and folders that were passed over for one reason: how many, and the first of them."""

    reason: str
    count: int
    example: str


@dataclass(frozen=True)
class Reading:
    """How somebody's own folder was understood; the sizes are those of the dataset's lists.

    ``inside`` is the folder, below the given one, where the classes or parts were found (empty: the given
    one). ``parts`` maps train, val and test to the folders they were read from, and is empty where the
    program made the split. ``skipped`` are classes left out at the user's wish: (class folder, reason).
    ``outside`` are images that are read, and that links lead to out of the folder.
    """

    inside: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    outside: tuple[str, ...] = ()


def counted(passed: Iterable[tuple[str, str]]) -> tuple[LeftOut, ...]:
    """(reason, path) by reason, the most frequent first."""
    paths: dict[str, list[str]] = {}
    for reason, path in passed:
        paths.setdefault(reason, []).append(path)
    found = [LeftOut(reason, len(those), those[0]) for reason, those in paths.items()]
    return tuple(sorted(found, key=lambda left: (-left.count, left.reason)))
