"""Where the program's own data lies: inside an installed package, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _beside_or_inside(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def datasets_dir() -> Path:
    """The folder of dataset descriptions (one TOML each) and their prompt data."""
    return _beside_or_inside("datasets")


def methods_dir() -> Path:
    """The folder of methods, one Python file each."""
    return _beside_or_inside("methods")


def results_dir() -> Path:
    """The folder of results that come with the program: published numbers, pocket records, baselines."""
    return _beside_or_inside("results")
