"""Strings to token ids to raw text features, for every kind of text tower; warnings about words and lengths.

Legend: P prompts, L tokens, C embedding width, V vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench.clip.text import CHUNK, bpe_tokenizer, is_causal
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.clip.backbone import Backbone


def encode_prompts(backbone: Backbone, prompts: Sequence[str], chunk: int = CHUNK) -> Tensor:
    """Raw text features (P, C) in fp32 of any open_clip model; one warning says how many prompts were cut."""
    prompts = list(prompts)
    if not prompts:
        raise BenchError("no prompts to encode: every class needs at least one")
    tokenize = tokenizer(backbone)
    ids_PL = tokenize(prompts)
    warn_if_cut(tokenize, prompts, ids_PL)
    if is_causal(backbone.spec.config):
        return backbone.text.encode_ids(ids_PL, chunk).float()
    with torch.no_grad():
        parts = [
            backbone.model.encode_text(ids.to(backbone.device), normalize=False)
            for ids in ids_PL.split(chunk)
        ]
    return torch.cat(parts).float()


def tokenizer(backbone: Backbone) -> Any:
    """The tokeniser the model was trained with; BenchError where it needs a package or file that is
    not here.
    """
    text = backbone.spec.config["text_cfg"]
    if not (text.get("hf_tokenizer_name") or text.get("hf_model_name")):
        return bpe_tokenizer(int(text.get("context_length", 77)))
    from bench.clip.download import hub_tokenizer

    return hub_tokenizer(backbone.spec.arch, fetch=False)


def warn_if_cut(tokenize: Any, prompts: Sequence[str], ids_PL: Tensor) -> None:
    """Warn once, in one line, if the tokeniser shortened prompts to the context length (protocol 2.3)."""
    if not hasattr(tokenize, "eot_token_id"):
        return
    full = (ids_PL[:, -1] != 0).nonzero().flatten().tolist()
    cut = [i for i in full if len(tokenize.encode(prompts[i])) + 2 > ids_PL.shape[1]]
    if cut:
        message = (
            f"{len(cut)} of {len(prompts)} prompts are longer than {ids_PL.shape[1]} tokens and were cut"
        )
        warnings.warn(f"{message}, the first is {prompts[cut[0]][:60]!r}", stacklevel=3)


def untrained_tokens(backbone: Backbone, names: Sequence[str]) -> str:
    """One line naming the class names with tokens that pre-training never saw (zero rows), or an empty
    string.
    """
    if not is_causal(backbone.spec.config):
        return ""
    trained_V = (backbone.text.params["token_embedding.weight"] != 0).any(-1).cpu()
    encode = backbone.text.tokenize.encode
    bad = [name for name in names if not trained_V[torch.tensor(encode(name), dtype=torch.long)].all()]
    if not bad:
        return ""
    shown = ", ".join(bad[:10]) + (f" and {len(bad) - 10} more" if len(bad) > 10 else "")
    return f"{backbone.spec.name} never saw some words of {len(bad)} of {len(names)} class names: {shown}"
