"""Suites: what to measure, as data. A suite is a label for a list of cells; it is part of no key."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from bench import typed
from bench.errors import BenchError
from bench.names import canonical, nearest

_FOLDER = Path(__file__).resolve().parent / "suites"
# Control characters have no place in names.
_Name = Annotated[str, Meta(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
_Names = Annotated[tuple[_Name, ...], Meta(min_length=1)]
_Numbers = Annotated[tuple[Annotated[int, Meta(ge=1, le=(1 << 63) - 1)], ...], Meta(min_length=1)]


@dataclass(frozen=True)
class Suite:
    """Axes of a grid of cells. ``prompts`` empty: each method's own; ``targets``: shifted test sets too."""

    name: _Name
    title: _Name
    backbones: _Names
    datasets: _Names
    methods: _Names
    shots: _Numbers
    seeds: _Numbers
    prompts: tuple[_Name, ...] = ()
    targets: bool = False
    sweeps: tuple[_Name, ...] = ()


def names() -> list[str]:
    """The suites that come with the program."""
    return sorted(file.stem for file in _FOLDER.glob("*.toml"))


def load(name_or_path: str) -> Suite:
    """A suite by name or from a TOML file.

    Raises BenchError with the nearest name or key, or with the field that is of another type or range.
    """
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
    table = typed.toml(file, dict[str, Any])
    names_ = [f.name for f in fields(Suite)]
    typed.known(table, names_, str(file))
    if missing := [name for name in names_[:7] if name not in table]:
        raise BenchError(f"{file}: needs {', '.join(missing)}")
    return typed.converted(table, Suite, str(file))
