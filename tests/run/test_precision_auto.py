"""``--precision auto``: the rule, how it measures (fake towers, fake clock), what a run refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.clip import backbone
from bench.errors import BenchError
from bench.features.store import FeatureStore
from bench.run import precision
from bench.run.precision import Measured, choose, measure
from tests.run.conftest import Bench

FAST = {"fp32": 1.0, "fp16": 0.4, "bf16": 0.4}  # seconds a pass
NEAR = {"fp16": 1e-4, "bf16": 1e-3}


class Clock:
    """Goes on by what passes take, unevenly."""

    def __init__(self) -> None:
        self.now, self.passes = 0.0, 0

    def __call__(self) -> float:
        return self.now

    def took(self, seconds: float) -> None:
        self.passes += 1
        self.now += seconds * (3.0 if self.passes % 5 == 4 else 1.0)


def towers(
    clock: Clock, seconds: dict[str, float], far: dict[str, float], lacks: Sequence[str] = ()
) -> dict[str, Any]:
    how = SimpleNamespace(mean=(0.5,) * 3, std=(0.5,) * 3)
    spec = SimpleNamespace(family="rn", image_size=8, preprocess=how, name="fake")

    def encoding(name: str) -> Callable[..., dict[str, torch.Tensor]]:
        def encode(x_BCHW: torch.Tensor, taps: Sequence[str]) -> dict[str, torch.Tensor]:
            if name in lacks:
                raise BenchError(f"this PyTorch has no {name}")
            clock.took(seconds[name])
            off = far.get(name, 0.0) * torch.randn(x_BCHW.shape, generator=torch.Generator().manual_seed(0))
            x = x_BCHW + off
            return {"dense": x.flatten(2), "pooled": x.mean((2, 3))}

        return encode

    return {
        name: SimpleNamespace(spec=spec, device=torch.device("cpu"), encode_images=encoding(name))
        for name in ("bf16", "fp32", "fp16")
    }


def chosen(seconds: dict[str, float], far: dict[str, float] | None = None, lacks: Sequence[str] = ()) -> str:
    clock = Clock()
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3), np.uint8)
    return choose(measure(towers(clock, seconds, NEAR if far is None else far, lacks), pixels, clock))


def test_of_two_halves_the_more_exact_one_is_taken_unless_the_other_is_clearly_faster() -> None:
    assert chosen(FAST) == "fp16"
    assert chosen(FAST | {"bf16": 0.38}) == "fp16"
    assert chosen(FAST | {"bf16": 0.3}) == "bf16"
    assert chosen(FAST, {"fp16": 1e-3, "bf16": 1e-4}) == "bf16"


def test_a_lower_precision_has_to_be_worth_it() -> None:
    assert chosen(FAST | {"fp16": 0.85, "bf16": 0.9}) == "fp32"
    assert chosen(FAST | {"fp16": 0.85}) == "bf16"
    assert chosen({"fp32": 1.0, "fp16": 9.0, "bf16": 9.0}) == "fp32"


@pytest.mark.parametrize("far", [0.5, float("nan"), float("inf")])
def test_features_that_do_not_agree_are_not_taken(far: float) -> None:
    assert chosen(FAST, {"fp16": far, "bf16": 1e-3}) == "bf16"
    assert chosen(FAST, {"fp16": far, "bf16": far}) == "fp32"


def test_a_precision_that_the_device_lacks_is_left_out() -> None:
    assert chosen(FAST, lacks=["fp16"]) == "bf16" and chosen(FAST, lacks=["fp16", "bf16"]) == "fp32"
    with pytest.raises(BenchError, match="no fp32"):
        chosen(FAST, lacks=["fp32"])


def test_what_is_hopeless_gets_one_turn() -> None:
    clock = Clock()
    slow = towers(clock, FAST | {"fp16": 50.0}, NEAR)
    measure(slow, np.zeros((2, 8, 8, 3), np.uint8) + 9, clock)
    assert clock.passes == 3 + 3 + 2 * 5


def test_the_line_says_what_and_why() -> None:
    found = [Measured("fp32", 3197, 1, 1), Measured("bf16", 7715, 2.4, 0.99991)]
    line = precision.told(found, "RN50", "cuda")
    assert line.startswith(
        "precision: bf16 for RN50 on cuda, measured fp32 3,197 images/s, bf16 7,715 images/s"
    )
    assert "agrees to 0.99991" in line and "not on this device: fp16" in line and "\n" not in line


def test_the_probe_is_the_same_every_time_and_has_the_size_of_images() -> None:
    spec = backbone.resolve("pocket-rn")
    pixels = precision.probe(spec, 5)
    assert pixels.shape == (5, 128, 128, 3) and pixels.dtype == np.uint8
    assert np.array_equal(pixels[:3], precision.probe(spec, 3)) and pixels.std() > 40


def test_halves_of_a_real_tower_agree_on_the_probe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(precision, "_without_halves", lambda: False)
    monkeypatch.setattr(precision, "_ROWS", 2)
    found: list[Measured] = []
    monkeypatch.setattr(precision, "choose", lambda measured: found.extend(measured) or "fp32")
    assert precision.auto(backbone.resolve("pocket-rn"), "cpu", tmp_path)[0] == "fp32"
    assert {m.precision for m in found} >= {"fp32", "bf16"}
    assert all(m.cosine >= precision.AGREES and m.images_per_second > 0 for m in found)


def test_the_choice_is_kept_beside_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A second measurement that comes to something else would begin a resumed run anew."""
    spec, ways = backbone.resolve("pocket-rn"), ["bf16", "fp16", "fp16"]

    def measured(spec: Any, device: str) -> list[Measured]:
        return [Measured("fp32", 10, 1, 1), Measured(ways.pop(0), 20, 2, 1)]

    monkeypatch.setattr(precision, "_without_halves", lambda: False)
    monkeypatch.setattr(precision, "_measured", measured)
    first, said = precision.auto(spec, "cpu", tmp_path)
    assert first == "bf16" and "measured fp32 10 images/s" in said
    again, said = precision.auto(spec, "cpu", tmp_path)
    (file,) = (tmp_path / precision.FOLDER).iterdir()
    assert again == "bf16" and "as measured before" in said and str(file) in said and len(ways) == 2
    monkeypatch.setattr(precision, "device_name", lambda device: "another device")
    assert precision.auto(spec, "cpu", tmp_path)[0] == "fp16" and not ways[1:]
    monkeypatch.undo()
    monkeypatch.setattr(precision, "_without_halves", lambda: False)
    file.write_text('{"precision": "fp8"}')
    with pytest.raises(BenchError, match="delete it to measure anew"):
        precision.auto(spec, "cpu", tmp_path)
    store = FeatureStore(tmp_path)
    store.tidy()
    assert not store.feature_sets() and not store.clear().left and not store.verify() and file.exists()


