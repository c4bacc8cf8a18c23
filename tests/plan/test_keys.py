"""Keys: a change of anything that may change a number changes the key, and nothing else does (architecture
1).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.data import catalog
from bench.data.dataset import Dataset
from bench.interface import Method
from bench.plan import planner
from bench.plan.cells import Planned
from bench.plan.request import Request
from bench.records import places
from bench.registry import Registry, builtin

BASE = {
    "methods": ("safe",),
    "datasets": ("shapes",),
    "shots": (2,),
    "seeds": (1,),
    "backbones": ("pocket-rn",),
    "prompts": ("hand",),
}


@pytest.fixture(scope="module")
def shapes(images: Path) -> Dataset:
    return catalog.find(str(images), None)


def keys(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, registry: Registry | None = None, **changes: object
) -> Planned:
    """The one fit of the base request with changes."""
    monkeypatch.setattr(catalog, "find", lambda *_, **__: dataset)
    request = Request(**{**BASE, **changes})  # type: ignore[arg-type]
    (fit,) = [f for f in planner.make(request, registry or builtin()).fits if f.asked]
    return fit


MOVES: dict[str, dict[str, object]] = {
    "shots": {"shots": (1,)},
    "seed": {"seeds": (2,)},
    "backbone": {"backbones": ("pocket-vit",)},
    "prompts": {"prompts": ("class-name",)},
    "preset": {"preset": "paper"},
    "protocol": {"protocol": "no-val"},
    "oracle": {"protocol": "test-oracle"},
    "setting": {"overrides": {"safe": {"steps": 7}}},
    "learning rate": {"overrides": {"safe": {"lr": (1e-3,)}}},
    "views": {"overrides": {"safe": {"augment": "none"}}},
    "check values": {"overrides": {"safe": {"select_with_blend": True}}},
}
STAYS: dict[str, dict[str, object]] = {
    "results folder": {"results": Path("elsewhere")},
    "data root": {"data_root": Path("/data")},
    "targets": {"targets": True},
    "more seeds of it": {"seeds": (1, 1)},
    "inference value": {"overrides": {"safe": {"beta": 0.9}}},
    "another method's setting": {"overrides": {"tip-adapter": {"key_views": 2}}},
}


@pytest.mark.parametrize("name", MOVES)
def test_moves(name: str, shapes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert keys(shapes, monkeypatch).key != keys(shapes, monkeypatch, **MOVES[name]).key


@pytest.mark.parametrize("name", STAYS)
def test_stays(name: str, shapes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert keys(shapes, monkeypatch).key == keys(shapes, monkeypatch, **STAYS[name]).key


def test_inference_values_move_the_evaluation(shapes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, swept = keys(shapes, monkeypatch), keys(shapes, monkeypatch, overrides={"safe": {"beta": 0.9}})
    assert plain.key == swept.key
    assert plain.evaluations[0].key != swept.evaluations[0].key


def test_a_moved_dataset_folder_keeps_the_key(
    shapes: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import shutil

    source = Path(str(shapes.spec.folders[0]))
    moved = tmp_path / "shapes"
    shutil.copytree(source, moved)
    monkeypatch.undo()
    again = catalog.find(str(moved), None)
    assert again.digest == shapes.digest
    assert keys(again, monkeypatch).key == keys(shapes, monkeypatch).key


def test_image_lists_and_weights_move(shapes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(shapes, monkeypatch)
    assert keys(replace(shapes, digest="0" * 64), monkeypatch).key != before.key
    spec = before.backbone
    monkeypatch.setattr(planner, "resolve", lambda *_: replace(spec, weights_hash="0" * 64))
    assert keys(shapes, monkeypatch).key != before.key


def test_version_moves_and_follows_dependants(shapes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_version(n: int) -> Registry:
        base = builtin()
        registry = Registry()
        registry.methods = {**base.methods}
        bumped: type[Method] = type("Safe", (type(base.get("safe")),), {"version": n})
        registry.methods["safe"] = bumped()
        return registry

    def key(method: str, n: int) -> str:
        return keys(shapes, monkeypatch, with_version(n), methods=(method,)).key

    assert key("safe", 1) != key("safe", 2)
    assert key("safe-a", 1) != key("safe-a", 2), "safe-a reads safe's state"
    assert key("tip-adapter", 1) == key("tip-adapter", 2)


def test_two_names_of_one_backbone_have_folders_of_their_own(
    shapes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another preset these are other fits; in the folder of the other name nobody would believe them."""
    spec = planner.resolve("pocket-rn")
    names = {"pocket-rn": spec, "mine": replace(spec, name="pocket-rn@mine.safetensors", preset="paper")}
    monkeypatch.setattr(planner, "resolve", lambda name, *_: names[name])
    monkeypatch.setattr(catalog, "find", lambda *_, **__: shapes)
    request = Request(**{**BASE, "backbones": tuple(names)})  # type: ignore[arg-type]
    fits = planner.make(request, builtin()).fits
    assert {f.cell.backbone for f in fits} == {s.name for s in names.values()}
    assert all(f.where.parts[-3] == places.safe(f.cell.backbone) for f in fits)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.integers(1, 10**6), batch=st.integers(1, 5), beta=st.floats(0, 5), scale=st.floats(0.01, 10))
def test_equal_settings_equal_keys(
    shapes: Dataset, monkeypatch: pytest.MonkeyPatch, steps: int, batch: int, beta: float, scale: float
) -> None:
    """Keys are a function of the settings' values: the same values give the same key, other values
    another.
    """

    def key(**changes: object) -> str:
        return keys(shapes, monkeypatch, overrides={"safe": changes}).key

    given = {"steps": steps, "batch": batch, "train_scale": scale}
    assert key(**given, beta=beta) == key(beta=beta + 1, **dict(reversed(given.items())))
    assert key(**given) != key(**{**given, "steps": steps + 1})
    assert key(**given) != key(**{**given, "train_scale": scale * 2})
