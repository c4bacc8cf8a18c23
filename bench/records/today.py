"""Decide whether a recorded fit is what the program would make today, judged by its method alone.

A *stale* fit has another key today, so a run makes its cell again. A *drifted* fit has the same key, but the
code of its method has changed since then while the method's version has not. Settings, prompts and images
are not compared here, because that takes a plan (``bench run --dry-run --why``).
"""

from __future__ import annotations

from typing import NamedTuple

from bench.records import convert
from bench.records.keys import ENGINE, FitKey
from bench.records.types import FitRecord


class Today(NamedTuple):
    """A method as the program has it now.

    ``source``: what stands for its source in a fit key, empty for the program's own methods. ``code``: the
    digest of the code of its file (``bench.sources.code_of``).
    """

    version: int
    source: str
    code: str


def stale(key: FitKey, method: Today) -> str:
    """Return why no run makes a fit of this key any more, or "" if its method gives no such reason."""
    if key.version != method.version:
        return f"of {key.method} version {key.version}; the program has version {method.version}"
    if key.source != method.source:
        return f"of {key.method} as another plugin file, or an earlier state of it"
    if key.engine != ENGINE:
        return f"made by version {key.engine} of the harness; the program has version {ENGINE}"
    if key.preprocessing == convert.UNKNOWN:
        return "brought over from an older schema without the weights, so that the key is not a run's"
    return ""


def drifted(fit: FitRecord, code: str) -> bool:
    """Return whether a fit of the program's own method was recorded by other code than ``code``.

    The answer is False for records without a digest of the code, and for plugins, whose source is in the key.
    """
    return not fit.parts.source and fit.provenance.source not in ("", code)
