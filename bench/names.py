"""Names: how they are compared, how they are shown, and the names of the protocols.

Two names are the same if they differ only in case, or in hyphens and underscores.

A name that is shown must not steer the terminal or mislead the reader. Every character that Unicode calls not
printable is therefore written as an escape, for example ``\\x1b`` or ``\\u202e``: control characters, marks
that reverse the direction of text, characters without width, blanks other than the usual one, and halves of
characters. Letters of every script and their marks stay. The two invisible joiners stay between two
characters beyond ASCII, because Persian words and emoji made of several parts need them.

This module belongs to the ground and imports nothing of bench.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

# A protocol says what may choose hyper-parameters and the step; bench.plan.protocols explains each.
RECIPE, NO_VAL, EQUAL_BUDGET, TEST_ORACLE = "recipe", "no-val", "equal-budget", "test-oracle"
PROTOCOLS = (RECIPE, NO_VAL, EQUAL_BUDGET, TEST_ORACLE)
KEEP_STATES = ("needed", "all", "none")  # which fitted states a run leaves on disk
_LIKENESS = 0.65  # of 1, by difflib: enough for "tabel" and "gad", too little for "all" and "calip"
_JOINERS = "\u200c\u200d"  # zero-width non-joiner and joiner


def canonical(name: str) -> str:
    """Return the form in which names are compared: lower case, with ``-`` for ``_``."""
    return name.strip().lower().replace("_", "-")


def printable(name: str) -> str:
    """Return a text that can be stored: bytes of file names that are not UTF-8 become ``\\xe9``."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # halves of characters that stand for no byte: a text may have them
        return name.encode("utf-8", "backslashreplace").decode()


def shown(text: str, keep: str = "") -> str:
    """Return a text as it can be printed: on one line, unless ``keep`` holds the line break."""
    return harmless(printable(text), keep)


def harmless(text: str, keep: str = "\n") -> str:
    """Return a text in which characters that are not printable are escaped, except those in ``keep``."""
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
    """Return JSON text with the same content, with characters that are not printable as ``\\u202e``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c).strip('"') for c in text)


def short(text: str, most: int = 60) -> str:
    """Return a text cut to ``most`` characters; three dots at its end stand for what is cut off."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def few(names: Iterable[str], most: int = 3, between: str = ", ") -> str:
    """Return the first ``most`` names as they are shown, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return between.join(map(shown, listed[:most])) + more


def quoted(names: Iterable[str], most: int = 3) -> str:
    """Return a few names for a sentence, long ones cut: ``'a' and 'b'``, or ``'a', 'b', 'c' and 7 more``."""
    listed = list(names)
    said = [f"'{short(shown(name))}'" for name in listed[:most]]
    if len(listed) > most:
        said.append(f"{len(listed) - most} more")
    return " and ".join(filter(None, (", ".join(said[:-1]), *said[-1:])))


def by_reason(reasons: Iterable[tuple[str, str]], most: int = 10) -> str:
    """Return (name, reason) pairs in words, grouped by reason.

    One name is ``emu (no images)``; several with one reason are ``12 (no images): a, b, ...``.
    """
    groups: dict[str, list[str]] = {}
    for name, reason in reasons:
        groups.setdefault(reason, []).append(name)
    return "; ".join(
        f"{len(names)} ({reason}): {few(names, most)}" if names[1:] else f"{shown(names[0])} ({reason})"
        for reason, names in groups.items()
    )


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the hint `` (did you mean 'x'?)`` for a misspelt name, or an empty string if none is near."""
    known = {canonical(n).lstrip("-"): n for n in names}
    close = difflib.get_close_matches(canonical(name).lstrip("-"), known, n=1, cutoff=_LIKENESS)
    return f" (did you mean '{shown(known[close[0]])}'?)" if close else ""


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number and its noun: ``1 record``, ``2 records``; ``plural`` where an s does not do."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def told_apart(name: str, identity: str) -> str:
    """Return a name with the first six digits of an identity, as in ``birds-4f1c2a``."""
    return f"{name}-{identity[:6]}"


def value_text(value: Any, typed: bool = False) -> str:
    """Return a setting's value as `--set` takes it, as in ``0.001,0.0001``, ``none`` or ``true``.

    With ``typed`` a float shows that it is one: ``1.0``, not ``1``. A setting without a default needs this,
    or its value would come back as an integer and give another key.
    """
    if isinstance(value, tuple | list):
        return ",".join(value_text(one, typed) for one in value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value or '""'
    if not isinstance(value, float) or typed:
        return str(value)
    brief = f"{value:g}"
    return brief if float(brief) == value else repr(value)
