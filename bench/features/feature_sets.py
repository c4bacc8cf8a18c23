"""List and remove whole feature sets of a store, for `bench cache`. This module imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench import typed
from bench.features.key import FeatureKey
from bench.features.shard import ABANDONED, MANIFEST, Manifest
from bench.typed import Odd

KEY = "key.json"  # the name of the key's file in the folder of every set


@dataclass(frozen=True)
class FeatureSet:
    """A feature set on disk: key, shard manifests, bytes and time of its last change.

    ``bytes`` includes abandoned files.
    """

    folder: Path
    key: FeatureKey
    manifests: tuple[Path, ...]
    bytes: int
    changed: float

    def rows(self) -> int:
        """Return how many rows the shards hold by their manifests.

        A path that was encoded twice counts twice.
        """
        rows = 0
        for manifest in self.manifests:
            with suppress(Odd, FileNotFoundError):  # it is damaged or was just deleted, so nobody reads it
                rows += len(typed.json(manifest, Manifest).paths)
        return rows


def feature_sets(root: Path, report: Callable[[str], None]) -> list[FeatureSet]:
    """Return the feature sets below ``root``, by folder name. Folders that no store made are not listed.

    ``report`` is called with a line for each set whose key cannot be read.
    """
    sets = []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        try:
            key = typed.json(folder / KEY, FeatureKey)
        except OSError:
            continue
        except Odd as why:
            report(f"{why}: these features are not listed until a run uses them and mends the file")
            continue
        if key.folder != folder.name:
            continue
        stats = []
        for file in _files(folder):
            with suppress(FileNotFoundError):  # a writer has just renamed it
                stats.append(file.stat())
        sets.append(
            FeatureSet(
                folder,
                key,
                tuple(sorted(file for file in folder.iterdir() if MANIFEST.fullmatch(file.name))),
                sum(stat.st_size for stat in stats),
                max((stat.st_mtime for stat in stats), default=0.0),
            )
        )
    return sets


def remove(stored: FeatureSet) -> int:
    """Delete a feature set and return the bytes freed.

    Manifests are deleted first, so that no half of a shard is ever trusted.
    """
    for file in sorted(_files(stored.folder), key=lambda file: (file.suffix != ".json", file.name)):
        file.unlink(missing_ok=True)
    # This fails if something else lies in the folder, or if another process writes there again.
    with suppress(OSError):
        stored.folder.rmdir()
    return stored.bytes


def _files(folder: Path) -> list[Path]:
    """List the files of a feature set that a store wrote."""
    ours = (MANIFEST, ABANDONED)
    return [
        file for file in folder.iterdir() if file.name == KEY or any(p.fullmatch(file.name) for p in ours)
    ]
