"""Configurations in and beside weights files are only data: typed, of bounded size, and built offline."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bench.clip import backbone, config, download, weights
from bench.errors import BenchError
from bench.files import sha256_file
from tests.clip import conftest as towers
from tests.clip.hostile import refused

Tiny = Callable[..., tuple[str, Any]]


def described(**changes: Any) -> dict[str, Any]:
    """A small ViT's configuration with changes, ``vision_cfg__width=3`` inside a part."""
    table: dict[str, Any] = {**towers.config("vit")}
    for name, value in changes.items():
        part, _, key = name.partition("__")
        if key:
            table[part] = {**table[part], key: value}
        elif value is ...:
            del table[part]
        else:
            table[part] = value
    return table


CONFIGS: dict[str, tuple[Any, str]] = {
    "a list": ([], "Expected `object`"),
    "nested": (b"[" * 100_000, "header: config: "),
    "not JSON": (b"{", "malformed|truncated"),
    "no image tower": (described(vision_cfg=...), "vision_cfg"),
    "a tower that is text": (described(vision_cfg="RN50"), "vision_cfg: Expected `object`"),
    "unknown key": (described(visoin_cfg={}), "unknown key 'visoin_cfg'.*did you mean 'vision_cfg'"),
    "unknown key inside": (described(vision_cfg__widht=3), "vision_cfg: unknown key 'widht'.*'width'"),
    "no whole number": (described(vision_cfg__width=32.0), "vision_cfg.width: Expected `int`, got `float`"),
    "true for one": (described(text_cfg__layers=True), "text_cfg.layers: Expected `int`, got `bool`"),
    "negative": (described(embed_dim=-1), "embed_dim: "),
    "no heads": (described(vision_cfg__head_width=0), "vision_cfg.head_width: "),
    "a billion layers": (described(vision_cfg__layers=10**9), "vision_cfg.layers: "),
    "a billion layers in a stage": (
        described(vision_cfg__layers=[1, 1, 1, 10**9]),
        r"vision_cfg.layers\[3\]",
    ),
    "a billion wide": (described(text_cfg__width=10**9), "text_cfg.width: "),
    "a huge number": (described(text_cfg__width=10**40), "text_cfg.width: "),
    "a huge context": (described(text_cfg__context_length=10**6), "text_cfg.context_length: "),
    "a huge image": (described(vision_cfg__image_size=10**6), "vision_cfg.image_size: "),
    "an oblong image": (described(vision_cfg__image_size=[64, 128]), "64 x 128"),
    "three stages": (described(vision_cfg__layers=[1, 1, 1]), "vision_cfg.layers: "),
    "a huge norm": (described(vision_cfg__norm_kwargs={"device": "cuda"}), "norm_kwargs"),
    "code for an activation": (described(text_cfg__act_kwargs={"approximate": "exec"}), "approximate"),
    "deeper than its tensors": (
        described(vision_cfg__layers=256),
        "256 layers, but the file holds only 8 tensors",
    ),
    "wider than its tensors": (described(vision_cfg__width=16384, vision_cfg__layers=1), "does not fit"),
    "more words than its tensors": (described(text_cfg__vocab_size=1 << 21), "does not fit"),
    "heads that do not go in": (described(text_cfg__heads=7), "cannot build"),
    "patches larger than the image": (described(vision_cfg__patch_size=128), "does not fit|cannot build"),
    "an address of the hub": (
        described(vision_cfg__timm_model_name="hf-hub:timm/vit_tiny"),
        "timm_model_name",
    ),
    "an old address": (described(vision_cfg__timm_model_name="hf_hub:timm/vit_tiny"), "timm_model_name"),
    "a folder": (described(vision_cfg__timm_model_name="local-dir:/tmp"), "timm_model_name"),
    "a path": (described(vision_cfg__timm_model_name="/tmp/x"), "timm_model_name"),
    "a URL": (described(vision_cfg__timm_model_name="https://example.org/x"), "timm_model_name"),
    "not in timm": (described(vision_cfg__timm_model_name="vit_of_mine"), "has no 'vit_of_mine'"),
    "a larger one of timm": (described(vision_cfg__timm_model_name="vit_base_patch32_224"), "does not fit"),
    "weights of the hub": (
        described(vision_cfg__timm_model_name="vit_tiny_patch16_224", vision_cfg__timm_model_pretrained=True),
        "does not fit",
    ),
    "text of the hub": (described(text_cfg__hf_model_name="roberta-base"), "cannot build the text tower"),
    "text at a path": (described(text_cfg__hf_model_name="/tmp/x"), "text_cfg.hf_model_name: "),
    "text above": (described(text_cfg__hf_model_name="../x"), "text_cfg.hf_model_name: "),
    "text at a URL": (described(text_cfg__hf_model_name="https://e.org/x"), "text_cfg.hf_model_name: "),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_configurations(kind: str, tmp_path: Path, asked: list[Any]) -> None:
    text, says = CONFIGS[kind]
    file = tmp_path / "x.safetensors"
    said = text.decode() if isinstance(text, bytes) else json.dumps(text)
    save_file({f"a.{i}": torch.ones(()) for i in range(8)}, file, {"config": said})
    refused(f"x@{file}", says)
    assert asked == []


def test_every_architecture_of_open_clip_is_known() -> None:
    for name, file in weights.architectures().items():
        assert config.of_file(file)["embed_dim"] > 0, name


@pytest.mark.parametrize("kind", ["rn", "vit", "timm", "sigmoid"])
def test_no_way_of_loading_asks_the_network(kind: str, tiny: Tiny, tmp_path: Path, asked: list[Any]) -> None:
    name, model = tiny(kind)
    plain = tmp_path / "plain.pt"
    torch.save(model.state_dict(), plain)
    spec = backbone.resolve(name)
    for loaded in (
        backbone.load(spec),
        backbone.load(replace(spec, file=plain, weights_hash=sha256_file(plain))),
    ):
        loaded.encode_images(torch.zeros(1, 3, loaded.image_size, loaded.image_size))
        loaded.encode_text(["a dog"])
    assert asked == []


def test_a_tokeniser_of_the_hub_is_never_asked_for(tiny: Tiny, tmp_path: Path, asked: list[Any]) -> None:
    _, model = tiny("vit")
    table = described(text_cfg__hf_tokenizer_name="somebody/words")
    file = tmp_path / "x.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file, {"config": json.dumps(table)})
    for arch in ("hf-hub:somebody/words", "local-dir:/tmp", "x", "RN50", "ViT-B-16-SigLIP"):
        with pytest.raises(BenchError):
            backbone.load(backbone.resolve(f"{arch}@{file}")).encode_text(["a dog"])
    assert asked == []


def test_the_hub_is_closed_outside_of_downloads(asked: list[Any], tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    with download.network(False), pytest.raises(OSError):
        hf_hub_download("somebody/model", "config.json", cache_dir=tmp_path)
    assert asked == []


NOTED = {"arch": "RN50", "tag": "openai", "file": "x.safetensors", "sha256": "0" * 64, "quick_gelu": True}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"file": "../x.safetensors"}, "file: "),
        ({"file": 3}, "file: Expected `str`"),
        ({"quick_gelu": "yes"}, "quick_gelu: Expected `bool`"),
        ({"sha256": "0"}, "sha256: "),
        ({"preprocess": {"mean": [0.5, 0.5]}}, "preprocess: mean: Expected `array` of length 3"),
        ({"preprocess": {"std": [0.5, 0.5, 0.0]}}, r"preprocess: std\[2\]: "),
        ({"preprocess": {"interpolaton": "bicubic"}}, "did you mean 'interpolation'"),
        ({"url": "https://example.org"}, "url"),
    ],
)
def test_notes_about_downloaded_weights(changes: dict[str, Any], says: str, home: Path) -> None:
    folder = home / "RN50" / "openai"
    folder.mkdir(parents=True)
    (folder / "x.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    record = folder / weights.RECORD
    record.write_text(json.dumps(NOTED | {"preprocess": {}}))
    assert backbone.resolve("RN50").quick_gelu
    record.write_text(json.dumps(NOTED | {"preprocess": {}} | changes))
    with pytest.raises(BenchError, match=f"weights.json: .*{says}"):
        backbone.resolve("RN50")


def test_a_damaged_note_of_a_hash_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_SMALL", 0)
    file = tmp_path / "x.bin"
    file.write_bytes(b"weights")
    right = weights.file_hash(file)
    note = file.with_name("x.bin.sha256.json")
    good = json.loads(note.read_text())
    for damaged in (
        b"",
        b"[]",
        b"[" * 100_000,
        b"\xff",
        *(json.dumps(good | {"sha256": x}).encode() for x in (5, "", "0")),
    ):
        note.write_bytes(damaged)
        assert weights.file_hash(file) == right


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "malformed|truncated"),
        ("[]", "Expected `object`"),
        ('{"preprocess_cfg": []}', "preprocess_cfg: Expected `object`"),
        ('{"preprocess_cfg": {"resize_mode": "longest"}}', "resize_mode"),
        ('{"preprocess_cfg": {"mean": [0, 0, "0"]}}', r"mean\[2\]"),
    ],
)
def test_a_configuration_beside_the_file(text: str, says: str, tiny: Tiny, tmp_path: Path) -> None:
    name, _ = tiny("vit")
    (tmp_path / "open_clip_config.json").write_text(text)
    with pytest.raises(BenchError, match=f"open_clip_config.json: .*({says})"):
        backbone.resolve(name)


def run(backbone_: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a whole ``bench run`` of one cell, in this process."""
    from bench.cli import main

    words = (
        "--methods",
        "zero-shot",
        "--datasets",
        "digits",
        "--prompts",
        "vanilla",
        "--backbone",
        backbone_,
    )
    monkeypatch.setenv("BENCH_CACHE", str(folder / "cache"))
    monkeypatch.setattr(sys, "argv", ["bench", "run", *words, "--results", str(folder / "results")])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_whole_run_asks_the_network_for_nothing(
    tiny: Tiny, tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = tiny("vit")
    assert run(name, tmp_path, monkeypatch) == 0
    assert asked == [] and list((tmp_path / "results").rglob("*.json"))


def test_a_run_is_refused_in_one_line(
    tmp_path: Path, asked: list[Any], capsys: Any, monkeypatch: Any
) -> None:
    file = tmp_path / "x.safetensors"
    address = described(vision_cfg__timm_model_name="hf-hub:somebody/model")
    save_file({"logit_scale": torch.ones(())}, file, {"config": json.dumps(address)})
    assert run(f"x@{file}", tmp_path, monkeypatch) == 2 and asked == []
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "timm_model_name" in said[0]
