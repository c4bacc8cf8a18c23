"""Suites: what to measure, as data. A suite is a label for a list of cells; it is part of no key."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.files import read_text
from bench.names import canonical, nearest

_FOLDER = Path(__file__).resolve().parent / "suites"


@dataclass(frozen=True)
class Suite:
    """Axes of a grid of cells. ``prompts`` empty: each method's own; ``targets``: shifted test sets too."""

    name: str
    title: str
    backbones: tuple[str, ...]
    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    shots: tuple[int, ...]
    seeds: tuple[int, ...]
    prompts: tuple[str, ...] = ()
    targets: bool = False
    sweeps: tuple[str, ...] = ()


def names() -> list[str]:
    """The suites that come with the program."""
    return sorted(file.stem for file in _FOLDER.glob("*.toml"))


def load(name_or_path: str) -> Suite:
    """A suite by name or from a TOML file. Raises BenchError with the nearest name or key."""
    path = Path(name_or_path)
    if path.suffix == ".toml" and path.is_file():
        return _read(path)
    known = {canonical(n): n for n in names()}
    if canonical(name_or_path) not in known:
        raise BenchError(
            f"unknown suite '{name_or_path}'{nearest(name_or_path, names())}; `bench list suites` shows all"
        )
    return _read(_FOLDER / f"{known[canonical(name_or_path)]}.toml")


@lru_cache
def _read(file: Path) -> Suite:
    try:
        table: dict[str, Any] = tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as error:
        raise BenchError(f"{file}: not a readable TOML file: {error}") from error
    known = [f.name for f in fields(Suite)]
    for key in table:
        if key not in known:
            raise BenchError(f"{file}: unknown key '{key}'{nearest(key, known)}; known: {', '.join(known)}")
    missing = [f.name for f in fields(Suite)[:7] if f.name not in table]
    if missing:
        raise BenchError(f"{file}: needs {', '.join(missing)}")
    axes: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
    }
    return Suite(**axes)
