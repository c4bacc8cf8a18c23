"""Suites: named lists of what to measure, as data.

A suite says which datasets, methods, shots, seeds, backbones and prompt sets make the grid of a run. It is a
label for cells and part of no key. This module reads suites from TOML files, those in ``bench/suites`` or a
user's own, and checks their types; it knows neither methods nor datasets, which the plan looks up.
"""

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
# Names hold no control characters.
_Name = Annotated[str, Meta(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
_Names = Annotated[tuple[_Name, ...], Meta(min_length=1)]
_Numbers = Annotated[tuple[Annotated[int, Meta(ge=1, le=(1 << 63) - 1)], ...], Meta(min_length=1)]


@dataclass(frozen=True)
class Suite:
    """The axes of a grid of cells.

    ``prompts``: prompt sets for all methods; empty leaves each method its own. ``targets``: evaluate shifted
    test sets too. ``sweeps``: texts as for ``--sweep``.
    """

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
    """Return the names of the suites that come with the program."""
    return sorted(file.stem for file in _FOLDER.glob("*.toml"))


def load(name_or_path: str) -> Suite:
    """Return the suite of that name, or the one in that TOML file.

    Raises BenchError for an unknown name or key, with the nearest one, and for a field whose value has
    another type or is out of range.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml" and path.is_file():
        return _read(path)
    known = {canonical(n): n for n in names()}
    if canonical(name_or_path) not in known:
        raise BenchError(
            f"unknown suite '{name_or_path}'{nearest(name_or_path, names())}; `bench list suites` shows all, "
            "and a path to a TOML file works too"
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
