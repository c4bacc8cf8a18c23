"""Small random towers with something to look at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.clip import backbone
from bench.clip.backbone import Backbone

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VISION: dict[str, dict[str, Any]] = {
    "rn": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 96, "head_width": 64},
    "vit": {"layers": 3, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 64},
}


@pytest.fixture(scope="session")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Backbone]:
    """A loaded random tower of a family, made once; its dense map has 3 x 3 (rn) or 4 x 4 (vit) positions."""
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    known: dict[str, Backbone] = {}

    def make(family: str) -> Backbone:
        if family not in known:
            config = {"embed_dim": 16, "vision_cfg": VISION[family], "text_cfg": TEXT, "quick_gelu": True}
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(3)
                model = CLIP(**config)
                with torch.no_grad():
                    for name, p in model.visual.named_parameters():
                        p.add_((0.3 if p.ndim == 1 or "attnpool" in name else 0.02) * torch.randn_like(p))
            file = tmp_path_factory.mktemp(family) / "tower.safetensors"
            save_file(
                {k: v.contiguous() for k, v in model.state_dict().items()},
                file,
                {"config": json.dumps(config)},
            )
            known[family] = backbone.load(backbone.resolve(f"{family}@{file}"), "cpu", torch.float64)
        return known[family]

    return make


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder that the verbs of this folder's tests share, so that the fit is made once."""
    return tmp_path_factory.mktemp("explain")
