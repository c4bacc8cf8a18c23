"""Tests of backbones: names become specs without torch, files become frozen models, one pass gives all
taps.
"""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.clip import backbone, state, towers, weights
from bench.clip.spec import family
from bench.errors import BenchError, MissingWeights
from bench.run.precision import AGREES

Tiny = Callable[..., tuple[str, Any]]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setenv("BENCH_WEIGHTS", str(tmp_path / "weights"))


def images(size: int = 64, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["rn", "vit"])
def test_all_taps_come_from_one_forward_pass(tiny: Tiny, kind: str) -> None:
    name, model = tiny(kind)
    loaded = backbone.load(backbone.resolve(name))
    assert loaded.family == kind and loaded.width == 16 and loaded.image_size == 64
    seen: list[int] = []
    loaded.model.visual.conv1.register_forward_hook(lambda *_: seen.append(1))
    x_BCHW = images()
    features = loaded.encode_images(x_BCHW, sorted(loaded.taps))
    assert len(seen) == 1 and features.keys() == loaded.taps
    want = model.encode_image(x_BCHW).detach()
    torch.testing.assert_close(features["pooled"], want, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(features["tokens"][:, 0], want, rtol=1e-4, atol=1e-6)
    assert torch.equal(features["pixels"], x_BCHW)
    head = loaded.head
    torch.testing.assert_close(head(head.params, features["dense"]), features["pooled"])
    torch.testing.assert_close(head.project(head.params, features["preproj"]), features["pooled"])
    if kind == "rn":
        map_BDhw = model.visual.layer4(features["layer3"])
        assert features["layer3"].shape == (3, 128, 4, 4) and features["dense"].shape == (3, 4, 256)
        torch.testing.assert_close(
            features["dense"].transpose(1, 2).unflatten(2, (2, 2)), map_BDhw, rtol=1e-4, atol=1e-6
        )
    else:
        out = model.visual.transformer.resblocks[-1](features["dense"])
        torch.testing.assert_close(model.visual.ln_post(out[:, 0]), features["preproj"], rtol=1e-4, atol=1e-5)
        assert features["dense"].shape == (3, 17, 32)


def test_a_resnet_encodes_without_its_batch_norms(tiny: Tiny) -> None:
    loaded = backbone.load(backbone.resolve(tiny("rn")[0]))
    norms = [m for m in loaded.model.visual.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    generator, calls = torch.Generator().manual_seed(1), []
    for norm in norms:
        for x in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            x.data.add_(torch.rand(x.shape, generator=generator))
        norm.register_forward_hook(lambda *_: calls.append(1))
    before = {name: p.clone() for name, p in loaded.model.state_dict().items()}
    features = loaded.encode_images(images(), ["layer3", "dense", "pooled"])
    assert not calls
    want = towers.encode(loaded.model, loaded.head, "rn", images(), ["layer3", "dense", "pooled"])
    assert len(calls) == len(norms)
    for tap, x in want.items():
        torch.testing.assert_close(features[tap], x, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(p, before[name]) for name, p in loaded.model.state_dict().items())


def test_convolutions_lie_as_their_device_wants_them(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    last, first = torch.channels_last, torch.contiguous_format
    single, halves = torch.float32, (torch.float16, torch.bfloat16)
    assert towers.layout("cuda", single) is first and towers.layout("cpu", single) is last
    assert {towers.layout(device, dtype) for device in ("cpu", "cuda") for dtype in halves} == {last}
    spec, found = backbone.resolve(tiny("rn")[0]), []
    x_BCHW = images().contiguous(memory_format=last)
    for chosen in (last, first):  # as the function says, so do weights and images, however these came
        monkeypatch.setattr(towers, "layout", lambda device, dtype, chosen=chosen: chosen)
        loaded = backbone.load(spec)
        conv = loaded._trunk.layer1[0].conv2
        seen: list[torch.Tensor] = []
        conv.register_forward_pre_hook(lambda _, given, seen=seen: seen.extend(given))
        found.append(loaded.encode_images(x_BCHW, ["dense"])["dense"])
        for x in (conv.weight, *seen):
            assert x.is_contiguous(memory_format=chosen)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_a_loaded_model_is_frozen(tiny: Tiny) -> None:
    loaded = backbone.load(backbone.resolve(tiny("rn")[0]))
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert not any(m.training for m in loaded.model.modules())
    before = {n: b.clone() for n, b in loaded.model.named_buffers()}
    loaded.encode_images(images(), ["dense", "pooled"])
    assert all(torch.equal(b, before[n]) for n, b in loaded.model.named_buffers())
    assert not any(p.requires_grad for p in loaded.head.params.values())
    assert loaded.scale == pytest.approx(float(loaded.model.logit_scale.exp()))


@pytest.mark.parametrize("kind", ["avg", "timm", "sigmoid"])
def test_other_towers_give_only_pooled(tiny: Tiny, kind: str) -> None:
    name, model = tiny(kind)
    loaded = backbone.load(backbone.resolve(name))
    assert loaded.family == "other" and loaded.taps == {"pooled"}
    x_BCHW = images(loaded.image_size)
    torch.testing.assert_close(loaded.encode_images(x_BCHW)["pooled"], model.encode_image(x_BCHW).detach())
    with pytest.raises(BenchError, match="no tap dense"):
        loaded.encode_images(x_BCHW, ["pooled", "dense"])
    with pytest.raises(BenchError, match="no pooling head"):
        _ = loaded.head


def test_sigmoid_models_encode_text_their_own_way(tiny: Tiny) -> None:
    name, model = tiny("sigmoid")
    spec = backbone.resolve(name)
    assert spec.preprocess.mean == (0.5, 0.5, 0.5) and spec.preprocess.resize_mode == "squash"
    loaded = backbone.load(spec)
    from bench.clip.text import bpe_tokenizer

    want = model.encode_text(bpe_tokenizer(77)(["a dog", "two cats"])).detach()
    torch.testing.assert_close(loaded.encode_text(["a dog", "two cats"]), want)
    with pytest.raises(BenchError, match="no causal CLIP text tower"):
        _ = loaded.text


def test_missing_tokenisers_are_errors_not_downloads() -> None:
    from bench.clip.download import hub_tokenizer

    with pytest.raises(BenchError, match=r"pip install transformers|bench weights get"):
        hub_tokenizer("ViT-B-16-SigLIP", fetch=False)


@pytest.mark.parametrize("arch, kind", [("RN50", "rn"), ("ViT-B-16", "vit"), ("ViT-B-16-SigLIP", "other")])
def test_families_of_known_architectures(arch: str, kind: str) -> None:
    assert family(json.loads(weights.architectures()[arch].read_text())) == kind


def test_resolving_imports_no_torch() -> None:
    code = (
        "import sys; from bench.clip import backbone\n"
        "spec = backbone.resolve('pocket-rn')\n"
        "assert len(spec.weights_hash) == 64 and spec.preset == 'quick' and spec.quick_gelu\n"
        "assert spec.image_size == 128 and spec.family == 'rn'\n"
        "assert not {'torch', 'open_clip'} & set(sys.modules), 'torch'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def pretend_download(arch: str, tag: str, quick_gelu: bool) -> Path:
    home = weights.folder() / arch / tag
    home.mkdir(parents=True)
    file = home / "model.safetensors"
    file.write_bytes((2).to_bytes(8, "little") + b"{}")
    from bench.clip.download import record

    settings = {"quick_gelu": quick_gelu, "mean": (0.1, 0.2, 0.3), "resize_mode": "squash", "url": "x"}
    (home / weights.RECORD).write_text(json.dumps(record(arch, tag, file, settings)))
    return file


@pytest.mark.parametrize("name", ["RN50", "rn50/openai", "RN50-quickgelu", "RN50-quickgelu/OpenAI"])
def test_openai_names_mean_quickgelu(name: str) -> None:
    with pytest.raises(MissingWeights, match="bench weights get RN50`"):
        backbone.resolve(name)
    file = pretend_download("RN50", "openai", True)
    spec = backbone.resolve(name)
    assert (spec.name, spec.arch, spec.pretrained) == ("RN50", "RN50-quickgelu", "openai")
    assert spec.quick_gelu and spec.preset == "paper" and spec.family == "rn" and spec.image_size == 224
    assert (
        spec.file == file
        and spec.preprocess.mean == (0.1, 0.2, 0.3)
        and spec.preprocess.resize_mode == "squash"
    )


def test_other_tags_keep_their_activation() -> None:
    pretend_download("ViT-B-16", "laion2b_s34b_b88k", False)
    spec = backbone.resolve("ViT-B-16/laion2b-s34b-b88k")
    assert (spec.name, spec.arch, spec.quick_gelu) == ("ViT-B-16/laion2b_s34b_b88k", "ViT-B-16", False)
    with pytest.raises(BenchError, match="exact GELU"):
        backbone.resolve("ViT-B-16-quickgelu/laion2b_s34b_b88k")


def test_errors_name_the_mend(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="did you mean 'RN50'"):
        backbone.resolve("RN5O")
    with pytest.raises(MissingWeights, match="nowhere"):
        backbone.resolve("RN50@nowhere/file.pt")
    (tmp_path / "short.safetensors").write_bytes((10**6).to_bytes(8, "little"))
    with pytest.raises(BenchError, match="not a whole safetensors file"):
        backbone.resolve(f"RN50@{tmp_path / 'short.safetensors'}")


def half_released(model: Any) -> dict[str, torch.Tensor]:
    """A state dict in the form OpenAI published: linear weights rounded to halves, the rest not."""
    tensors = {k: v.clone().contiguous() for k, v in model.state_dict().items()}
    return {k: v.half().float() if "resblocks" in k and v.ndim == 2 else v for k, v in tensors.items()}


def test_openai_weights_with_exact_gelu_are_refused(tiny: Tiny) -> None:
    name, model = tiny("vit", quick_gelu=False)
    spec = backbone.resolve(name)
    assert not spec.quick_gelu
    state.refuse_exact_gelu(spec, model.state_dict())  # weights of another origin may have exact GELU
    with pytest.raises(BenchError, match="need QuickGELU"):
        state.refuse_exact_gelu(spec, half_released(model))
    with pytest.raises(BenchError, match="need QuickGELU"):
        state.refuse_exact_gelu(spec, model.state_dict(), from_archive=True)
    with pytest.raises(BenchError, match="need QuickGELU"):
        backbone.load(replace(spec, pretrained="openai"))
    # RN50, in its public address
    published = "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"
    with pytest.raises(BenchError, match="need QuickGELU"):
        state.refuse_exact_gelu(replace(spec, weights_hash=published), model.state_dict())
    state.refuse_exact_gelu(replace(spec, pretrained="openai", quick_gelu=True), half_released(model))


def test_files_that_are_not_plain_tensors_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    name, model = tiny("rn")
    config = backbone.resolve(name).config
    evil = tmp_path / "evil.pt"
    evil.write_bytes(pickle.dumps(print, protocol=2))
    spec = replace(backbone.resolve(name), file=evil)
    with pytest.raises(BenchError, match="not a plain state dict"):
        state.read(spec)
    plain = tmp_path / "plain.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, plain)
    spec = replace(spec, file=plain, config=config, weights_hash=weights.content_hash(plain))
    loaded = backbone.load(spec)
    torch.testing.assert_close(
        loaded.encode_images(images())["pooled"], model.encode_image(images()).detach()
    )


def test_torchscript_runs_only_when_allowed(tmp_path: Path) -> None:
    file = tmp_path / "archive.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(file))
    assert weights.is_torchscript(file)
    with pytest.raises(BenchError, match="--allow-torchscript"):
        backbone.resolve(f"RN50@{file}")
    spec = backbone.resolve(f"RN50@{file}", allow_torchscript=True)
    assert spec.torchscript and state.read(spec)[0].keys() == {"weight", "bias"}


def test_a_file_for_another_architecture_is_an_error(tiny: Tiny) -> None:
    spec = backbone.resolve(tiny("rn")[0])
    other = json.loads(json.dumps(spec.config))
    other["vision_cfg"]["width"] = 16
    with pytest.raises(BenchError, match="does not fit the architecture"):
        backbone.load(replace(spec, config=other))


def test_hash_is_kept_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "big.bin"
    file.write_bytes(b"one")
    monkeypatch.setattr(weights, "_SMALL", 0)
    hashed: list[Path] = []
    real = weights.sha256_file

    def counted(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(weights, "sha256_file", counted)
    first = weights.file_hash(file)
    assert weights.file_hash(file) == first == real(file) and len(hashed) == 1
    file.write_bytes(b"two!")
    assert weights.file_hash(file) == real(file) != first and len(hashed) == 2
    (tmp_path / "big.bin.sha256.json").write_text("{torn")
    assert weights.file_hash(file) == real(file)


def test_the_digest_knows_the_activation(tiny: Tiny) -> None:
    spec = backbone.resolve(tiny("vit")[0])
    assert spec.digest != replace(spec, quick_gelu=False).digest
    assert spec.digest == backbone.resolve(f"vit@{spec.file}").digest


def test_pocket_weights_keep_only_trained_rows() -> None:
    loaded = backbone.load(backbone.resolve("pocket-rn"))
    assert loaded.width == 128 and loaded.head.params["positional_embedding"].shape == (17, 512)
    table = loaded.model.token_embedding.weight
    assert table.shape == (49408, 128) and 0 < (table != 0).any(1).sum() < 10_000
    assert all(p.dtype == torch.float32 for p in loaded.model.parameters())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["rn", "vit"])
def test_lower_precision_is_for_encoding_alone(tiny: Tiny, kind: str, dtype: str) -> None:
    spec = backbone.resolve(tiny(kind)[0])
    exact, half = backbone.load(spec), backbone.load(replace(spec, dtype=dtype))
    taps = ["pixels", "dense", "pooled"]
    a, b = (m.encode_images(images(), taps) for m in (exact, half))
    assert b["dense"].dtype == half.dtype == getattr(torch, dtype) and b["pooled"].dtype == torch.float32
    for tap in ("dense", "pooled"):
        near = torch.nn.functional.cosine_similarity(a[tap].flatten(1), b[tap].float().flatten(1))
        assert near.min() > 0.99 and not torch.equal(a[tap], b[tap].float())
    assert torch.equal(a["pixels"], b["pixels"]), "methods may train on them"
    assert all(p.dtype == torch.float32 for p in (*half.head.params.values(), *half.model.parameters()))
    assert half.model.state_dict().keys() == exact.model.state_dict().keys()
    torch.testing.assert_close(exact.encode_text(["a dog"]), half.encode_text(["a dog"]))


def test_a_precision_that_the_device_lacks_is_one_line(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: object) -> None:
        raise RuntimeError("\"slow_conv2d_cpu\" not implemented for 'Half'")

    half = backbone.load(replace(backbone.resolve(tiny("rn")[0]), dtype="float16"))
    monkeypatch.setattr(towers, "encode", lacking)
    with pytest.raises(
        BenchError, match=r"no torch.float16 on cpu .*slow_conv2d_cpu.*: use --precision fp32"
    ):
        half.encode_images(images())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["rn", "vit"])
def test_halves_on_a_gpu_agree_with_singles_on_the_cpu(tiny: Tiny, kind: str) -> None:
    spec = backbone.resolve(tiny(kind)[0])
    want = backbone.load(spec).encode_images(images(), ["pooled", "dense"])
    features = backbone.load(spec, "cuda", torch.float16).encode_images(images(), ["pooled", "dense"])
    for tap, value in want.items():
        near = torch.nn.functional.cosine_similarity(features[tap].float().cpu().flatten(1), value.flatten(1))
        assert near.min() > AGREES, tap
