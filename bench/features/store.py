"""The feature store: one folder per feature set, shards inside, safe to share between processes. No torch.

A shard that is torn or altered is reported and deleted, so that its images are encoded again; it is never
read. Two processes that encode the same images at once leave the same rows twice, which is harmless.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from fnmatch import fnmatch
from io import FileIO
from pathlib import Path

import numpy as np

from bench.data import seen
from bench.errors import BenchError
from bench.features.feature_sets import FeatureSet, feature_sets, remove
from bench.features.key import FeatureKey
from bench.features.shard import MANIFEST, Damaged, Shard, open_shard, sweep
from bench.features.writer import ShardWriter
from bench.files import write_json
from bench.paths import from_home

_log = logging.getLogger(__name__)
_Index = dict[str, tuple[Shard, int]]
_HEADER = 4096  # a generous bound on what a shard needs beside its rows


def default_root() -> Path:
    """``$BENCH_CACHE``, else ``fewshot-clip-bench/features`` in the user's cache folder."""
    if chosen := os.environ.get("BENCH_CACHE"):
        return from_home(chosen)
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(
            os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME") or Path.home() / ".cache"
        )
    return base / "fewshot-clip-bench" / "features"


class FeatureStore:
    """Features on disk, float16, found by feature key and split-relative path.

    ``report`` receives one line for each damaged shard; by default it is logged as a warning.
    """

    def __init__(self, root: Path | None = None, report: Callable[[str], None] = _log.warning) -> None:
        self.root = Path(root) if root else default_root()
        self._report = report
        self._shards: dict[Path, tuple[tuple[int, int], Shard]] = {}
        self._indices: dict[str, tuple[list[int], _Index]] = {}
        self._rejected: set[Path] = set()

    def missing(self, key: FeatureKey, paths: Sequence[str]) -> list[str]:
        """The paths without a stored row, once each, in their order."""
        index = self._index(key)
        return [path for path in dict.fromkeys(paths) if path not in index]

    def read(self, key: FeatureKey, paths: Sequence[str]) -> np.ndarray:
        """The rows of ``paths``, float16 (n, ...), in memory. Raises BenchError when one is not stored."""
        for _, whole in self.slices(key, paths, max(1, len(paths))):
            return whole
        some = next(iter(self._index(key).values()), None)
        return np.empty((0, *(some[0].shape[1:] if some else ())), np.float16)

    def slices(
        self, key: FeatureKey, paths: Sequence[str], rows: int = 256
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The rows of ``paths`` in pieces of ``rows``: (start, float16 array); one piece in memory at a time.

        Raises BenchError when a row is not stored. No paths give no pieces.
        """
        index = self._index(key)
        absent = [path for path in paths if path not in index]
        if absent:
            raise BenchError(
                f"features '{key.tap}' of view '{key.view}' are not stored "
                f"for {len(absent)} of {len(paths)} images, first {absent[0]}: mend what stopped "
                "their encoding (`bench data verify` finds damaged images) and run the command again"
            )
        with ExitStack() as stack:
            files: dict[Path, FileIO] = {}
            for start in range(0, len(paths), rows):
                places = [index[path] for path in paths[start : start + rows]]
                piece = np.empty((len(places), *places[0][0].shape[1:]), np.float16)
                for first, last in _runs(places):
                    shard, row = places[first]
                    try:
                        if shard.data not in files:
                            files[shard.data] = stack.enter_context(shard.data.open("rb", buffering=0))
                        shard.read_into(files[shard.data], row, piece[first:last])
                    except (Damaged, FileNotFoundError) as why:
                        self.discard(shard.data.with_suffix(".json"), str(why))
                        raise BenchError(
                            f"{shard.data} changed while it was read: run the command again"
                        ) from why
                yield start, piece

    def writer(self, key: FeatureKey, paths: Sequence[str]) -> ShardWriter:
        """A context that writes the rows of ``paths`` (``write(start, rows)``); its end makes them visible.

        If its body raises, or the process dies, nothing of it is ever read.
        """
        folder = self.root / key.folder
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "key.json").exists():
            write_json(folder / "key.json", asdict(key))
        sweep(folder, time.time())
        return ShardWriter(folder, paths, asdict(key))

    def disk_need(self, key: FeatureKey, n: int, row_shape: Sequence[int]) -> int:
        """Bytes that ``n`` rows of ``row_shape`` take on disk as features of ``key``."""
        return len(key.folder) + _HEADER + n * (2 * math.prod(row_shape) + 64)  # 64: the path in the manifest

    def free(self) -> int:
        """Bytes free where the store lies (or will lie)."""
        folder = self.root.absolute()
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def feature_sets(self, pattern: str = "*") -> list[FeatureSet]:
        """The stored feature sets whose folder name matches the shell pattern, by name."""
        return [stored for stored in feature_sets(self.root) if fnmatch(stored.folder.name, pattern)]

    def clear(self, pattern: str = "*") -> int:
        """Delete the feature sets that match, and return the bytes freed.

        Only what a store wrote is deleted: other files and folders below the root are left alone. With the
        last features go the stamps of the images that they were made of.
        """
        freed = sum(remove(stored) for stored in self.feature_sets(pattern))
        if not self.feature_sets():
            seen.clear(self.root)
        return freed

    def verify(self) -> int:
        """Hash every stored shard; damaged ones are reported and deleted. The number of damaged shards."""
        damaged = 0
        for manifest in [manifest for stored in self.feature_sets() for manifest in stored.manifests]:
            try:
                open_shard(manifest, deep=True)
            except Damaged as why:
                self.discard(manifest, str(why))
                damaged += 1
        return damaged

    def _index(self, key: FeatureKey) -> _Index:
        folder = self.root / key.folder
        names = [entry.name for entry in os.scandir(folder)] if folder.is_dir() else []
        manifests = sorted(folder / name for name in names if MANIFEST.fullmatch(name))
        shards = {manifest: shard for manifest in manifests if (shard := self._checked(manifest))}
        # A shard stays the same object as long as its file does, so the same objects mean the same index.
        stamp = [id(shard) for shard in shards.values()]
        known = self._indices.get(key.folder)
        if known and known[0] == stamp:
            return known[1]
        index: _Index = {}
        for shard in shards.values():
            for row, path in enumerate(shard.paths):
                index.setdefault(path, (shard, row))
        self._indices[key.folder] = (stamp, index)
        return index

    def _checked(self, manifest: Path) -> Shard | None:
        """The shard if it may be read; checked in full when it is new or its file has changed since."""
        try:
            stat = manifest.with_suffix(".npy").stat()
            stamp = (stat.st_size, stat.st_mtime_ns)
        except OSError:
            stamp = (-1, -1)
        known = self._shards.get(manifest)
        if known and known[0] == stamp:
            return known[1]
        try:
            shard = open_shard(manifest)
        except Damaged as why:
            self._shards.pop(manifest, None)
            self.discard(manifest, str(why))
            return None
        self._shards[manifest] = (stamp, shard)
        return shard

    def discard(self, manifest: Path, why: str) -> None:
        """Report a damaged shard and delete it; where the store is read-only it stays, unread."""
        if manifest not in self._rejected:
            self._report(
                f"stored features {manifest.with_suffix('.npy')} are damaged ({why}): encoding them again"
            )
        self._rejected.add(manifest)
        with suppress(OSError):
            manifest.unlink(missing_ok=True)
            manifest.with_suffix(".npy").unlink(missing_ok=True)


def _runs(places: Sequence[tuple[Shard, int]]) -> Iterator[tuple[int, int]]:
    """Stretches (first, last + 1) of places that lie one after the other in one shard: each is one read."""
    first = 0
    for i in range(1, len(places) + 1):
        if i == len(places) or places[i][0] is not places[i - 1][0] or places[i][1] != places[i - 1][1] + 1:
            yield first, i
            first = i
