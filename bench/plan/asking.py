"""Asking a method for its recipe while planning: what goes wrong there costs that method's cells alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict
from typing import Any

import msgspec

from bench import process, sources
from bench.errors import BenchError, MissingData, said
from bench.files import digest
from bench.interface import Facts, LearnedText, Method, Recipe
from bench.names import few
from bench.plan import batches, protocols
from bench.records.keys import plain


class Unplanned(BenchError):
    """A method's recipe cannot be had; its cells are blocked, and the others go on."""


def recipe(
    method: Method, values: Mapping[str, Any], facts: Facts, protocol: str, plugin: bool
) -> tuple[Recipe, LearnedText | None, tuple[str, ...]]:
    """The recipe as it will run, the text that the method learns, and the recipe's changes, in lines.

    Raises Unplanned where a function fails, gives what is none or changes what is everybody's, MissingData as
    ``batches.shortened`` does. ``plugin``: it is looked at more closely than one of the program's own, and a
    BenchError is its failure too. Those of the program's own methods are about what the user gave, and end
    the plan.
    """
    with _asked(method, "recipe", values, plugin) as given:
        made = method.recipe(given, facts)
        if not isinstance(made, Recipe):
            raise Unplanned(f"recipe of {method.name} gives {type(made).__name__}, not a Recipe")
        if method.micro is not None and len(made.streams) > 1:
            raise Unplanned(f"{method.name} has {len(made.streams)} streams; micro is for recipes of one")
        made, notes = batches.shortened(method, values, made, facts)
        made = protocols.apply(protocol, made)
        if plugin:
            digest(msgspec.to_builtins(asdict(made), enc_hook=plain))  # as the fit's key holds it
    with _asked(method, "learned_text", values, plugin) as given:
        learned = method.learned_text(given, facts)
        if learned is not None and not isinstance(learned, LearnedText):
            raise Unplanned(f"learned_text of {method.name} gives {type(learned).__name__}")
    return made, learned, notes


@contextmanager
def _asked(
    method: Method, function: str, values: Mapping[str, Any], plugin: bool
) -> Iterator[dict[str, Any]]:
    """Settings of its own for one function; what it does to others is undone, and is its failure."""
    around: AbstractContextManager[list[str]] = nullcontext([])
    if plugin:
        around = process.kept(own=sources.tops_of(method))
    try:
        with around as changed:
            yield deepcopy(dict(values))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, Unplanned | MissingData) or (isinstance(error, BenchError) and not plugin):
            raise
        raise Unplanned(f"{function} of {method.name} fails: {said(error)}") from error
    if changed:
        raise Unplanned(
            f"{function} of {method.name} changed {few(changed, between=' and ')}; it was put back: "
            "methods are pure functions, and this belongs to the whole program"
        )
