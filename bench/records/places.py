"""Give the paths of records, predictions and states in a results folder.

The name of a file begins with the first digits of a key.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

SHORT = 20  # hex digits of a key that make a file name


def runs(results: Path) -> Path:
    """Return the folder of all records."""
    return results / "runs"


def folder(results: Path, backbone: str, dataset: str, method: str) -> Path:
    """Return the folder of the records of one method on one dataset."""
    return runs(results) / safe(backbone) / safe(dataset) / safe(method)


@lru_cache(maxsize=4096)
def safe(name: str) -> str:
    """Return the name of the folder for a name.

    Letters of any script, digits, ``_``, ``.`` and ``-`` stay. Other characters become ``_``, so that no name
    leads out of the folder.
    """
    return re.sub(r"[^\w.-]+|^\.+$", "_", name)


def fit_path(where: Path, fit_key: str) -> Path:
    """Return the path of a fit's record in the folder of its method."""
    return where / f"{fit_key[:SHORT]}.json"


def evaluation_path(where: Path, fit_key: str, key: str) -> Path:
    """Return the path of the record of an evaluation of that fit."""
    return where / f"{fit_key[:SHORT]}-{key[:SHORT]}.json"


def stopped_path(where: Path, fit_key: str) -> Path:
    """Return the path of the file that marks a fit, or an evaluation of it, as stopped by a time budget.

    The file is deleted when the cell is done.
    """
    return where / f"{fit_key[:SHORT]}.stopped"


def state_path(results: Path, fit_key: str) -> Path:
    """Return the path of a fit's fitted tensors (safetensors)."""
    return results / "states" / f"{fit_key[:SHORT]}.safetensors"
