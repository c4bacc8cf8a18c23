"""Exported files say what PyTorch says, and a file that does not is never written."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.classifier import onnx as exporting
from bench.classifier.module import Whole
from bench.clip import backbone as backbones
from bench.errors import BenchError
from bench.interface import POOLED, Method, cosine_logits
from tests.classifier.embedded import Fitted, classifier_of, pixels_of, whole_of

HERE = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not HERE, reason="needs onnx, onnxscript and onnxruntime: the extra [onnx]")
FITTED = [(name, family) for name in ("tip-adapter-f", "gda", "safe") for family in ("rn", "vit")]


def _said(m: Any) -> dict[str, str]:
    return exporting.metadata(classifier_of(m, 2.0).about)


def _run(file: Path, x_nCSS: torch.Tensor) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """What onnxruntime alone makes of a file: logits, probabilities and metadata."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(["logits", "probabilities"], {"pixels": x_nCSS.numpy()})
    said = session.get_modelmeta().custom_metadata_map
    return logits, probabilities, {key: json.loads(value) for key, value in said.items()}


def _exports(m: Any, file: Path) -> None:
    """A fitted method is exported, and the file repeats its predictions for batches of every size."""
    x = pixels_of(m)
    compared = exporting.export(whole_of(m, 2.0), file, x[:4], _said(m))
    assert compared.images == 4 and max(compared.probability, compared.logit) <= 1e-4
    logits, probabilities, said = _run(file, x)  # more images than were compared
    wanted = m.logits(m.test(), m.method.prepare(m.task())) / 2.0
    assert np.abs(logits - wanted.numpy()).max() <= 2e-3 * wanted.abs().max()
    np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=1e-5)
    assert said["classes"] == list(m.fit.dataset.classnames)
    assert said["temperature"] == 2.0 and said["method"]["name"] == m.method.name
    assert said["preprocessing"]["size"] == x.shape[-1]
    assert said["backbone"]["digest"] == m.fit.backbone.digest
    assert [p.name for p in file.parent.iterdir()] == [file.name]
    data = file.read_bytes()
    here = str(Path(exporting.__file__).parents[1])
    assert not [word for word in (here, "site-packages", "stack_trace") if word.encode() in data]


@needs_onnx
def test_zero_shot_is_exported(fitted: Fitted, tmp_path: Path) -> None:
    _exports(fitted("zero-shot", "rn"), tmp_path / "f.onnx")


@needs_onnx
@pytest.mark.slow
def test_zero_shot_of_a_transformer_is_exported(fitted: Fitted, tmp_path: Path) -> None:
    _exports(fitted("zero-shot", "vit"), tmp_path / "f.onnx")


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize(("name", "family"), FITTED)
def test_fitted_methods_are_exported(fitted: Fitted, tmp_path: Path, name: str, family: str) -> None:
    _exports(fitted(name, family), tmp_path / "f.onnx")


@needs_onnx
@pytest.mark.slow
def test_a_method_whose_text_depends_on_the_image_is_refused(fitted: Fitted, tmp_path: Path) -> None:
    m, file = fitted("cocoop", "rn"), tmp_path / "f.onnx"
    with pytest.raises(
        BenchError, match=r"cocoop cannot .* depends on the number of images; use it"
    ) as refused:
        exporting.export(whole_of(m), file, pixels_of(m), _said(m))
    assert len(str(refused.value).splitlines()) == 1 and not file.exists()


class Toy(Method):
    """Zero-shot logits of two classes."""

    name, title, uses_labels = "toy", "Toy", False

    def logits(self, params: Any, consts: Any, features: Any, values: Any) -> torch.Tensor:
        return cosine_logits(features[POOLED], consts["W_KC"], consts["scale"])


class Unknown(Toy):
    """The format has no such operation."""

    name = "unknown"

    def logits(self, params: Any, consts: Any, features: Any, values: Any) -> torch.Tensor:
        logits_BK = super().logits(params, consts, features, values)
        return logits_BK + torch.linalg.eigvalsh(logits_BK.T @ logits_BK).sum()


class Branching(Toy):
    """What is computed depends on the numbers in the image, which no graph can hold."""

    name = "branching"

    def logits(self, params: Any, consts: Any, features: Any, values: Any) -> torch.Tensor:
        sign = 1.0 if features[POOLED].sum() > 0 else -1.0
        return sign * super().logits(params, consts, features, values)


def _toy(method: Method, backbone: Any = None) -> tuple[Whole, torch.Tensor]:
    backbone = backbone or backbones.load(backbones.resolve("pocket-rn"))
    generator = torch.Generator().manual_seed(1)
    W_KC = torch.randn(2, backbone.width, generator=generator)
    consts = {"W_KC": W_KC / W_KC.norm(dim=1, keepdim=True), "scale": backbone.scale}
    side = backbone.image_size
    return Whole(backbone, method, {}, consts, {}), torch.randn(3, 3, side, side, generator=generator)


