"""Write commands as messages, notes and the HTML report print them: complete, and quoted for a shell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

USUAL = "results"  # the folder that every verb reads and writes unless --results names another


def command(verb: str, rest: str = "", results: Sequence[str] = ()) -> str:
    """Return ``bench VERB REST`` with the options that name these results folders.

    ``rest`` is text that is already quoted. Verbs that read take several folders. ``bench run`` writes into
    one, so it gets the first of several.
    """
    folders = list(results)[:1] if verb == "run" else list(results)
    named = [] if folders in ([], [USUAL]) else folders
    options = [f"--results {shlex.quote(folder)}" for folder in named]
    return " ".join(filter(None, ["bench", verb, rest, *options]))
