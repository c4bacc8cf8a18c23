"""Define the request: what a command asks for, before any name is looked up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.names import RECIPE
from bench.plan import settings
from bench.records import keys


@dataclass(frozen=True)
class Request:
    """The request of a ``bench run``. Its fields are named after the flags.

    ``folds``: 0 for few-shot draws. Otherwise the number of folds of all labelled images (``data.folds``);
    ``shots`` is then ("all",), every method has a cell on each fold, those without labels too, and the number
    of the fold takes the place of the seed. ``seeds`` and ``targets`` do not count then.

    ``contents``: the digests of datasets, by the names that the user gave, as the plan of another process
    found them (``Plan.contents``). None: planning looks at the image files itself.
    """

    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    shots: tuple[keys.Shots, ...]
    seeds: tuple[int, ...]
    backbones: tuple[str, ...]
    prompts: tuple[str, ...] = ()
    preset: str | None = None
    protocol: str = RECIPE
    overrides: settings.Overrides = field(default_factory=dict)
    sweeps: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    targets: bool = False
    precision: str = keys.SINGLE
    data_root: Path | None = None
    prompt_dir: Path | None = None
    results: Path = Path("results")
    cache: Path | None = None
    allow_torchscript: bool = False
    contents: Mapping[str, str] | None = None
    skip_bad: bool = False
    max_pixels: int | None = None
    folds: int = 0
