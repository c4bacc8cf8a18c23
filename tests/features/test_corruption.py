"""Tests with damage of every kind at random places.

A store gives the rows that were written, or says that it has none. Weights are those that were named.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_store import KEY, PATHS, fill, rows

from bench.clip import backbone, weights
from bench.errors import BenchError
from bench.features.store import FeatureStore

POOLED = replace(KEY, tap="pooled")
Damage = Callable[[Path, Path, random.Random], None]  # (a shard, the same images' shard of another set, ...)


def flip(file: Path, _: Path, draw: random.Random, keep_time: bool = True) -> None:
    stat, data = file.stat(), bytearray(file.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    file.write_bytes(data)
    if keep_time:
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def flip_now(file: Path, other: Path, draw: random.Random) -> None:
    flip(file, other, draw, keep_time=False)


def truncate(file: Path, _: Path, draw: random.Random) -> None:
    os.truncate(file, draw.randrange(file.stat().st_size))


def zeros(file: Path, _: Path, draw: random.Random) -> None:
    stat, start = file.stat(), draw.randrange(file.stat().st_size - 8)
    data = bytearray(file.read_bytes())
    data[start : start + 8] = bytes(8)
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def swap_data(file: Path, other: Path, _: random.Random) -> None:
    mine, theirs = file.read_bytes(), other.read_bytes()
    file.write_bytes(theirs)
    other.write_bytes(mine)


def swap_both(file: Path, other: Path, draw: random.Random) -> None:
    swap_data(file, other, draw)
    swap_data(file.with_suffix(".json"), other.with_suffix(".json"), draw)


def move_both(file: Path, other: Path, _: random.Random) -> None:
    for suffix in (".npy", ".json"):
        shutil.move(file.with_suffix(suffix), other.parent / file.with_suffix(suffix).name)


def in_manifest(file: Path, other: Path, draw: random.Random, kind: Damage = flip) -> None:
    kind(file.with_suffix(".json"), other.with_suffix(".json"), draw)


def cut_manifest(file: Path, other: Path, draw: random.Random) -> None:
    in_manifest(file, other, draw, truncate)


def swap_manifests(file: Path, other: Path, draw: random.Random) -> None:
    in_manifest(file, other, draw, swap_data)


ODD: dict[str, list[object]] = {
    "schema": [0, 2, "1", None],
    "key": [{}, None, {"arch": "RN50"}],
    "shape": [[5, 3, 4], [10, 4, 3], [10, 12], [], [10, 3, -4], [1e9], None, "10"],
    "dtype": ["float32", "object", 2],
    "offset": [0, 64, 130, -128, 1 << 70, "128", None],
    "bytes": [0, -1, 10**30, None],
    "sha256": ["", "0" * 64, 5],
    "paths": [PATHS[::-1], PATHS[:9], [], [1] * 10, {"a": 1}, None],
}


def odd_field(file: Path, _: Path, draw: random.Random) -> None:
    manifest = file.with_suffix(".json")
    about = json.loads(manifest.read_text())
    name = draw.choice([*ODD])
    if draw.random() < 0.1:
        del about[name]
    else:
        about[name] = draw.choice(ODD[name])
    manifest.write_text(json.dumps(about))


def odd_key(file: Path, _: Path, draw: random.Random) -> None:
    kinds = ["", "[]", "{", "null", '{"arch": 5}', '{"arch": "x"}', "\udcff"]
    (file.parent / "key.json").write_text(draw.choice(kinds), errors="surrogateescape")


DAMAGES: list[Damage] = [flip, flip_now, truncate, zeros, swap_data, swap_both, move_both, in_manifest]
DAMAGES += [cut_manifest, swap_manifests, odd_field, odd_field, odd_key]


@pytest.mark.parametrize("damage", dict.fromkeys(DAMAGES), ids=lambda damage: damage.__name__)
def test_no_damage_gives_other_rows(damage: Damage, tmp_path: Path) -> None:
    values = {KEY: rows(PATHS), POOLED: rows(PATHS[::-1])[::-1] * 2}
    for seed in range(24 if damage is odd_field else 8):
        root, said = tmp_path / str(seed), list[str]()
        for key, array in values.items():
            with FeatureStore(root).writer(key, PATHS) as writer:
                writer.write(0, array)
        shards = {key: next((root / key.folder).glob("*.npy")) for key in values}
        damage(shards[KEY], shards[POOLED], random.Random(f"{damage.__name__} {seed}"))
        store = FeatureStore(root, said.append)
        if damage is not odd_key:
            assert len(store.feature_sets()) == 2
        assert all(stored.rows() >= 0 for stored in store.feature_sets())
        for key, array in values.items():
            lacking = store.missing(key, PATHS)
            assert lacking in ([], PATHS)
            assert not lacking or damage is move_both or any(key.folder in line for line in said)
            if lacking:
                with store.writer(key, lacking) as writer:
                    writer.write(0, array)
            np.testing.assert_array_equal(store.read(key, PATHS), array)
        assert all("\n" not in line for line in said)
        again = list[str]()
        assert FeatureStore(root, again.append).missing(KEY, PATHS) == [] and again == [], "it was mended"
        assert len(FeatureStore(root, again.append).feature_sets()) == 2 and again == []


def test_damage_of_a_shard_that_is_in_use_is_told(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    values = fill(store)
    pieces = store.slices(KEY, PATHS, rows=4)
    next(pieces)
    np.testing.assert_array_equal(next(pieces)[1], values[4:8])
    flip(next((tmp_path / KEY.folder).glob("*.npy")), tmp_path, random.Random(1))
    with pytest.raises(BenchError, match="not stored"):
        store.read(KEY, PATHS)


@pytest.fixture
def weights_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The embedded ResNet's weights in a file of the user, large enough for its hash to be remembered."""
    file = Path(shutil.copy(backbone.resolve("pocket-rn").file, tmp_path / "mine.safetensors"))
    monkeypatch.setattr(weights, "_SMALL", 0)
    return file


@pytest.mark.parametrize("damage", [flip, flip_now, zeros, truncate])
def test_weights_that_were_changed_since_they_were_hashed_are_refused(
    damage: Damage, weights_file: Path
) -> None:
    name = f"pocket-rn@{weights_file}"
    spec = backbone.resolve(name)
    backbone.load(spec)
    for seed in range(3):
        damage(weights_file, weights_file, random.Random(seed))
        with pytest.raises(BenchError, match="changed or damaged since it was hashed"):
            backbone.load(spec)


def test_a_remembered_hash_that_is_not_the_files_is_forgotten(weights_file: Path) -> None:
    name = f"pocket-rn@{weights_file}"
    before = backbone.resolve(name)
    stat, data = weights_file.stat(), bytearray(weights_file.read_bytes())
    data[-1] ^= 1
    weights_file.write_bytes(data)
    os.utime(weights_file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert backbone.resolve(name).digest == before.digest, "size and time are what they were"
    with pytest.raises(BenchError, match="fetch or copy it again"):
        backbone.load(backbone.resolve(name))
    after = backbone.resolve(name)
    assert after.digest != before.digest
    backbone.load(after)


@pytest.mark.parametrize("odd", ["", "[]", "{", '{"size": "1"}', "\0", '{"sha256": 5}'])
def test_an_odd_memo_is_made_again(weights_file: Path, odd: str) -> None:
    want = weights.file_hash(weights_file)
    weights.memo_of(weights_file).write_text(odd)
    assert weights.file_hash(weights_file) == want
    assert json.loads(weights.memo_of(weights_file).read_text())["sha256"] == want
