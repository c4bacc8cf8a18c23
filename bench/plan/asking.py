"""Ask a method for its recipe during planning. An error there costs the cells of that method alone."""

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
    """The error of a method that gives no valid recipe. Its cells are blocked, and all others go on."""


def recipe(
    method: Method, values: Mapping[str, Any], facts: Facts, protocol: str, plugin: bool
) -> tuple[Recipe, LearnedText | None, tuple[str, ...]]:
    """Return the recipe as it will run, the text that the method learns, and notes on changes to the recipe.

    ``plugin`` says that the method is none of the program's own. A plugin is watched more closely, and a
    BenchError that it raises counts as its failure. A BenchError of one of the program's own methods is about
    what the user gave, so it ends the whole plan.

    Raises Unplanned if a function of the method fails, returns the wrong type or changes the state of the
    whole process, and MissingData as ``batches.shortened`` does.
    """
    with _watched(method, "recipe", values, plugin) as given:
        made = method.recipe(given, facts)
        if not isinstance(made, Recipe):
            raise Unplanned(f"recipe of {method.name} gives {type(made).__name__}, not a Recipe")
        if method.micro is not None and len(made.streams) > 1:
            raise Unplanned(f"{method.name} has {len(made.streams)} streams; micro is for recipes of one")
        made, notes = batches.shortened(method, values, made, facts)
        made = protocols.apply(protocol, made)
        if plugin:
            digest(msgspec.to_builtins(asdict(made), enc_hook=plain))  # fails if a key cannot hold it
    with _watched(method, "learned_text", values, plugin) as given:
        learned = method.learned_text(given, facts)
        if learned is not None and not isinstance(learned, LearnedText):
            raise Unplanned(f"learned_text of {method.name} gives {type(learned).__name__}")
    return made, learned, notes


@contextmanager
def _watched(
    method: Method, function: str, values: Mapping[str, Any], plugin: bool
) -> Iterator[dict[str, Any]]:
    """Yield a copy of the settings for one call of a method's function.

    If a plugin changes the state of the process meanwhile, the change is undone and Unplanned is raised.
    """
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
