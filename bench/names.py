"""One spelling for names: hyphen and underscore are the same letter, case does not matter."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def canonical(name: str) -> str:
    """The form names are compared in: lower case, ``_`` written as ``-``."""
    return name.strip().lower().replace("_", "-")


def nearest(name: str, names: Iterable[str]) -> str:
    """A ready-made hint `` (did you mean 'x'?)`` for a misspelt name, or an empty string."""
    known = {canonical(n): n for n in names}
    close = difflib.get_close_matches(canonical(name), known, n=1, cutoff=0.5)
    return f" (did you mean '{known[close[0]]}'?)" if close else ""
