"""What CLIP's byte-pair tokeniser reads of a string before it looks up tokens: strings only, no torch.

The same as ``open_clip.tokenizer`` does (which imports torch); a test holds the two together.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from functools import cache
from typing import Any

# Words, single digits, runs of signs; special tokens and English endings before them.
_PIECES = (
    r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # as open_clip
)


def is_byte_pair(config: Mapping[str, Any]) -> bool:
    """Whether a model's texts go through OpenAI's byte-pair tokeniser, by its open_clip configuration."""
    text = config["text_cfg"]
    return not (text.get("hf_tokenizer_name") or text.get("hf_model_name"))


def cleaned(text: str) -> str:
    """The string with repaired Unicode, resolved HTML entities and single blanks, in lower case."""
    import ftfy

    plain = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(plain.split()).lower()


def pieces(text: str) -> tuple[str, ...]:
    """What is looked up piece by piece: strings have equal tokens if and only if their pieces are equal."""
    return tuple(_pattern().findall(cleaned(text)))


@cache
def _pattern() -> Any:
    import regex

    return regex.compile(_PIECES, regex.IGNORECASE)
