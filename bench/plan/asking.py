"""Asking a method for its recipe while planning: what goes wrong there costs that method's cells alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict
from typing import Any

import msgspec

from bench import process
from bench.errors import BenchError, MissingData, said
from bench.files import digest
from bench.interface import Facts, LearnedText, Method, Recipe
from bench.plan import batches, protocols
from bench.records.keys import plain


class Unplanned(BenchError):
    """A method's recipe cannot be had; its cells are blocked, and the others go on."""


def recipe(
    method: Method, values: Mapping[str, Any], facts: Facts, protocol: str, plugin: bool
) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe as it will run, and what was changed of it, in lines.

    Raises Unplanned where a function fails or gives what is none, MissingData as ``batches.shortened`` does.
    ``plugin``: it is looked at more closely than one of the program's own, and a BenchError is its failure
    too. Those of the program's own methods are about what the user gave, and end the plan.
    """
    with _asked(method, "recipe", plugin):
        made = method.recipe(deepcopy(dict(values)), facts)
        if not isinstance(made, Recipe):
            raise Unplanned(f"recipe of {method.name} gives {type(made).__name__}, not a Recipe")
        made, notes = batches.shortened(method, values, made, facts)
        made = protocols.apply(protocol, made)
        if plugin:
            digest(msgspec.to_builtins(asdict(made), enc_hook=plain))  # as the fit's key holds it
    if plugin:
        with _asked(method, "learned_text", plugin):
            learned = method.learned_text(deepcopy(dict(values)), facts)
            if learned is not None and not isinstance(learned, LearnedText):
                raise Unplanned(f"learned_text of {method.name} gives {type(learned).__name__}")
    return made, notes


@contextmanager
def _asked(method: Method, function: str, plugin: bool) -> Iterator[None]:
    before = process.held() if plugin else None
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if before is not None:
            process.put_back(before)
        if isinstance(error, Unplanned | MissingData) or (isinstance(error, BenchError) and not plugin):
            raise
        raise Unplanned(f"{function} of {method.name} fails: {said(error)}") from error
    if before is not None and (changed := process.put_back(before)):
        raise Unplanned(
            f"{function} of {method.name} changed {' and '.join(changed)}; it was put back: "
            "methods are pure functions, and this belongs to the whole program"
        )
