"""Keep features on disk: one folder per feature set, with shards inside, safe to share between processes.

Before its first use in a process, a shard is compared with its SHA-256. If it was cut short or altered, the
store reports and deletes it, and its images are encoded again. If two processes
want the same images encoded, one waits for the other. The sets that a process uses are kept from deletion
until it ends (``users``). This module imports no torch.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from io import FileIO
from pathlib import Path

import msgspec
import numpy as np

from bench import typed
from bench.data import seen
from bench.errors import BenchError
from bench.features.feature_sets import KEY, FeatureSet, feature_sets, remove
from bench.features.key import FeatureKey
from bench.features.shard import MANIFEST, Damaged, Shard, open_shard, sweep
from bench.features.users import Users
from bench.features.writer import ShardWriter
from bench.files import Stamp, stamp, write_bytes
from bench.files import sweep as sweep_stamps
from bench.paths import from_home

_log = logging.getLogger(__name__)
_Index = dict[str, tuple[Shard, int]]
_HEADER = 4096  # a generous bound on the bytes that a shard needs beside its rows


def default_root() -> Path:
    """Return ``$BENCH_CACHE``, else ``fewshot-clip-bench/features`` in the user's cache folder."""
    if chosen := os.environ.get("BENCH_CACHE"):
        return from_home(chosen)
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(
            os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME") or Path.home() / ".cache"
        )
    return base / "fewshot-clip-bench" / "features"


@dataclass(frozen=True)
class Cleared:
    """The outcome of ``clear``: the bytes freed, and the sets that stay because running processes use
    them.
    """

    freed: int
    left: tuple[FeatureSet, ...]


