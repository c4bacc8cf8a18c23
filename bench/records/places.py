"""Where records, predictions and states of a results folder lie; first digits of their keys name them."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

SHORT = 20  # hex digits of a key that make a file name


def runs(results: Path) -> Path:
    """The folder of all records."""
    return results / "runs"


def folder(results: Path, backbone: str, dataset: str, method: str) -> Path:
    """Where the records of one method on one dataset lie."""
    return runs(results) / safe(backbone) / safe(dataset) / safe(method)


@lru_cache(maxsize=4096)
def safe(name: str) -> str:
    """A name as a folder is called; letters of any script stay, and no name leads to another folder."""
    return re.sub(r"[^\w.-]+|^\.+$", "_", name)


def fit_path(where: Path, fit_key: str) -> Path:
    """The record of a fit in the folder of its method."""
    return where / f"{fit_key[:SHORT]}.json"


def evaluation_path(where: Path, fit_key: str, key: str) -> Path:
    """The record of an evaluation of that fit."""
    return where / f"{fit_key[:SHORT]}-{key[:SHORT]}.json"


def stopped_path(where: Path, fit_key: str) -> Path:
    """A file that is there while a fit, or an evaluation of it, was stopped at the end of a time budget."""
    return where / f"{fit_key[:SHORT]}.stopped"


def state_path(results: Path, fit_key: str) -> Path:
    """The fitted tensors of a fit (safetensors)."""
    return results / "states" / f"{fit_key[:SHORT]}.safetensors"
