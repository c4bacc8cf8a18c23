"""Detect that a function of a method writes into tensors that it was given, by their version counters.

The counters see every in-place operation of torch, but no writes through ``.data`` or NumPy. Therefore
tensors that several methods share are copied for each, or compared in full (``bench.run.guard``), and ``bench
check-method`` compares contents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from bench.errors import BenchError
from bench.interface import Method, Task

Watched = list[tuple[str, Tensor, int]]  # (a tensor's name, the tensor, how often it had been written to)


def wrote(function: str, method: str, name: str) -> BenchError:
    """Return the error for a function of a method that wrote into the tensor ``name``."""
    return BenchError(
        f"{function} of {method} wrote into {name}; methods are pure functions: clone before writing"
    )


def watch(**given: Any) -> Watched:
    """Return all tensors in ``given``, with their names and present counters."""
    tensors = ((name, x) for name, x in leaves(given) if isinstance(x, Tensor))
    return [(name, x, x._version) for name, x in tensors if not x.is_inference()]


def check(watched: Watched, function: str, method: Method) -> None:
    """Raise BenchError if a watched tensor was written to since."""
    for name, x, version in watched:
        if x._version != version:
            raise wrote(function, method.name, name)


def written(watched: Watched) -> list[Tensor]:
    """Return the watched tensors that were written to since."""
    return [x for _, x, version in watched if x._version != version]


@contextmanager
def call(method: Method, function: str, **given: Any) -> Iterator[None]:
    """Run the block, a call of a method's function. Raises BenchError if it wrote into ``given``."""
    watched = watch(**given)
    yield
    check(watched, function, method)


def leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of everything in nested mappings, lists, tuples and dataclasses.

    For a task these are only its labels, W, text side and states.
    """
    if isinstance(tree, Task):
        # A task notes when its backbone is asked for, so the backbone is left out here.
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
