"""Words that a model's text tower never saw.

Legend: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bench.clip.backbone import Backbone
from bench.clip.text import is_causal


def untrained_tokens(backbone: Backbone, names: Sequence[str]) -> str:
    """One line naming the classes with tokens that pre-training never saw (zero rows), or an empty string."""
    if not is_causal(backbone.spec.config):
        return ""
    trained_V = (backbone.text.params["token_embedding.weight"] != 0).any(-1).cpu()
    encode = backbone.text.tokenize.encode
    bad = [name for name in names if not trained_V[torch.tensor(encode(name), dtype=torch.long)].all()]
    if not bad:
        return ""
    shown = ", ".join(bad[:10]) + (f" and {len(bad) - 10} more" if len(bad) > 10 else "")
    return f"{backbone.spec.name} never saw some words of {len(bad)} of {len(names)} class names: {shown}"
