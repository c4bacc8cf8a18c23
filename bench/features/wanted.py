"""Find what is left to encode: every image once, with all the views and taps that anyone asked for.

This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from bench.data.views import parse
from bench.features.key import FeatureKey
from bench.features.store import FeatureStore

SHARD_ROWS = 2048  # images per shard, the most that an interruption costs (0.4 GB of RN50's dense features)

KeyOf = Callable[[str, str], FeatureKey]  # maps (tap, view) to the key


@dataclass(frozen=True)
class Wanted:
    """Images, and the taps that are wanted of each of their views."""

    paths: Sequence[str]
    views: Mapping[str, Collection[str]]


@dataclass(frozen=True)
class Piece:
    """Images that all lack the same features, at most one shard of them per view and tap.

    ``views`` pairs each view with its taps.
    """

    paths: tuple[str, ...]
    views: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def encodes(self) -> int:
        """Return how many image x view passes through the tower the piece takes."""
        return len(self.paths) * len(self.views)


def outstanding(wanted: Sequence[Wanted], store: FeatureStore, key_of: KeyOf) -> list[Piece]:
    """Return the pieces that the store lacks. Together they hold every lacking image x view exactly once."""
    by_tap: dict[tuple[str, str], dict[str, None]] = {}  # maps (view, tap) to ordered paths without repeats
    for images in wanted:
        for view, taps in images.views.items():
            for tap in sorted(taps):
                by_tap.setdefault((str(parse(view)), tap), {}).update(dict.fromkeys(images.paths))
    lacking: dict[str, list[tuple[str, str]]] = {}
    for (view, tap), paths in sorted(by_tap.items()):
        for path in store.missing(key_of(tap, view), list(paths)):
            lacking.setdefault(path, []).append((view, tap))
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for path, what in lacking.items():
        alike.setdefault(tuple(what), []).append(path)
    pieces = []
    for pairs, chosen in alike.items():
        views: dict[str, tuple[str, ...]] = {}
        for view, tap in pairs:
            views[view] = (*views.get(view, ()), tap)
        for start in range(0, len(chosen), SHARD_ROWS):
            pieces.append(Piece(tuple(chosen[start : start + SHARD_ROWS]), tuple(views.items())))
    return pieces
