"""Weights files that are damaged, or made to harm: one line that names the file, before memory is spent."""

from __future__ import annotations

import json
import os
import pickle
import socket
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bench.clip import backbone, config, download, state, weights
from bench.errors import BenchError
from tests.clip import conftest as towers

Tiny = Callable[..., tuple[str, Any]]
ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("BENCH_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every address that anything looked up or connected to: none, for all of them are refused."""
    hosts: list[Any] = []

    def refuse(*args: Any, **_: Any) -> Any:
        hosts.append(args[-1] if isinstance(args[0], socket.socket) else args[0])
        raise OSError("no network in this test")

    connect = socket.socket.connect

    def local_only(this: socket.socket, address: Any) -> None:
        if this.family == socket.AF_UNIX:  # between a program's own processes
            return connect(this, address)
        return refuse(this, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
    monkeypatch.setattr(socket.socket, "connect_ex", local_only)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    yield hosts


def refused(name: str, says: str = "", allow: bool = False) -> str:
    """What a name of weights is refused with, from resolving to the built model: one line with the file."""
    with pytest.raises(BenchError, match=says) as caught:
        backbone.load(backbone.resolve(name, allow_torchscript=allow))
    line = str(caught.value)
    assert "\n" not in line and Path(name.partition("@")[2]).name in line, line
    return line


def write(file: Path, header: Any, data: bytes = b"\0" * 4) -> str:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return f"RN50@{file}"


HEADERS: dict[str, Any] = {
    "not JSON": b"{x",
    "not UTF-8": "{}".encode("utf-16"),
    "a list": [ONE],
    "nested": b"[" * 100_000,
    "metadata of numbers": {"__metadata__": {"config": 1}},
    "metadata that is a list": {"__metadata__": ["config"]},
    "overlap": {"a": ONE, "b": {**ONE, "data_offsets": [2, 6]}},
    "the same place": {"a": ONE, "b": ONE},
    "one name, two places": b'{"a": %b, "a": %b}'
    % (json.dumps(ONE).encode(), json.dumps({**ONE, "data_offsets": [4, 8]}).encode()),
    "beyond the end": {"a": {**ONE, "shape": [1000], "data_offsets": [0, 4000]}},
    "backwards": {"a": {**ONE, "data_offsets": [4, 0]}},
    "another size": {"a": {**ONE, "shape": [2]}},
    "a negative side": {"a": {**ONE, "shape": [-1]}},
    "a fraction of a side": {"a": {**ONE, "shape": [0.5]}},
    "a huge shape": {"a": {**ONE, "shape": [1 << 62, 1 << 62]}},
    "an unknown type": {"a": {**ONE, "dtype": "Q9"}},
    "no type": {"a": {"shape": [1], "data_offsets": [0, 4]}},
}


@pytest.mark.parametrize("kind", HEADERS)
def test_headers(kind: str, tmp_path: Path) -> None:
    refused(write(tmp_path / "x.safetensors", HEADERS[kind]), "header: ")


def test_files_that_are_no_safetensors(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    for content in (b"", b"\1\2", struct.pack("<Q", 1 << 62), struct.pack("<Q", 100) + b"{}", b"\xff" * 64):
        file.write_bytes(content)
        refused(f"RN50@{file}", "header: ")
    file.unlink()
    file.mkdir()
    refused(f"RN50@{file}", "no regular file")
    file.rmdir()
    os.mkfifo(file)
    refused(f"RN50@{file}", "no regular file")


@pytest.mark.parametrize("dtype", ["C64", "F4", "F8_E8M0"])
def test_tensors_of_other_numbers(dtype: str, tmp_path: Path) -> None:
    shape = {"C64": [1], "F4": [16], "F8_E8M0": [8]}[dtype]
    header = {"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, 8]}}
    refused(write(tmp_path / "x.safetensors", header, b"\0" * 8))


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
    "nested": (b"[" * 100_000, ""),
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
    "wider than its tensors": (described(vision_cfg__width=16384, vision_cfg__layers=256), "does not fit"),
    "more words than its tensors": (described(text_cfg__vocab_size=1 << 21), "does not fit"),
    "heads that do not go in": (described(text_cfg__heads=7), "cannot build"),
    "patches larger than the image": (described(vision_cfg__patch_size=128), ""),
    "an address of the hub": (
        described(vision_cfg__timm_model_name="hf-hub:timm/vit_tiny"),
        "timm_model_name",
    ),
    "an old address": (described(vision_cfg__timm_model_name="hf_hub:timm/vit_tiny"), "timm_model_name"),
    "a folder": (described(vision_cfg__timm_model_name="local-dir:/tmp"), "timm_model_name"),
    "a path": (described(vision_cfg__timm_model_name="/tmp/x"), "timm_model_name"),
    "a URL": (described(vision_cfg__timm_model_name="https://example.org/x"), "timm_model_name"),
    "not in timm": (described(vision_cfg__timm_model_name="vit_of_mine"), "has no 'vit_of_mine'"),
    "a larger one of timm": (described(vision_cfg__timm_model_name="eva_giant_patch14_224"), "does not fit"),
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
    save_file({"logit_scale": torch.ones(())}, file, {"config": said})
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
    for loaded in (backbone.load(spec), backbone.load(replace(spec, file=plain))):
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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "float8_e5m2"])
def test_weights_are_finite(value: float, dtype: str, tiny: Tiny, tmp_path: Path) -> None:
    name, model = tiny("vit")
    tensors = {k: v.clone().contiguous() for k, v in model.state_dict().items()}
    spoilt = tensors["visual.ln_post.weight"].to(getattr(torch, dtype))
    spoilt[3] = value
    tensors["visual.ln_post.weight"] = spoilt
    file = tmp_path / "x.safetensors"
    save_file(tensors, file, {"config": json.dumps(towers.config("vit"))})
    assert "visual.ln_post.weight: " in refused(f"x@{file}", "not finite")


def spoilt_rows(tensors: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    rows, ids = tensors["token_embedding.rows"], tensors["token_embedding.ids"]
    yield "no ids", {k: v for k, v in tensors.items() if k != "token_embedding.ids"}
    for kind, changed in {
        "negative": torch.cat([ids[:-1], -ids[-1:]]),
        "too large": torch.cat([ids[:-1], ids[-1:] + 49408]),
        "twice": torch.cat([ids[:-1], ids[:1]]),
        "too few": ids[:-1],
        "fractions": ids.float(),
        "square": ids[None].repeat(2, 1),
    }.items():
        yield kind, {**tensors, "token_embedding.ids": changed.contiguous()}
    yield "flat", {**tensors, "token_embedding.rows": rows.flatten().contiguous()}
    yield "narrow", {**tensors, "token_embedding.rows": rows[:, :-1].contiguous()}


def test_rows_of_a_token_table(tmp_path: Path) -> None:
    pocket = backbone.resolve("pocket-rn")
    tensors, _ = state.read(pocket)
    for kind, changed in spoilt_rows(tensors):
        file = tmp_path / f"{kind}.safetensors"
        save_file(changed, file, {"config": json.dumps(pocket.config)})
        refused(f"x@{file}")
    larger = described(text_cfg__vocab_size=1 << 20)
    save_file(tensors, tmp_path / "words.safetensors", {"config": json.dumps(larger)})
    refused(f"x@{tmp_path / 'words.safetensors'}", "only for OpenAI's 49408 tokens")


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_pickles_are_never_executed(tmp_path: Path) -> None:
    made, file = tmp_path / "made", tmp_path / "x.pt"
    for protocol in (2, 4):
        file.write_bytes(pickle.dumps(Touch(made), protocol=protocol))
        refused(f"RN50@{file}", "not a plain state dict")
    torch.save({"state_dict": {"a": torch.ones(1)}, "extra": Touch(made)}, file)
    refused(f"RN50@{file}", "not a plain state dict")
    assert not made.exists()


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\3\4", b"\0" * 100, b"not weights", b"\x80\2K\1."])
def test_torch_files_that_are_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    refused(f"RN50@{tmp_path / 'x.pt'}", "not a plain state dict|damaged archive")


@pytest.mark.parametrize(
    "content",
    [[torch.ones(1)], torch.ones(1), {3: torch.ones(1)}, {"state_dict": 5}, {"a": {"b": torch.ones(1)}}],
    ids=repr,
)
def test_torch_files_of_another_form(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    refused(f"RN50@{tmp_path / 'x.pt'}")


def test_torch_tensors_of_another_form(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    for odd in (torch.ones(2, dtype=torch.complex64), torch.eye(2).to_sparse(), torch.ones(2, device="meta")):
        torch.save({"a": odd}, file)
        refused(f"RN50@{file}")
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, file)  # 4 TiB in a file of a kilobyte
    refused(f"RN50@{file}", "unpacks to")


def test_archives_that_swell(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x/data.pkl", "w", force_zip64=True) as record:
            for _ in range(64):
                record.write(b"\0" * (1 << 20))
    assert file.stat().st_size < 1 << 17
    refused(f"RN50@{file}", "unpacks to")


def test_torchscript_runs_nothing_unasked(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(file))
    refused(f"RN50@{file}", "--allow-torchscript")
    spec = backbone.resolve(f"RN50@{file}", allow_torchscript=True)
    with pytest.raises(BenchError, match="not a plain state dict"):  # not even where nobody looked
        state.read(replace(spec, torchscript=False))
    file.write_bytes(file.read_bytes()[:-200])
    refused(f"RN50@{file}", allow=True)


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
    write(folder / "x.safetensors", {}, b"")
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


def test_a_run_is_refused_in_one_line(
    tmp_path: Path, asked: list[Any], capsys: Any, monkeypatch: Any
) -> None:
    from bench.cli import main

    file = tmp_path / "x.safetensors"
    address = described(vision_cfg__timm_model_name="hf-hub:somebody/model")
    save_file({"logit_scale": torch.ones(())}, file, {"config": json.dumps(address)})
    words = (
        "--methods",
        "zero-shot",
        "--datasets",
        "digits",
        "--prompts",
        "vanilla",
        "--backbone",
        f"x@{file}",
    )
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["bench", "run", *words, "--results", str(tmp_path / "results")])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    assert end.value.code == 2 and asked == []
    assert len(said.err.strip().splitlines()) == 1 and "timm_model_name" in said.err
