"""Each image x view is encoded once, with the tower's values, whatever the batches, workers and
interruptions.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from feature_fakes import NoiseSource, TinyTower, dataset
from PIL import Image

from bench.clip import backbone
from bench.data.views import bank, render
from bench.errors import BenchError
from bench.features import forward, wanted
from bench.features.encode import EncodeReport, Wanted, encode, in_pieces, keys, stream, stream_views
from bench.features.store import FeatureStore
from bench.files import read_json

ROOT = Path(__file__).resolve().parents[2]
TRAIN = tuple(f"train/{i}.png" for i in range(7))
TEST = tuple(f"test/{i}.png" for i in range(11))
VIEWS = bank(0.5, 3)
REQUESTS = [
    Wanted(TRAIN, {"eval": {"dense"}, "flip": {"dense"}, **{view: {"pooled"} for view in VIEWS}}),
    Wanted(TEST, {"eval": {"pooled", "dense"}}),
    Wanted(TRAIN[2:5], {"eval": {"pooled"}, "flip": {"dense"}}),
]
ENCODES = 7 * 5 + 11


@pytest.fixture
def images(tmp_path: Path) -> Any:
    return dataset(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "store")


def expected(tower: TinyTower, images: Any, path: str, view: str, tap: str) -> np.ndarray:
    pixels = render(images.source.open(path), view, path, tower.size)
    how = tower.spec.preprocess
    x = (
        torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255 - torch.tensor(how.mean).view(3, 1, 1)
    ) / torch.tensor(how.std).view(3, 1, 1)
    return TinyTower().encode_images(x[None], [tap])[tap][0].half().numpy()


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_every_image_and_view_exactly_once_then_never_again(
    images: Any, store: FeatureStore, batch: int
) -> None:
    tower, seen = TinyTower(), []
    report = encode(tower, images, REQUESTS, store, batch=batch, progress=lambda *now: seen.append(now))
    assert (report.images, report.encodes) == (18, ENCODES)
    assert {rows for rows, _ in tower.calls} == {batch}, "batches of one shape"
    assert ENCODES <= tower.rows < ENCODES + 2 * batch, "two pieces, of which each fills up its last batch"
    assert Counter(images.source.opened()) == Counter([*TRAIN, *TEST])
    assert all(total == ENCODES for _, total in seen) and seen[-1][0] == ENCODES
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})

    before = tower.rows
    again = encode(tower, images, REQUESTS, FeatureStore(store.root), batch=batch)
    assert (again.images, again.encodes, again.images_per_second, tower.rows) == (0, 0, 0.0, before)
    assert len(images.source.opened()) == 18


def test_stored_rows_are_the_towers_values_of_each_view(images: Any, store: FeatureStore) -> None:
    tower = TinyTower()
    encode(tower, images, REQUESTS, store, batch=5)
    key_of = keys(tower, images, 5)
    for paths, view, tap in [
        (TRAIN, "eval", "dense"),
        (TRAIN, "flip", "dense"),
        (TRAIN, VIEWS[2], "pooled"),
        (TEST, "eval", "pooled"),
        (TRAIN[2:5], "eval", "pooled"),
    ]:
        got = store.read(key_of(tap, view), paths)
        wanted = np.stack([expected(tower, images, path, view, tap) for path in paths])
        np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=2e-3)
    assert store.missing(key_of("pooled", "eval"), TRAIN) == [TRAIN[i] for i in (0, 1, 5, 6)], (
        "nothing unasked"
    )
    assert store.missing(key_of("dense", VIEWS[0]), TRAIN) == list(TRAIN)


def test_pixels_reach_the_tower_exactly_as_open_clip_prepares_them(images: Any, store: FeatureStore) -> None:
    open_clip = pytest.importorskip("open_clip")
    tower, seen = TinyTower(), []
    tower.encode_images = lambda x, taps: seen.append(x.clone()) or {"pooled": x.mean((2, 3))}  # type: ignore
    encode(tower, images, [Wanted(TEST, {"eval": {"pooled"}})], store)
    how = tower.spec.preprocess
    theirs = open_clip.image_transform(tower.size, is_train=False, mean=how.mean, std=how.std)
    assert torch.equal(seen[0][: len(TEST)], torch.stack([theirs(images.source.open(path)) for path in TEST]))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_features_do_not_depend_on_the_batch(images: Any, tmp_path: Path) -> None:
    tower, results = TinyTower(), []
    for batch in (1, 3, 64):
        store = FeatureStore(tmp_path / str(batch))
        encode(tower, images, REQUESTS, store, batch=batch)
        results.append(store.read(keys(tower, images, batch)("dense", "flip"), TRAIN).astype(np.float32))
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=2e-3, atol=2e-3)


def test_only_what_is_missing_is_encoded(images: Any, store: FeatureStore) -> None:
    tower = TinyTower()
    encode(tower, images, [Wanted(TEST[:6], {"eval": {"dense"}})], store)
    report = encode(
        tower, images, [Wanted(TEST, {"eval": {"dense"}}), Wanted(TEST[5:7], {"flip": {"dense"}})], store
    )
    assert (report.images, report.encodes) == (6, 5 + 2)
    assert store.missing(keys(tower, images)("dense", "eval"), TEST) == []


def test_a_repeated_image_and_two_spellings_of_a_view_count_once(images: Any, store: FeatureStore) -> None:
    twice = Wanted(("a", "b", "a"), {"rrc(0.5)#1": {"pooled"}, "rrc(0.50)#1": {"pooled"}})
    assert encode(TinyTower(), images, [twice, twice], store).encodes == 2


def test_worker_processes_give_the_same_rows_and_never_see_torch(images: Any, tmp_path: Path) -> None:
    rows = []
    for workers in (0, 2):
        store = FeatureStore(tmp_path / f"by{workers}")
        images.source.log.unlink(missing_ok=True)
        tower = TinyTower()
        report = encode(tower, images, REQUESTS, store, workers=workers, batch=4)
        assert (report.images, report.encodes) == (18, ENCODES)
        assert sorted(images.source.opened()) == sorted([*TRAIN, *TEST])
        rows.append(store.read(keys(tower, images, 4)("dense", "eval"), [*TEST, *TRAIN]))
    assert np.array_equal(*rows)
    assert not images.source.torch_seen()


@pytest.mark.slow
def test_a_script_that_imports_torch_and_guards_nothing_may_encode(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    here, log = str(Path(__file__).parent), str(tmp_path)
    script.write_text(
        f"import sys; sys.path[:0] = [{here!r}, {str(ROOT)!r}]\nimport torch\nfrom pathlib import Path\n"
        "from feature_fakes import TinyTower, dataset\nfrom bench.features.encode import stream\n"
        f"print('started')\ndata = dataset(Path({log!r}))\n"
        "print(sum(len(f['pooled']) for _, f in "
        "stream(TinyTower(), data, ['a', 'b'], 'eval', ['pooled'], workers=1)))"
    )
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["started", "2"], run.stderr
    assert not NoiseSource(tmp_path / "opened.log").torch_seen()


def test_encoding_modules_import_no_torch() -> None:
    code = (
        "import bench.features.encode, bench.features.decode, bench.cli.cache, sys; "
        "print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("bad", ["broken/9.jpg", "missing/9.jpg"])
def test_an_unreadable_image_is_named_and_finished_shards_stay(
    images: Any, store: FeatureStore, workers: int, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wanted, "SHARD_ROWS", 4)
    tower = TinyTower()
    with pytest.raises(BenchError, match=rf"cannot read the image {bad}"):
        encode(tower, images, [Wanted((*TEST, bad), {"eval": {"dense"}})], store, workers=workers, batch=1)
    key = keys(tower, images, 1)("dense", "eval")
    assert store.missing(key, TEST) == list(TEST[8:])
    assert not list((store.root / key.folder).glob("*.partial"))


def test_an_interruption_loses_the_open_shard_only(
    images: Any, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wanted, "SHARD_ROWS", 4)

    def stop(done: int, total: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    tower, both = TinyTower(), [Wanted(TEST, {"eval": {"dense"}})]
    with pytest.raises(KeyboardInterrupt):
        encode(tower, images, both, store, batch=2, progress=stop)
    key = keys(tower, images, 2)("dense", "eval")
    assert store.missing(key, TEST) == list(TEST[4:])
    assert encode(tower, images, both, store, batch=2).encodes == 7
    whole = FeatureStore(store.root.parent / "whole")
    encode(tower, images, both, whole, batch=2)
    assert np.array_equal(store.read(key, TEST), whole.read(key, TEST))


def test_a_full_disk_is_an_error_before_the_first_shard(
    images: Any, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FeatureStore, "free", lambda self: 1000)
    with pytest.raises(BenchError, match=r"need [0-9.]+ MB .* --cache DIR"):
        encode(TinyTower(), images, REQUESTS, store)
    assert not list(store.root.rglob("*.npy*"))


@pytest.mark.parametrize("scale", [1e9, float("nan")])
def test_values_beyond_half_precision_are_never_stored(
    images: Any, store: FeatureStore, scale: float
) -> None:
    with pytest.raises(BenchError, match=r"tap 'dense' of tiny reaches .* half precision"):
        encode(TinyTower(scale), images, [Wanted(TEST, {"eval": {"dense"}})], store)
    assert not list(store.root.rglob("*.npy*"))


@pytest.mark.parametrize("batch", [4, 32])
def test_streamed_features_equal_stored_ones(images: Any, store: FeatureStore, batch: int) -> None:
    tower = TinyTower()
    encode(tower, images, REQUESTS, store, batch=batch)
    key_of = keys(tower, images, batch)
    parts = list(stream(tower, images, TEST, "eval", {"dense", "pooled"}, batch=batch))
    assert [start for start, _ in parts] == list(range(0, len(TEST), batch))
    for tap in ("dense", "pooled"):
        whole = torch.cat([features[tap] for _, features in parts])
        assert whole.dtype == torch.float16 and np.array_equal(
            whole.numpy(), store.read(key_of(tap, "eval"), TEST)
        )


def test_several_streamed_views_share_one_decode(images: Any) -> None:
    tower, views = TinyTower(), {"eval": ["dense"], **{view: ["pooled"] for view in VIEWS}}
    rows: Counter[str] = Counter()
    for start, view, features in stream_views(tower, images, TEST, views, batch=9):
        (tap,) = views[view]
        for i, row in enumerate(features[tap]):
            wanted = expected(tower, images, TEST[start + i], view, tap)
            np.testing.assert_allclose(row.numpy(), wanted, rtol=2e-3, atol=2e-3)
        rows[view] += len(features[tap])
    assert rows == Counter(dict.fromkeys(views, len(TEST)))
    assert 0 <= tower.rows - len(TEST) * len(views) < 9


def test_streaming_opens_each_image_once_and_stores_nothing(images: Any, tmp_path: Path) -> None:
    list(stream_views(TinyTower(), images, TEST, {"eval": ["dense"], "flip": ["dense"]}))
    assert Counter(images.source.opened()) == Counter(TEST)
    assert not list(tmp_path.rglob("*.npy"))


def test_a_method_may_train_on_streamed_features(images: Any) -> None:
    _, features = next(iter(stream(TinyTower(), images, TEST, "eval", ["dense"])))
    weight = torch.ones(12, requires_grad=True)
    (features["dense"].float() @ weight).sum().backward()
    assert weight.grad is not None


def test_keys_follow_the_tower_and_the_dataset(images: Any, tmp_path: Path) -> None:
    tower = TinyTower()
    key = keys(tower, images)("dense", "rrc(0.50)#1")
    assert (key.weights, key.dataset, key.tap, key.view) == ("a" * 64, "d" * 64, "dense", "rrc(0.5)#1")
    assert (key.dtype, key.device, key.arch) == ("float32", "cpu", "Tiny-1/x")
    tower.dtype = torch.float16
    assert keys(tower, images)("dense", "eval").dtype == "float16"
    other = dataset(tmp_path, "e" * 64)
    assert keys(tower, other)("dense", "eval").folder != keys(tower, images)("dense", "eval").folder
    tower.spec.preprocess.mean = (0.5, 0.5, 0.5)
    assert keys(tower, images)("dense", "eval").preprocessing != key.preprocessing


def test_the_manifest_records_the_throughput(images: Any, store: FeatureStore) -> None:
    encode(TinyTower(), images, [Wanted(TEST, {"eval": {"dense"}})], store)
    (manifest,) = (file for file in store.root.rglob("*.json") if file.name != "key.json")
    assert read_json(manifest)["images_per_second"] > 0


def test_nothing_to_do_opens_nothing(images: Any, store: FeatureStore) -> None:
    assert encode(TinyTower(), images, [], store).encodes == 0
    assert encode(TinyTower(), images, [Wanted((), {"eval": {"dense"}})], store).encodes == 0
    assert list(stream(TinyTower(), images, [], "eval", ["dense"])) == []
    assert EncodeReport(0, 0, 0.0).images_per_second == 0.0


def test_abandoned_streams_end_their_workers(images: Any) -> None:
    import multiprocessing

    parts = stream(
        TinyTower(), images, [f"{i}.png" for i in range(200)], "eval", ["pooled"], workers=1, batch=2
    )
    next(parts)
    assert multiprocessing.active_children()
    parts.close()
    assert not multiprocessing.active_children()
    assert len(NoiseSource.opened(images.source)) < 200


def test_processes_start_only_for_much_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.features.decode import default_workers

    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert (default_workers(100), default_workers(100_000)) == ((0, 8), (16, 1))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    assert (default_workers(100), default_workers(100_000)) == ((0, 1), (1, 1))


@pytest.mark.parametrize("name", ["pocket-rn", "pocket-vit"])
def test_a_row_depends_neither_on_its_place_nor_on_its_neighbours(name: str) -> None:
    tower = backbone.load(backbone.resolve(name))
    side, draw = tower.image_size, np.random.default_rng(3)
    pixels = draw.integers(0, 256, (40, side, side, 3), np.uint8)

    def passed(rows: np.ndarray, taps: list[str]) -> dict[str, torch.Tensor]:
        piece = wanted.Piece(tuple(map(str, range(len(rows)))), (("eval", tuple(taps)),))
        source: Any = SimpleNamespace(open=lambda path: Image.fromarray(rows[int(path)]))
        parts = list(forward.encoded(tower, source, [piece], 0, 32))
        return {tap: torch.cat([part.taps[tap] for part in parts]) for tap in taps}

    whole = passed(pixels[:32], ["dense", "pooled"])
    order = draw.permutation(32)
    moved = passed(pixels[order], ["dense", "pooled"])
    among_others = passed(pixels[[39, 38, 37, *range(29)]], ["dense", "pooled"])
    for tap, rows in whole.items():
        assert torch.equal(moved[tap], rows[order])
        assert torch.equal(among_others[tap][3:], rows[:29])
        for few in (1, 3):  # the last batch of what a run left
            assert torch.equal(passed(pixels[:few], [tap])[tap], rows[:few])


@pytest.mark.parametrize("sizes", [[], [3], [4, 4], [1, 9, 2], [5, 5, 5]])
def test_rows_in_pieces_of_one_size(sizes: list[int]) -> None:
    rows = torch.arange(sum(sizes))
    pieces = list(in_pieces(iter(rows.split(sizes)), 4))
    assert [start for start, _ in pieces] == list(range(0, len(rows), 4))
    assert all(torch.equal(piece, rows[start : start + 4]) for start, piece in pieces)
