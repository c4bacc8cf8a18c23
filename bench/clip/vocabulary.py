"""Name the words that a model's text tower never saw, and say why it cannot tell two texts apart.

Legend: P prompts, L tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bench.clip.backbone import Backbone
from bench.clip.text import is_causal
from bench.clip.tokens import tokenizer
from bench.names import counted, few


def untrained_tokens(backbone: Backbone, names: Sequence[str]) -> str:
    """Return one line that names the classes with tokens that pre-training never saw.

    The rows of such tokens are zero. The line is empty if there are none.
    """
    if not is_causal(backbone.spec.config):
        return ""
    trained_V = (backbone.text.params["token_embedding.weight"] != 0).any(-1).cpu()
    encode = backbone.text.tokenize.encode
    read = [name.replace("_", " ") for name in names]  # as prompts have them
    bad = [name for name in read if not trained_V[torch.tensor(encode(name), dtype=torch.long)].all()]
    if not bad:
        return ""
    many = f"{len(bad)} of {counted(len(names), 'class name')}"
    return f"{backbone.spec.name} never saw some words of {many}: {few(bad, 10)}"


def why_equal(backbone: Backbone, first: Sequence[str], second: Sequence[str]) -> str:
    """Say why the prompts of two classes have equal features; empty if their tokens do not show it."""
    name, tokenize = backbone.spec.name, tokenizer(backbone.spec)
    one_PL, other_PL = tokenize(list(first)), tokenize(list(second))
    if torch.equal(one_PL, other_PL):
        full = bool((one_PL[:, -1] != 0).any())
        return (
            f"they do not differ in the {one_PL.shape[1]} tokens that {name} reads"
            if full
            else "they have equal tokens"
        )
    if is_causal(backbone.spec.config):
        embed = backbone.text.embed
        if one_PL.shape == other_PL.shape and torch.equal(embed(one_PL), embed(other_PL)):
            return f"{name} never saw the words that tell them apart"
    return ""
