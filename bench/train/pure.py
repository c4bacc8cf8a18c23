"""Notices a function of a method that writes into what it was given, by the counters that tensors keep.

The counters see every operation of torch that writes in place. They do not see writes through ``.data`` or
NumPy: what several methods share is therefore copied for each, or looked at in full (``bench.run.guard``),
and ``bench check-method`` compares contents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from bench.errors import BenchError
from bench.interface import Method, Task

Watched = list[tuple[str, Tensor, int]]  # a tensor's name, itself, and how often it had been written to


def wrote(function: str, method: str, name: str) -> BenchError:
    """What the author of a method is told."""
    return BenchError(
        f"{function} of {method} wrote into {name}; methods are pure functions: clone before writing"
    )


def watch(**given: Any) -> Watched:
    """The tensors in what is given, by name, as they are now."""
    tensors = ((name, x) for name, x in leaves(given) if isinstance(x, Tensor))
    return [(name, x, x._version) for name, x in tensors if not x.is_inference()]


def check(watched: Watched, function: str, method: Method) -> None:
    """Raises BenchError where a watched tensor was written to since."""
    for name, x, version in watched:
        if x._version != version:
            raise wrote(function, method.name, name)


def written(watched: Watched) -> list[Tensor]:
    """The watched tensors that were written to since."""
    return [x for _, x, version in watched if x._version != version]


@contextmanager
def call(method: Method, function: str, **given: Any) -> Iterator[None]:
    """Around a call of a method's function: raises BenchError where it wrote into what it was given."""
    watched = watch(**given)
    yield
    check(watched, function, method)


def leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """What mappings, lists, tuples and data classes hold in the end, by dotted name.

    Of a task it is what does not have to be read first.
    """
    if isinstance(tree, Task):
        # not its backbone: to ask for that means to read it
        tree = {key: getattr(tree, key) for key in ("labels_N", "W_KC", "text", "states")}
    elif is_dataclass(tree) and not isinstance(tree, type):
        tree = {f.name: getattr(tree, f.name) for f in fields(tree)}
    if isinstance(tree, Mapping):
        items = [(str(key), value) for key, value in tree.items()]
    elif isinstance(tree, list | tuple):
        items = [(str(i), value) for i, value in enumerate(tree)]
    else:
        yield name, tree
        return
    for key, value in items:
        yield from leaves(value, f"{name}.{key}" if name else key)
