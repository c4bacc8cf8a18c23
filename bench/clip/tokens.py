"""Turn strings into token ids, for every kind of text tower, and warn about strings that are too long.

Legend: P prompts, L tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bench.clip import config, weights
from bench.clip.cleaning import is_byte_pair
from bench.clip.spec import BackboneSpec
from bench.clip.text import bpe_tokenizer
from bench.errors import BenchError


def tokenizer(spec: BackboneSpec) -> Any:
    """Return the tokeniser that the model was trained with: called with strings, it gives int64 ids (P, L).

    Raises BenchError if it needs a package that is not installed, and MissingWeights if it needs a file that
    is not here.
    """
    if is_byte_pair(spec.config):
        return bpe_tokenizer(int(spec.config["text_cfg"].get("context_length", 77)))
    from bench.clip.download import hub_tokenizer

    # open_clip looks up tokenisers by its own architectures, and uses byte pairs for any other.
    named = config.of_file(weights.architectures()[weights.architecture(spec.arch)])["text_cfg"]
    read, known = (
        (text.get("hf_tokenizer_name") or text.get("hf_model_name"))
        for text in (spec.config["text_cfg"], named)
    )
    if read != known:
        raise BenchError(
            f"{spec.file}: config: its tokeniser is '{read}', and {spec.arch} has {known or 'byte pairs'}: "
            "name the architecture it was trained with, ARCH@FILE"
        )
    return hub_tokenizer(spec.arch, fetch=False)


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
        warnings.warn(f"{message}, the first is {prompts[cut[0]][:60]!r}", stacklevel=2)