def test_without_halves_no_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(precision.backbones, "load", lambda *_: pytest.fail("loaded"))
    assert precision.auto(backbone.resolve("pocket-rn"), "cpu") == (
        "fp32",
        "precision: fp32 (this processor has no half precision)",
    )


@pytest.mark.slow
def test_a_run_keeps_what_auto_came_to(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(precision, "auto", lambda spec, *_: ("bf16", f"precision: bf16 for {spec.name}"))
    cell = ("--methods", "zero-shot", "--datasets", "digits", "--shots", "1", "--results", tmp_path)
    done = bench("run", *cell, "--precision", "auto", "--dry-run")
    assert done.exit_code == 0 and "precision: bf16 for pocket-rn" in done.output
    assert "is recorded in" not in done.output
    assert bench("run", *cell).exit_code == 0
    done = bench("run", *cell, "--precision", "auto", "--dry-run")
    assert (
        "none of these cells is recorded in bf16, but 2 in fp32: --precision fp32 continues with those"
        in done.output
    )
    refused = bench("run", *cell, "--precision", "auto", "--backbone", "pocket-rn,pocket-vit", "--dry-run")
    assert isinstance(refused.exception, BenchError) and "chooses for one backbone" in str(refused.exception)
    refused = bench("run", *cell, "--precision", "auto", "--executor", "ray", "--dry-run")
    assert isinstance(refused.exception, BenchError) and "not Ray's workers" in str(refused.exception)
