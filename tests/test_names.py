"""Names in messages: on one line, of bearable length, a few of many."""

from __future__ import annotations

import json

import pytest

from bench.names import by_reason, counted, few, harmless, in_json, nearest, quoted, short, shown

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


@pytest.mark.parametrize(
    "name",
    ["Äpfel & Öl", "קמח", "ملف\u200cها", "हिन्दी", "क्\u200dष", "👩\u200d🔬", "日本語", "e\u0301"],
    ids=ascii,
)
def test_letters_of_every_script_stay(name: str) -> None:
    assert shown(name) == harmless(name) == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a\x1b\x7f\x9b\r", "a\\x1b\\x7f\\x9b\\r"),
        ("\u202ea\u2066", "\\u202ea\\u2066"),
        ("a\u200bb\ufeff\u00ad", "a\\u200bb\\ufeff\\xad"),
        ("a\u200db", "a\\u200db"),  # joins nothing
        ("\u200d犬", "\\u200d犬"),
        ("a\u2028b\u00a0c", "a\\u2028b\\xa0c"),
        ("\udce9", "\\xe9"),  # a byte of a file's name
        ("\ud800", "\\ud800"),
        ("a\nb", "a\\nb"),
    ],
    ids=ascii,
)
def test_what_steers_or_is_not_seen_is_escaped(name: str, said: str) -> None:
    assert shown(name) == said
    assert shown("a\n" + name, keep="\n") == ("a\n" + said.replace("\\n", "\n"))


def test_lines_stay_lines_and_json_keeps_its_content() -> None:
    assert harmless("a\nb\tc") == "a\nb\\tc"
    value = {"a\u202e": ["\x1b\x9b\ud800\U000e0041 é 犬"]}
    text = in_json(json.dumps(value, indent=1, ensure_ascii=False))
    assert json.loads(text) == value
    assert all(c.isprintable() or c == "\n" for c in text) and "é 犬" in text


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("gad", "gda", "gda"),
        ("saef", "safe", "safe"),
        ("beta_step", "beta_steps", "beta_steps"),
        ("--shotz", "--shots", "--shots"),
        ("--version", "--precision", ""),
        ("--format", "--remove", ""),
        ("all", "calip", ""),
        ("bnech", "new", ""),
    ],
)
def test_only_a_name_that_is_much_alike_is_meant(name: str, known: str, hint: str) -> None:
    assert nearest(name, [known]) == (f" (did you mean '{hint}'?)" if hint else "")


def test_one_thing_has_no_plural() -> None:
    assert [counted(n, "fit") for n in (0, 1, 2, 1234)] == ["0 fits", "1 fit", "2 fits", "1234 fits"]
    assert counted(2, "entry", "entries") == "2 entries" and counted(1, "entry", "entries") == "1 entry"
