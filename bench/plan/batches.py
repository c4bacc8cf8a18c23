"""Shorten, while planning, batches that a small support set cannot fill, so that the fit key says what runs.

Rule ``restart`` draws strictly fewer rows than there are (protocol 13.1), so a batch that is too large
becomes the largest that can be drawn. Example: batch 32 of 20 rows becomes 19. Batches of the other rules
stay unchanged, because these rules take the rows that there are. Streams without a batch stay unchanged too:
they take all rows that their rule can draw. This module imports no torch.

Legend: N images, V views of each, T a static batch: the rows of all streams together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.errors import BenchError, MissingData
from bench.interface import TEXT, Facts, Method, Recipe, Stream
from bench.recipe import drawn, legal

BATCH = "batch"  # the setting, and the static axis that also sets the streams' batches (bench/train/span.py)


def size(stream: Stream, facts: Facts) -> tuple[int, int]:
    """Return N and V of the rows that a stream will have.

    For a stream of texts N is the number of prompts, and V is 1.
    """
    return (facts.n_prompts, 1) if stream.source == TEXT else (facts.n_support, len(stream.views))


def check(method: Method, values: Mapping[str, Any]) -> None:
    """Raise BenchError if the setting ``batch`` asks for less than one row."""
    asked = values.get(BATCH)
    for one in asked if isinstance(asked, tuple) else (asked,):
        if isinstance(one, int | float) and one < 1:
            raise BenchError(f"{method.name}.{BATCH} must be a positive number of rows, not {one}")


def shortened(
    method: Method, values: Mapping[str, Any], recipe: Recipe, facts: Facts
) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe with batches that can be drawn, and one note for each change that names the method.

    If all batches can be drawn, the recipe is returned unchanged. Raises MissingData if a stream has too few
    rows for any batch, and BenchError if a batch is not a positive number of rows.
    """
    notes = _changed_by_the_method(method, values, recipe, facts)
    for part in (_shorten_streams, _shorten_static):
        recipe, said = part(method, recipe, facts)
        notes += said
    shots = f"{facts.shots} shot{'s' if facts.shots != 1 else ''}"
    return recipe, tuple(f"{method.name}, {shots}: {line}" for line in notes)


def _shorten_streams(method: Method, recipe: Recipe, facts: Facts) -> tuple[Recipe, list[str]]:
    """Shorten the batches of streams that no static axis sets.

    Without a static axis ``batch`` these are all streams; with one they are the streams that name no batch.
    """
    notes: list[str] = []
    streams = dict(recipe.streams)
    for name, stream in recipe.streams.items():
        there, asked = drawn(stream, *size(stream, facts))
        shared = BATCH in recipe.static and stream.batch is not None
        if shared or legal(stream.order, there, asked):
            continue
        if there and asked < 1 and stream.batch is not None:
            raise BenchError(f"{method.name}: batch {asked} of its stream '{name}' is not a positive number")
        if there < 2:
            raise _too_few(method, recipe, facts)
        streams[name] = replace(stream, batch=there - 1)
        which = f" of {name}" if len(streams) > 1 else ""
        notes.append(f"{BATCH}{which} {asked} -> {there - 1} ({_counted(stream, facts)})")
    return (replace(recipe, streams=streams) if notes else recipe), notes


def _shorten_static(method: Method, recipe: Recipe, facts: Facts) -> tuple[Recipe, list[str]]:
    """Shorten the static axis ``batch``, if there is one. Its values count the rows of its streams together.

    Sizes that cannot be drawn are left out (protocol 6.2, 13.1). If none is left, the largest size that can
    be drawn takes their place, divided between the streams as before.
    """
    asked = recipe.static.get(BATCH, ())
    shared = {name: s.batch for name, s in recipe.streams.items() if s.batch is not None}
    whole = sum(shared.values())

    def shares(T: int) -> dict[str, int]:
        return {name: batch * T // whole if whole else batch for name, batch in shared.items()}

    def fits(T: int) -> bool:
        streams = recipe.streams
        return all(legal(streams[n].order, _rows(streams[n], facts), b) for n, b in shares(T).items())

    kept = tuple(T for T in asked if fits(T))
    if kept == asked:
        return recipe, []
    if kept:
        left_out = ", ".join(str(T) for T in asked if T not in kept)
        static, streams = {**recipe.static, BATCH: kept}, recipe.streams
        note = f"{BATCH} {left_out} left out ({_all_counted(recipe, facts)})"
    else:
        # The rows of each stream bound T: without the bounds a huge batch would be counted down one by one.
        bounds = [(_rows(recipe.streams[n], facts) + 1) * whole // b for n, b in shared.items() if b]
        T = next((T for T in range(min((max(asked), *bounds)), 0, -1) if fits(T)), None)
        if T is None:
            raise _too_few(method, recipe, facts)
        parts = shares(T)
        streams = {n: replace(s, batch=parts.get(n, s.batch)) for n, s in recipe.streams.items()}
        kept = (sum(parts.values()),)
        static = {**recipe.static, BATCH: kept}
        note = f"{BATCH} {_listed(asked)} -> {kept[0]} ({_all_counted(recipe, facts)})"
    fixed = dict(recipe.fixed)
    if BATCH in fixed and fixed[BATCH] not in kept:
        fixed[BATCH] = kept[0]
    return replace(recipe, streams=streams, static=static, fixed=fixed), [note]


def _changed_by_the_method(
    method: Method, values: Mapping[str, Any], recipe: Recipe, facts: Facts
) -> list[str]:
    """Return notes on how a method itself changed its setting ``batch``, if that is a static axis.

    Raises BenchError if the setting is too small for the method's streams, so that the method enlarged it.
    """
    asked, made = values.get(BATCH), recipe.static.get(BATCH)
    if not isinstance(asked, tuple) or made is None:
        return []
    if other := [T for T in made if T not in asked]:
        if max(other) > max(asked):
            raise BenchError(
                f"{method.name}.{BATCH}={_listed(asked)} cannot be shared between its streams "
                f"({', '.join(recipe.streams)}); choose at least {len(recipe.streams)}"
            )
        return [f"{BATCH} {_listed(asked)} -> {_listed(made)} ({_all_counted(recipe, facts)})"]
    if left_out := [T for T in asked if T not in made]:
        return [f"{BATCH} {_listed(left_out)} left out ({_all_counted(recipe, facts)})"]
    return []


def _rows(stream: Stream, facts: Facts) -> int:
    """Return how many rows a stream draws its batches from."""
    return drawn(stream, *size(stream, facts))[0]


def _too_few(method: Method, recipe: Recipe, facts: Facts) -> MissingData:
    """Return the error for a recipe whose streams have too few rows."""
    return MissingData(
        f"{method.name} has too few rows for a batch ({_all_counted(recipe, facts)}): "
        "add shots, classes, views or prompts"
    )


def _listed(sizes: tuple[int, ...] | list[int]) -> str:
    return ", ".join(map(str, sizes))


def _all_counted(recipe: Recipe, facts: Facts) -> str:
    """Return the rows of all streams in words."""
    return ", ".join(_counted(stream, facts) for stream in recipe.streams.values())


def _counted(stream: Stream, facts: Facts) -> str:
    """Return a stream's rows in words, such as "8 support images x 2 views = 16 rows"."""
    N, V = size(stream, facts)
    there = _rows(stream, facts)
    if stream.source == TEXT:
        return f"{N} prompt{'s' if N != 1 else ''}"
    images = f"{N} support image{'s' if N != 1 else ''}"
    return images if there == N else f"{images} x {V} views = {there} rows"