@needs_onnx
def test_a_method_that_branches_on_numbers_is_refused(tmp_path: Path) -> None:
    whole, x = _toy(Branching())
    with pytest.raises(
        BenchError, match=r"branching cannot .* depends on the numbers in an image; use it"
    ) as refused:
        exporting.export(whole, tmp_path / "f.onnx", x, {})
    assert len(str(refused.value).splitlines()) == 1 and not list(tmp_path.iterdir())


@needs_onnx
def test_an_operation_that_the_format_lacks_is_named(tmp_path: Path) -> None:
    whole, x = _toy(Unknown())
    with pytest.raises(BenchError, match=r"unknown cannot be exported to ONNX: .*eigh") as refused:
        exporting.export(whole, tmp_path / "f.onnx", x, {})
    assert len(str(refused.value).splitlines()) == 1 and not list(tmp_path.iterdir())


@needs_onnx
def test_a_file_that_differs_from_pytorch_is_never_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The exporter errs by a thousandth of the weights: both numbers are said, and the old file stays."""
    right = exporting.serialised

    def wrong(whole: Whole, x_nCSS: torch.Tensor, said: Any) -> bytes:
        whole.const_0.mul_(1.001)
        data = right(whole, x_nCSS, said)
        whole.const_0.div_(1.001)
        return data

    whole, x = _toy(Toy())
    monkeypatch.setattr(exporting, "serialised", wrong)
    file = tmp_path / "f.onnx"
    file.write_bytes(b"before")
    with pytest.raises(BenchError, match=r"is -?\d[\d.e-]* in PyTorch and -?\d[\d.e-]* in the file; nothing"):
        exporting.export(whole, file, x, {})
    assert file.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == ["f.onnx"]


def test_differences_are_found_at_the_stated_tolerance() -> None:
    wanted = np.array([[0.2, 0.8], [0.6, 0.4]], np.float32)
    assert exporting._difference("probability", wanted, wanted + 9e-5, 1.0) == pytest.approx(9e-5, rel=1e-2)
    assert exporting._difference("logit", 50 * wanted, 50 * wanted + 4e-3, 50.0) <= 1e-4
    with pytest.raises(BenchError, match=r"image 2 .* class 1 is 0\.6 in PyTorch and 0\.6003"):
        exporting._difference("probability", wanted, wanted + np.array([[0, 0], [3e-4, 0]]), 1.0)
    with pytest.raises(BenchError, match="nan in the file"):
        exporting._difference("logit", wanted, wanted * np.nan, 1.0)
    with pytest.raises(BenchError, match="shape"):
        exporting._difference("logit", wanted, wanted[:1], 1.0)


def test_without_the_packages_one_line_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if "onnx" in name else find(name, *rest)
    )
    whole, x = _toy(Toy())
    with pytest.raises(
        BenchError, match=r"needs onnx, onnxscript, onnxruntime: pip install 'fewshot-clip-bench\[onnx\]'"
    ):
        exporting.export(whole, tmp_path / "f.onnx", x, {})


@needs_onnx
def test_no_image_is_no_comparison(tmp_path: Path) -> None:
    whole, x = _toy(Toy())
    with pytest.raises(BenchError, match="name at least one image"):
        exporting.export(whole, tmp_path / "f.onnx", x[:0], {})


@needs_onnx
def test_weights_beyond_the_format_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(exporting, "_LIMIT", 1000)
    whole, x = _toy(Toy())
    with pytest.raises(BenchError, match="choose a smaller backbone"):
        exporting.export(whole, tmp_path / "f.onnx", x, {})


@needs_onnx
@pytest.mark.slow
def test_rn50_of_true_shape(tmp_path: Path) -> None:
    """Random weights; SAFE's blend of two pooling heads, so that its 50 tokens pass both."""
    import open_clip
    from safetensors.torch import save_file

    from bench.registry import builtin

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = open_clip.create_model("RN50", pretrained=None, force_quick_gelu=True)
    weights = tmp_path / "rn50.safetensors"
    save_file({name: p.contiguous() for name, p in model.state_dict().items()}, weights)
    backbone = backbones.load(backbones.resolve(f"RN50@{weights}"))
    generator = torch.Generator().manual_seed(6)
    params = {
        name: p + 0.1 * p.std() * torch.randn(p.shape, generator=generator)
        for name, p in backbone.head.copy().items()
    }
    W_KC = torch.randn(5, backbone.width, generator=generator)
    consts = {
        "W_KC": W_KC / W_KC.norm(dim=1, keepdim=True),
        "scale": backbone.scale,
        "head": backbone.head,
    }
    safe = builtin().get("safe")
    whole = Whole(backbone, safe, params, consts, {"beta": 0.5, "blend": "raw"})
    file = tmp_path / "f.onnx"
    x = torch.randn(2, 3, 224, 224, generator=generator)
    compared = exporting.export(whole, file, x, {})
    assert max(compared.probability, compared.logit) <= 1e-4
    # The tower's 23.5 million weights without its head, and the head twice (14.8 million each).
    assert 4 * 52e6 < file.stat().st_size < 4 * 55e6
