"""Small random towers with CLIP's structure, in files that `resolve` can name."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
TOWERS: dict[str, dict[str, Any]] = {
    "rn": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "head_width": 64},
    "vit": {"layers": 3, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 64},
    "avg": {
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "patch_size": 16,
        "image_size": 64,
        "pool_type": "avg",
    },
    "timm": {
        "timm_model_name": "test_vit",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
    },
}
TOWERS["sigmoid"] = TOWERS["timm"]


def config(kind: str, quick_gelu: bool = True) -> dict[str, Any]:
    described = {
        "embed_dim": 16,
        "vision_cfg": dict(TOWERS[kind]),
        "text_cfg": dict(TEXT),
        "quick_gelu": quick_gelu,
    }
    if kind == "sigmoid":  # as SigLIP: text without a causal mask, trained with a bias on the logits
        described |= {"custom_text": True, "init_logit_bias": -10.0}
        described["text_cfg"] |= {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    return described


def build(kind: str, quick_gelu: bool = True, seed: int = 0) -> Any:
    """A random open_clip CLIP whose BatchNorms and LayerNorms are not at their trivial start."""
    from open_clip.model import CLIP, CustomTextCLIP

    torch.manual_seed(seed)
    settings = config(kind, quick_gelu)
    model = (CustomTextCLIP if settings.pop("custom_text", False) else CLIP)(**settings).eval()
    with torch.no_grad():
        for name, t in [*model.named_parameters(), *model.named_buffers()]:
            if t.is_floating_point() and t.ndim == 1 and "attn_mask" not in name:
                t.add_(0.3 * torch.rand_like(t))
    return model


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., tuple[str, Any]]:
    """Writes a random tower to a file; returns the name that `resolve` takes, and the model itself."""
    from safetensors.torch import save_file

    def make(kind: str, quick_gelu: bool = True) -> tuple[str, Any]:
        model = build(kind, quick_gelu)
        path = tmp_path / f"{kind}.safetensors"
        tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
        save_file(tensors, path, {"config": json.dumps(config(kind, quick_gelu))})
        return f"{kind}@{path}", model

    return make


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder of downloaded weights."""
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
