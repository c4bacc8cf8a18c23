"""Clean a string as CLIP's byte-pair tokeniser does before it looks up tokens.

It works on strings, without torch. ``open_clip.tokenizer`` does the same, but imports torch. A test compares
the two.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from functools import cache
from typing import Any

# The pattern of open_clip: special tokens and English endings, then words, single digits and runs of signs.
_PIECES = (
    r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # as open_clip
)


def is_byte_pair(config: Mapping[str, Any]) -> bool:
    """Return whether a model's open_clip configuration names OpenAI's byte-pair tokeniser for its texts."""
    text = config["text_cfg"]
    return not (text.get("hf_tokenizer_name") or text.get("hf_model_name"))


def cleaned(text: str) -> str:
    """Return the string in lower case with repaired Unicode, resolved HTML entities and single blanks."""
    import ftfy

    plain = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(plain.split()).lower()


def pieces(text: str) -> tuple[str, ...]:
    """Return the pieces that are looked up one by one.

    Two strings have equal tokens if and only if their pieces are equal.
    """
    return tuple(_pattern().findall(cleaned(text)))


@cache
def _pattern() -> Any:
    import regex

    return regex.compile(_PIECES, regex.IGNORECASE)
