"""Names in messages: on one line, of bearable length, a few of many."""

from __future__ import annotations

import pytest

from bench.names import by_reason, few, nearest, quoted, short

ESCAPE = "\x1b[31mred\nline\x1b[0m"
SHOWN = r"\x1b[31mred\nline\x1b[0m"


def test_long_texts_are_cut() -> None:
    assert short("a" * 60) == "a" * 60
    assert short("a" * 61) == "a" * 57 + "..."
    assert short("abcdefgh", 7) == "abcd..."


def test_the_first_few_names() -> None:
    assert few([]) == ""
    assert few("abc") == "a, b, c"
    assert few("abcde") == "a, b, c and 2 more"
    assert few("abcde", 4, between="; ") == "a; b; c; d and 1 more"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("", ""),
        ("a", "'a'"),
        ("ab", "'a' and 'b'"),
        ("abc", "'a', 'b' and 'c'"),
        ("abcde", "'a', 'b', 'c' and 2 more"),
        (["x" * 90], f"'{'x' * 57}...'"),
    ],
)
def test_names_in_a_sentence(names: str | list[str], said: str) -> None:
    assert quoted(names) == said


def test_names_by_their_reasons() -> None:
    assert by_reason([("emu", "no images")]) == "emu (no images)"
    pairs = [("a", "empty"), ("b", "locked"), ("c", "empty")]
    assert by_reason(pairs) == "2 (empty): a, c; b (locked)"
    many = [(f"class{i}", "empty") for i in range(300)]
    assert by_reason(many) == f"300 (empty): {', '.join(f'class{i}' for i in range(10))} and 290 more"


def test_control_characters_reach_no_terminal() -> None:
    assert few([ESCAPE]) == SHOWN and quoted([ESCAPE]) == f"'{SHOWN}'"
    assert by_reason([(ESCAPE, "empty")]) == f"{SHOWN} (empty)"
    assert nearest(ESCAPE[:-1], [ESCAPE]) == f" (did you mean '{SHOWN}'?)"
