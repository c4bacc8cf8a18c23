"""A damaged or harmful weights file is refused with one line that names it, before memory is spent."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bench.clip import backbone, state
from bench.errors import BenchError
from tests.clip import conftest as towers
from tests.clip.hostile import refused

Tiny = Callable[..., tuple[str, Any]]
ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "float8_e5m2"])
def test_weights_are_finite(value: float, dtype: str, tiny: Tiny, tmp_path: Path) -> None:
    _, model = tiny("vit")
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
    larger = towers.config("vit")
    larger["text_cfg"]["vocab_size"] = 1 << 20
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
        refused(f"RN50@{file}", r"not a plain state dict .*it holds more than tensors")
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
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x/data.pkl", "w", force_zip64=True) as record,
    ):
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
