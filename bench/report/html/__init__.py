"""The report: all results in one HTML file that opens from disk and asks no network for anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def report(
    frame: pd.DataFrame,
    *,
    title: str = "Few-shot CLIP adaptation",
    prompts: Mapping[str, Sequence[str]] | None = None,
    targets: Sequence[str] = (),
    first: Sequence[str] = (),
) -> str:
    """The report on a DataFrame from ``load_results`` as HTML text; equal records give equal text.

    ``prompts``: the prompt sets that methods use by themselves, by method, to keep the commands short.
    ``targets``: shifted test sets in the order wanted. ``first``: methods that are coloured before others
    where a figure cannot tell all apart. Raises BenchError when no table can be made.
    """
    from bench.report.html.page import page

    return page(frame, title, dict(prompts or {}), tuple(targets), tuple(first))


def assets() -> Path:
    """The folder of the page's template, style and script."""
    return Path(__file__).resolve().parent
