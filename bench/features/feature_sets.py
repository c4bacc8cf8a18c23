"""What a feature store holds, for `bench cache`: listing and removing whole feature sets. No torch."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.features.key import FeatureKey
from bench.features.shard import ABANDONED, MANIFEST
from bench.files import read_json


@dataclass(frozen=True)
class FeatureSet:
    """A feature set on disk: key, shard manifests, bytes (abandoned files too) and time of last change."""

    folder: Path
    key: FeatureKey
    manifests: tuple[Path, ...]
    bytes: int
    changed: float

    def rows(self) -> int:
        """How many rows the shards hold; a path that two processes encoded at once counts twice."""
        return sum(len(read_json(manifest)["paths"]) for manifest in self.manifests)


def feature_sets(root: Path) -> list[FeatureSet]:
    """The feature sets below ``root``, by folder name. Folders that no store made are not listed."""
    sets = []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        try:
            key = FeatureKey(**read_json(folder / "key.json"))
        except (OSError, ValueError, TypeError):
            continue
        if key.folder != folder.name:
            continue
        stats = [file.stat() for file in _files(folder)]
        sets.append(
            FeatureSet(
                folder,
                key,
                tuple(sorted(file for file in folder.iterdir() if MANIFEST.fullmatch(file.name))),
                sum(stat.st_size for stat in stats),
                max(stat.st_mtime for stat in stats),
            )
        )
    return sets


def remove(stored: FeatureSet) -> int:
    """Delete a feature set, manifests first so that no half of a shard is ever trusted; the bytes freed."""
    for file in sorted(_files(stored.folder), key=lambda file: (file.suffix != ".json", file.name)):
        file.unlink(missing_ok=True)
    with suppress(OSError):  # something else lies in the folder, or another process writes there again
        stored.folder.rmdir()
    return stored.bytes


def _files(folder: Path) -> list[Path]:
    ours = (MANIFEST, ABANDONED)
    return [
        file
        for file in folder.iterdir()
        if file.name == "key.json" or any(p.fullmatch(file.name) for p in ours)
    ]