class FeatureStore:
    """The features on disk, float16, found by feature key and split-relative path.

    ``report`` is called with one line for each damaged shard; by default the line is logged as a warning.
    """

    def __init__(self, root: Path | None = None, report: Callable[[str], None] = _log.warning) -> None:
        self.root = Path(root) if root else default_root()
        self._report = report
        self.users = Users(self.root)
        self._shards: dict[Path, Shard] = {}
        self._indices: dict[str, tuple[list[int], _Index]] = {}
        self._rejected: set[Path] = set()
        self._named: set[str] = set()  # folders whose key file is known to exist

    def missing(self, key: FeatureKey, paths: Sequence[str]) -> list[str]:
        """Return the paths without a stored row, once each, in their order."""
        index = self._index(key)
        return [path for path in dict.fromkeys(paths) if path not in index]

    def read(self, key: FeatureKey, paths: Sequence[str]) -> np.ndarray:
        """Return the rows of ``paths``, float16 (n, ...), in memory.

        Raises BenchError if one is not stored.
        """
        for _, whole in self.slices(key, paths, max(1, len(paths))):
            return whole
        some = next(iter(self._index(key).values()), None)
        return np.empty((0, *(some[0].shape[1:] if some else ())), np.float16)

    def slices(
        self, key: FeatureKey, paths: Sequence[str], rows: int = 256
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the rows of ``paths`` in pieces of ``rows`` as (start, float16 array).

        One piece is in memory at a time. No paths give no pieces. Raises BenchError if a row is not stored.
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
                            files[shard.data] = stack.enter_context(shard.opened())
                        shard.read_into(files[shard.data], row, piece[first:last])
                    except (Damaged, FileNotFoundError) as why:
                        self.discard(shard.data.with_suffix(".json"), str(why))
                        raise BenchError(
                            f"{shard.data} changed while it was read: run the command again"
                        ) from why
                yield start, piece

    def writer(self, key: FeatureKey, paths: Sequence[str]) -> ShardWriter:
        """Return a context that writes the rows of ``paths`` (``write(start, rows)``).

        Its end makes them visible. If its body raises, or the process dies, nothing of it is ever read.
        """
        folder = self.root / key.folder
        folder.mkdir(parents=True, exist_ok=True)
        self.users.share(key.folder)
        folder.mkdir(exist_ok=True)  # another process may have cleared it in between
        self._write_key(key)
        sweep(folder)
        return ShardWriter(folder, paths, key)

    def encoding(self, key: FeatureKey, waits: Callable[[], None]) -> AbstractContextManager[None]:
        """Return a context in which no other process encodes images of the key's tower and dataset.

        ``waits`` is called once if another process does. If that process is killed or interrupted, this one
        goes on.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        return self.users.alone("encodes " + replace(key, tap="", view="").folder, waits)

    def tidy(self) -> None:
        """Delete what killed processes left half written."""
        sweep_stamps(self.root / seen.FOLDER)
        for folder in self.root.iterdir() if self.root.is_dir() else ():
            if (folder / KEY).exists():
                sweep(folder)

    def close(self) -> None:
        """Declare that this process uses nothing of the store any more."""
        self.users.close()

    def disk_need(self, key: FeatureKey, n: int, row_shape: Sequence[int]) -> int:
        """Return the bytes that ``n`` rows of ``row_shape`` take on disk as features of ``key``."""
        return len(key.folder) + _HEADER + n * (2 * math.prod(row_shape) + 64)  # 64: the path in the manifest

    def free(self) -> int:
        """Return the bytes that are free where the store lies or will lie."""
        folder = self.root.absolute()
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def feature_sets(self, pattern: str = "*") -> list[FeatureSet]:
        """Return the stored feature sets whose folder name matches the shell pattern, by name."""
        return [
            stored for stored in feature_sets(self.root, self._report) if fnmatch(stored.folder.name, pattern)
        ]

    def clear(self, pattern: str = "*") -> Cleared:
        """Delete the feature sets that match and that no other process uses.

        Only what a store wrote is deleted; other files and folders below the root are left alone. With the
        last features the stamps of their images are deleted too, unless a process uses the store.
        """
        freed, left = 0, []
        for stored in self.feature_sets(pattern):
            with self.users.unused(stored.folder.name) as free:
                if free:
                    freed += remove(stored)
                else:
                    left.append(stored)
        with self.users.unused("") as free:
            if free and not self.feature_sets():
                seen.clear(self.root)
        return Cleared(freed, tuple(left))

    def verify(self) -> int:
        """Hash every stored shard, report and delete damaged ones, and return how many were damaged."""
        damaged = 0
        for manifest, key in [(m, stored.key) for stored in self.feature_sets() for m in stored.manifests]:
            try:
                open_shard(manifest, key)
            except Damaged as why:
                self.discard(manifest, str(why))
                damaged += 1
        return damaged

    def _index(self, key: FeatureKey) -> _Index:
        """Return the shard and row of every stored path of a set."""
        folder = self.root / key.folder
        self.users.share(key.folder)
        names = [entry.name for entry in os.scandir(folder)] if folder.is_dir() else []
        manifests = sorted(folder / name for name in names if MANIFEST.fullmatch(name))
        if manifests:
            self._write_key(key)
        shards = {manifest: shard for manifest in manifests if (shard := self._checked(manifest, key))}
        # A shard stays the same object as long as its file does, so the same objects mean the same index.
        same = [id(shard) for shard in shards.values()]
        known = self._indices.get(key.folder)
        if known and known[0] == same:
            return known[1]
        index: _Index = {}
        for shard in shards.values():
            for row, path in enumerate(shard.paths):
                index.setdefault(path, (shard, row))
        self._indices[key.folder] = (same, index)
        return index

    def _checked(self, manifest: Path, key: FeatureKey) -> Shard | None:
        """Return the shard, or None if it must not be read.

        It is read through if it is new to this process, or if its file has changed since.
        """
        current: Stamp | None = None
        with suppress(OSError):
            current = stamp(manifest.with_suffix(".npy"))
        known = self._shards.get(manifest)
        if known and known.stamp == current:
            return known
        try:
            shard = open_shard(manifest, key)
        except Damaged as why:
            self._shards.pop(manifest, None)
            self.discard(manifest, str(why))
            return None
        self._shards[manifest] = shard
        return shard

    def _write_key(self, key: FeatureKey) -> None:
        """Write the key into the set's folder if it is missing there or cannot be read.

        Only listing the sets needs this file; reading features does not.
        """
        if key.folder in self._named:
            return
        file = self.root / key.folder / KEY
        try:
            told = typed.json(file, FeatureKey) == key
        except FileNotFoundError:
            told = False
        except typed.Odd as why:
            self._report(f"{why}: written again")
            told = False
        if not told:
            with suppress(OSError):  # a read-only store stays as it is; writing features will report that
                write_bytes(file, msgspec.json.format(msgspec.json.encode(key), indent=1) + b"\n")
        self._named.add(key.folder)

    def discard(self, manifest: Path, why: str) -> None:
        """Report a damaged shard and delete it. In a read-only store it stays, but it is not read."""
        if manifest not in self._rejected:
            self._report(
                f"stored features {manifest.with_suffix('.npy')} are damaged ({why}): encoding them again"
            )
        self._rejected.add(manifest)
        with suppress(OSError):
            manifest.unlink(missing_ok=True)
            manifest.with_suffix(".npy").unlink(missing_ok=True)


def _runs(places: Sequence[tuple[Shard, int]]) -> Iterator[tuple[int, int]]:
    """Yield stretches (first, last + 1) of places that follow each other in one shard; each is one read."""
    first = 0
    for i in range(1, len(places) + 1):
        if i == len(places) or places[i][0] is not places[i - 1][0] or places[i][1] != places[i - 1][1] + 1:
            yield first, i
            first = i
