"""Define the architecture of the two embedded CLIPs as data, in open_clip's own words.

This module imports no torch.
"""

from __future__ import annotations

from typing import Any

_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2}

# On images of 128 pixels the ModifiedResNet pools 4x4+1 tokens of width 512 with 8 heads, and the ViT 8x8+1
# tokens of width 192.
ARCH: dict[str, dict[str, Any]] = {
    "rn": {
        "embed_dim": 128,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "image_size": 128},
        "text_cfg": dict(_TEXT),
        "quick_gelu": True,
    },
    "vit": {
        "embed_dim": 128,
        "vision_cfg": {"layers": 4, "width": 192, "head_width": 32, "patch_size": 16, "image_size": 128},
        "text_cfg": dict(_TEXT),
        "quick_gelu": True,
    },
}
