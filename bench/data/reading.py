"""Describe how a reader understood a user's own folder, so that a plan can show it to the user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

HIDDEN = "hidden"  # one of the reasons to leave out a file


@dataclass(frozen=True)
class LeftOut:
    """The files and folders that were passed over for one reason: their number, and the first of them."""

    reason: str
    count: int
    example: str


@dataclass(frozen=True)
class Reading:
    """The way in which a user's own folder was understood.

    ``inside`` is the folder, below the given one, in which the classes or parts were found; empty if it is
    the given one. ``parts`` maps train, val and test to the folders that they were read from; empty if the
    program made the split. ``skipped`` are the classes that were left out because the user asked for it, as
    (class folder, reason). ``outside`` are images that are read although they lie outside the folder, behind
    links. The sizes are not here: they are those of the dataset's lists.
    """

    inside: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    outside: tuple[str, ...] = ()


def counted(passed: Iterable[tuple[str, str]]) -> tuple[LeftOut, ...]:
    """Group pairs (reason, path) by reason, the most frequent reason first."""
    paths: dict[str, list[str]] = {}
    for reason, path in passed:
        paths.setdefault(reason, []).append(path)
    found = [LeftOut(reason, len(those), those[0]) for reason, those in paths.items()]
    return tuple(sorted(found, key=lambda left: (-left.count, left.reason)))
