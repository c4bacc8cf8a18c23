"""An image that ends the process that decodes it counts as unreadable, and does no other harm."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from feature_fakes import TinyTower, dataset

from bench.children import Child
from bench.errors import BenchError, UnreadableImage
from bench.features import decode
from bench.features.encode import Wanted, encode, keys
from bench.features.store import FeatureStore
from bench.run.session import Session

GOOD = tuple(f"test/{i}.png" for i in range(5))
KILLS = r"cannot read the image deadly/1: it ends the process that decodes it \(SIGKILL"


def test_it_is_named_and_the_others_are_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tower, images, store = TinyTower(), dataset(tmp_path), FeatureStore(tmp_path / "store")
    asked = [Wanted((*GOOD[:2], "deadly/1", *GOOD[2:]), {"eval": {"dense"}})]
    with pytest.raises(UnreadableImage, match=KILLS) as error:
        encode(tower, images, asked, store, workers=1)
    assert error.value.path == "deadly/1"
    # The look at all others runs in processes too: in this one it would end the tests.
    monkeypatch.setattr(decode, "_WORTH_PROCESSES", 1)
    session: Any = SimpleNamespace(backbone=lambda spec: tower, store=store, workers=None)
    bad = Session.unreadable(
        session, tower.spec, images, [*asked, Wanted(("broken/2",), {"eval": {"dense"}})]
    )
    assert list(bad) == ["deadly/1", "broken/2"]


def test_a_process_that_dies_once_costs_nothing(tmp_path: Path) -> None:
    """Whatever ended it, say a system that was short of memory."""
    tower, images, paths = TinyTower(), dataset(tmp_path), ("once/0", *GOOD)
    rows = []
    for workers in (1, 0):  # the second time it is opened once more
        store = FeatureStore(tmp_path / str(workers))
        assert encode(tower, images, [Wanted(paths, {"eval": {"dense"}})], store, workers=workers).images == 6
        rows.append(store.read(keys(tower, images)("dense", "eval"), paths))
    assert np.array_equal(*rows)


def test_processes_that_cannot_live_are_no_image_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = decode._Crew._start

    def dead(crew: Any) -> Child:
        child = original(crew)
        child.end()
        return child

    monkeypatch.setattr(decode._Crew, "_start", dead)
    with pytest.raises(BenchError, match="processes that decode images die") as error:
        decode.unreadable(dataset(tmp_path).source, GOOD, 1)
    assert not isinstance(error.value, UnreadableImage)
