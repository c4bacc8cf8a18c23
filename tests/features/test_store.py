"""The store returns what was written, and never anything torn, altered or half written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.features import shard as shards
from bench.features import store as stores
from bench.features.key import FeatureKey
from bench.features.store import Cleared, FeatureStore, default_root
from bench.files import read_json, sha256_file

ROOT = Path(__file__).resolve().parents[2]
KEY = FeatureKey(
    "RN50-quickgelu", "ab" * 32, "v1-shortest224-bicubic-12345678", "cd" * 32, "dense", "rrc(0.5)#3"
)
PATHS = [f"class {i % 3}/ü{i}.jpg" for i in range(10)]


def rows(paths: list[str], shape: tuple[int, ...] = (3, 4)) -> np.ndarray:
    return np.stack([np.random.default_rng(sum(p.encode())).normal(size=shape) for p in paths]).astype(
        np.float16
    )


def fill(store: FeatureStore, paths: list[str] = PATHS, key: FeatureKey = KEY, step: int = 4) -> np.ndarray:
    values = rows(paths)
    with store.writer(key, paths) as writer:
        for start in range(0, len(paths), step):
            writer.write(start, values[start : start + step])
    return values


def in_another_process(store: FeatureStore, line: str) -> subprocess.Popen[bytes]:
    here, root = str(Path(__file__).parent), str(store.root)
    setup = f"import os, sys; sys.path.insert(0, {here!r}); from test_store import *"
    code = f"{setup}; store = FeatureStore(Path({root!r}))\n{line}"
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)


def data_file(store: FeatureStore, key: FeatureKey = KEY) -> Path:
    (file,) = (store.root / key.folder).glob("*.npy")
    return file


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, reports: list[str]) -> FeatureStore:
    return FeatureStore(tmp_path / "store", reports.append)


def test_rows_come_back_in_any_order_with_repeats(store: FeatureStore) -> None:
    values = fill(store)
    order = [7, 0, 1, 2, 2, 9, 8]
    got = store.read(KEY, [PATHS[i] for i in order])
    assert got.dtype == np.float16 and np.array_equal(got, values[order])
    assert store.missing(KEY, ["new", PATHS[3], "new", "other"]) == ["new", "other"]


def test_slices_equal_read_across_shards(store: FeatureStore) -> None:
    fill(store, PATHS[:4])
    fill(store, PATHS[4:])
    mixed = [PATHS[i] for i in (5, 0, 9, 3, 4, 1)]
    pieces = list(store.slices(KEY, mixed, rows=4))
    assert [start for start, _ in pieces] == [0, 4]
    assert np.array_equal(np.concatenate([piece for _, piece in pieces]), rows(mixed))


def test_the_data_file_is_a_plain_array_that_numpy_maps(store: FeatureStore) -> None:
    values = fill(store)
    mapped = np.load(data_file(store), mmap_mode="r", allow_pickle=False)
    assert isinstance(mapped, np.memmap) and np.array_equal(mapped, values)
    about = read_json(data_file(store).with_suffix(".json"))
    assert about["paths"] == PATHS and about["shape"] == [10, 3, 4] and about["dtype"] == "float16"
    assert about["bytes"] == data_file(store).stat().st_size and about["sha256"] == sha256_file(
        data_file(store)
    )


@given(st.permutations(range(5)))
@settings(max_examples=10, deadline=None)
def test_rows_may_be_written_in_any_order(tmp_path_factory: pytest.TempPathFactory, order: list[int]) -> None:
    store, values = FeatureStore(tmp_path_factory.mktemp("store")), rows(PATHS)
    with store.writer(KEY, PATHS) as writer:
        for i in order:
            writer.write(2 * i, values[2 * i : 2 * i + 2])
    assert np.array_equal(FeatureStore(store.root).read(KEY, PATHS), values)
    assert store.verify() == 0


def test_reading_what_is_absent_is_an_error_that_names_it(store: FeatureStore) -> None:
    fill(store)
    with pytest.raises(
        BenchError, match=r"'dense' of view 'rrc\(0.5\)#3' are not stored for 1 of 2 images, first new"
    ):
        store.read(KEY, [PATHS[0], "new"])


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def grow(file: Path) -> None:
    with file.open("ab") as handle:
        handle.write(b"\0")


def flip_a_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(time.time_ns(), file.stat().st_mtime_ns + 1))


def cut_the_manifest(file: Path) -> None:
    os.truncate(file.with_suffix(".json"), 100)


def rename_a_row(file: Path) -> None:
    manifest = file.with_suffix(".json")
    manifest.write_text(manifest.read_text().replace("ü3", "ü4711"))


def lose_the_data(file: Path) -> None:
    file.unlink()


DAMAGES = [truncate, grow, flip_a_byte, cut_the_manifest, rename_a_row, lose_the_data]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_reported_deleted_and_rebuilt(
    store: FeatureStore, reports: list[str], damage
) -> None:
    fill(store)
    file = data_file(store)
    damage(file)
    fresh = FeatureStore(store.root, reports.append)
    assert fresh.missing(KEY, PATHS) == PATHS
    assert len(reports) == 1 and str(file) in reports[0] and "damaged" in reports[0]
    assert not file.exists() and not file.with_suffix(".json").exists()
    values = fill(fresh)
    assert np.array_equal(fresh.read(KEY, PATHS), values) and len(reports) == 1


@pytest.mark.parametrize("damage", [truncate, flip_a_byte, lose_the_data])
def test_damage_is_seen_by_a_store_that_is_already_open(
    store: FeatureStore, reports: list[str], damage
) -> None:
    fill(store)
    store.read(KEY, PATHS)
    damage(data_file(store))
    with pytest.raises(BenchError, match="not stored for 10 of 10"):
        store.read(KEY, PATHS)
    assert len(reports) == 1


def test_verify_finds_damage_that_hides_its_traces(store: FeatureStore, reports: list[str]) -> None:
    fill(store)
    file = data_file(store)
    before = file.stat().st_mtime_ns
    flip_a_byte(file)
    os.utime(file, ns=(before, before))
    assert store.verify() == 1 and len(reports) == 1 and store.missing(KEY, PATHS) == PATHS


def test_a_copied_store_is_read_and_every_shard_is_hashed_once(
    store: FeatureStore, reports: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = fill(store)
    copy = shutil.copytree(store.root, tmp_path / "copy", copy_function=shutil.copyfile)
    checked: list[Path] = []
    monkeypatch.setattr(stores, "open_shard", lambda m, key: checked.append(m) or shards.open_shard(m, key))
    copied = FeatureStore(copy, reports.append)
    for _ in range(2):
        assert np.array_equal(copied.read(KEY, PATHS), values)
    assert len(checked) == 1 and reports == []


def test_an_error_while_writing_leaves_no_trace(store: FeatureStore) -> None:
    with pytest.raises(RuntimeError, match="lost power"), store.writer(KEY, PATHS) as writer:
        writer.write(0, rows(PATHS[:9]))
        assert store.missing(KEY, PATHS) == PATHS
        raise RuntimeError("lost power")
    assert [file.name for file in (store.root / KEY.folder).iterdir()] == ["key.json"]


def test_a_shard_with_a_row_left_out_is_not_accepted(store: FeatureStore) -> None:
    with pytest.raises(AssertionError, match="before all its rows"), store.writer(KEY, PATHS) as writer:
        writer.write(0, rows(PATHS[:9]))
    assert store.missing(KEY, PATHS) == PATHS


def test_a_failed_rename_of_the_manifest_leaves_nothing_readable(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, value: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        fill(store, ["other"])
        patch.setattr("bench.features.writer.write_bytes", refuse)
        with pytest.raises(OSError, match="no space"):
            fill(store)
    assert store.missing(KEY, PATHS) == PATHS


def test_a_killed_writers_files_are_swept_and_a_living_ones_are_not(store: FeatureStore) -> None:
    writing = "with store.writer(KEY, PATHS) as w: w.write(0, rows(PATHS[:5])); os.kill(os.getpid(), 9)"
    assert in_another_process(store, writing).wait(60) == -signal.SIGKILL
    folder = store.root / KEY.folder
    (left,) = folder.glob("*.partial")
    assert store.missing(KEY, PATHS) == PATHS
    with store.writer(KEY, ["living"]) as writer:
        assert not left.exists()
        shards.sweep(folder)
        writer.write(0, rows(["living"]))
    assert store.missing(KEY, ["living"]) == []
    shards.sweep(folder)
    assert store.missing(KEY, ["living"]) == []


def test_data_without_a_manifest_is_swept(store: FeatureStore) -> None:
    fill(store)
    file = data_file(store)
    file.with_suffix(".json").unlink()
    shards.sweep(file.parent)
    assert not file.exists()


def test_two_writers_of_the_same_images_do_each_other_no_harm(
    store: FeatureStore, reports: list[str]
) -> None:
    barrier, errors = threading.Barrier(2), []

    def work() -> None:
        try:
            own = FeatureStore(store.root, reports.append)
            for i in range(10):
                barrier.wait(10)
                fill(own, [f"{i}-{path}" for path in PATHS])
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    paths = [f"{i}-{path}" for i in range(10) for path in PATHS]
    assert errors == [] and reports == []
    assert np.array_equal(store.read(KEY, paths), rows(paths))
    assert store.verify() == 0


def test_two_processes_share_a_store(store: FeatureStore, reports: list[str]) -> None:
    work = "for i in range({0}, {0} + 10): fill(store, [f'{{i}}-{{p}}' for p in PATHS])"
    processes = [in_another_process(store, work.format(first)) for first in (0, 5)]
    assert [process.wait(60) for process in processes] == [0, 0]
    paths = [f"{i}-{path}" for i in range(15) for path in PATHS]
    assert np.array_equal(store.read(KEY, paths), rows(paths)) and reports == []


def test_every_part_of_the_key_has_its_own_folder() -> None:
    changes = {
        "arch": "RN50",
        "weights": "0" * 64,
        "preprocessing": "v1-shortest224-bicubic-00000000",
        "dataset": "0" * 64,
        "tap": "pooled",
        "view": "rrc(0.5,noflip)#3",
        "dtype": "float16",
        "device": "cuda",
        "batch": 32,
        "arithmetic": 1,
    }
    assert set(changes) == {field.name for field in fields(FeatureKey)}
    folders = {replace(KEY, **{name: value}).folder for name, value in changes.items()}
    assert len(folders | {KEY.folder}) == 1 + len(changes)
    assert KEY.folder == (
        "RN50-quickgelu_abababababab_v1-shortest224-bicubic-12345678_cdcdcdcdcdcd_dense_rrc0.5.3_float32_cpu"
    )


def test_views_do_not_share_folders() -> None:
    from bench.data.views import bank

    views = [
        "eval",
        "flip",
        *bank(0.5, 12),
        *bank(0.5, 12, flip=False),
        *bank(0.51, 3),
        *bank(1, 3),
        *bank(0.08, 3),
    ]
    assert len({replace(KEY, view=view).folder for view in views}) == len(views)


def test_disk_need_bounds_what_is_written(store: FeatureStore) -> None:
    paths = [f"class_{i:03}/image_{i:05}.jpg" for i in range(500)]
    need = store.disk_need(KEY, len(paths), (3, 4))
    fill(store, paths, step=100)
    written = sum(file.stat().st_size for file in (store.root / KEY.folder).iterdir())
    assert 500 * 24 < written <= need < written + 40_000


def test_entries_and_clear_touch_only_what_the_store_made(store: FeatureStore) -> None:
    pooled = replace(KEY, tap="pooled")
    fill(store)
    fill(store, key=pooled)
    mine = store.root / "holiday.npy"
    mine.write_bytes(b"mine")
    other = store.root / KEY.folder / "notes.txt"
    other.write_text("mine too")
    (store.root / "unrelated").mkdir()
    assert [(entry.key, entry.rows()) for entry in store.feature_sets()] == [(KEY, 10), (pooled, 10)]
    freed = store.feature_sets("*_pooled_*")[0].bytes
    assert store.clear("*_pooled_*") == Cleared(freed, ()) and freed > 10 * 24
    assert not (store.root / pooled.folder).exists()
    assert np.array_equal(store.read(KEY, PATHS), rows(PATHS))
    store.clear()
    assert store.feature_sets() == [] and store.missing(KEY, PATHS) == PATHS
    assert mine.exists() and other.exists() and (store.root / "unrelated").exists()


def test_default_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "here"))
    assert default_root() == tmp_path / "here" == FeatureStore().root
    monkeypatch.delenv("BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert default_root() == tmp_path / "fewshot-clip-bench" / "features"


def test_an_empty_request_reads_nothing(store: FeatureStore) -> None:
    fill(store)
    assert store.missing(KEY, []) == [] and list(store.slices(KEY, [])) == []
    assert store.read(KEY, []).shape == (0, 3, 4)
