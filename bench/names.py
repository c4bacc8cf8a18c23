"""Names that users write, in one spelling; how names are shown; the names of the protocols.

Hyphen and underscore are the same letter, and case does not matter.

What is shown holds no character that steers a terminal or a reader's eye: what Unicode calls not printable
is written as an escape, ``\\x1b`` or ``\\u202e``. That is control characters, the marks that reverse the
direction of text, characters without width, blanks other than the usual one, and halves of characters.
Letters of every script and their marks stay. Of the invisible characters, the two joiners stay where they
join: between characters beyond ASCII, as in Persian words and in emoji made of several.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable

# What may choose hyper-parameters and the step; bench.plan.protocols says what each does.
RECIPE, NO_VAL, EQUAL_BUDGET, TEST_ORACLE = "recipe", "no-val", "equal-budget", "test-oracle"
PROTOCOLS = (RECIPE, NO_VAL, EQUAL_BUDGET, TEST_ORACLE)
KEEP_STATES = ("needed", "all", "none")  # which fitted states a run leaves on disk
_JOINERS = "\u200c\u200d"  # zero-width non-joiner and joiner


def canonical(name: str) -> str:
    """The form names are compared in: lower case, ``_`` written as ``-``."""
    return name.strip().lower().replace("_", "-")


def printable(name: str) -> str:
    """A name, or a text with names in it, that can be stored: bytes that are not UTF-8 become ``\\xe9``."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # halves of letters that stand for no byte: no file has them, a text may
        return name.encode("utf-8", "backslashreplace").decode()


def shown(text: str, keep: str = "") -> str:
    """A name, or a text with names in it, as it can be printed: on one line, unless line breaks are kept."""
    return harmless(printable(text), keep)


def harmless(text: str, keep: str = "\n") -> str:
    """A text, of several lines maybe, in which what is not printable is escaped, but for ``keep``."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep or _joins(text, i) else c.encode("unicode_escape").decode("ascii")
        for i, c in enumerate(text)
    )


def _joins(text: str, i: int) -> bool:
    around = text[i - 1 : i] + text[i + 1 : i + 2]
    return (
        text[i] in _JOINERS
        and len(around) == 2
        and around.isprintable()
        and not around[0].isascii()
        and (not around[1].isascii())
    )


def in_json(text: str) -> str:
    """JSON text with the same content, in whose strings what is not printable is written as ``\\u202e``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c).strip('"') for c in text)


def short(text: str, most: int = 60) -> str:
    """A text of at most ``most`` characters; three dots stand for what is cut off its end."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def few(names: Iterable[str], most: int = 3, between: str = ", ") -> str:
    """The first ``most`` names, as they are shown, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return between.join(map(shown, listed[:most])) + more


def quoted(names: Iterable[str], most: int = 3) -> str:
    """A few names in a sentence, long ones cut: ``'a' and 'b'``, ``'a', 'b', 'c' and 7 more``."""
    listed = list(names)
    said = [f"'{short(shown(name))}'" for name in listed[:most]]
    if len(listed) > most:
        said.append(f"{len(listed) - most} more")
    return " and ".join(filter(None, (", ".join(said[:-1]), *said[-1:])))


def by_reason(reasons: Iterable[tuple[str, str]], most: int = 10) -> str:
    """(name, reason) pairs in words: ``emu (no images)``, of several names ``12 (no images): a, b, ...``."""
    groups: dict[str, list[str]] = {}
    for name, reason in reasons:
        groups.setdefault(reason, []).append(name)
    return "; ".join(
        f"{len(names)} ({reason}): {few(names, most)}" if names[1:] else f"{shown(names[0])} ({reason})"
        for reason, names in groups.items()
    )


def nearest(name: str, names: Iterable[str]) -> str:
    """A ready-made hint `` (did you mean 'x'?)`` for a misspelt name, or an empty string."""
    known = {canonical(n): n for n in names}
    close = difflib.get_close_matches(canonical(name), known, n=1, cutoff=0.5)
    return f" (did you mean '{shown(known[close[0]])}'?)" if close else ""


def told_apart(name: str, identity: str) -> str:
    """A name with the first digits of what bears it, where something else bears the same name."""
    return f"{name}-{identity[:6]}"
