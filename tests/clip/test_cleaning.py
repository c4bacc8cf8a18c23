"""The plan's own cleaning of texts, which needs no torch, equals what open_clip's tokeniser does."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from open_clip import tokenizer as open_clip

from bench.clip.cleaning import cleaned, is_byte_pair, pieces
from bench.clip.text import bpe_tokenizer

TEXTS = st.text(
    st.one_of(st.characters(), st.sampled_from(" _&;<>amplt'’éÉ\u0301Ãœﬁ\u200b\u00a0x09-")), max_size=12
)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
@example(text="Caf&amp;eacute; \u00a0 CAFE\u0301")
@example(text="schÃ¶n  \n ﬁne")
def test_the_cleaning_is_open_clips(text: str) -> None:
    assert cleaned(text) == open_clip.get_clean_fn("lower")(text)


@settings(max_examples=300, deadline=None)
@given(first=TEXTS, second=TEXTS)
@example(first="route 66", second="Route 6 6")
@example(first="Boeing 737", second="boeing737")
@example(first="a-b", second="a - b")
@example(first="sealion", second="sea lion")
def test_equal_pieces_are_equal_tokens(first: str, second: str) -> None:
    encode = bpe_tokenizer(77).encode
    assert (pieces(first) == pieces(second)) == (encode(first) == encode(second))


@pytest.mark.parametrize("same", ["Sea lion", "sea  lion", " SEA LION ", "sea&nbsp;lion", "sea\u00a0lion"])
def test_spellings_that_are_one_text(same: str) -> None:
    assert pieces(same) == ("sea", "lion")


def test_texts_of_other_tokenisers_are_not_judged() -> None:
    assert is_byte_pair({"text_cfg": {"context_length": 77}})
    assert not is_byte_pair({"text_cfg": {"hf_tokenizer_name": "timm/ViT-B-16-SigLIP"}})


def test_it_needs_no_torch() -> None:
    code = (
        "import sys; from bench.clip.cleaning import pieces; pieces('fox'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
