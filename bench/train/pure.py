"""Notice a method's function that writes into what it was given, by the counters that tensors keep.

The counters see every in-place operation of torch. They do not see writes through ``.data`` or NumPy. What
several methods share is therefore copied for each, or compared in full (``bench.run.guard``), and ``bench
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
    """Return the error that tells the author of a method what it wrote into."""
    return BenchError(
        f"{function} of {method} wrote into {name}; methods are pure functions: clone before writing"
    )


def watch(**given: Any) -> Watched:
    """Return the tensors in what is given, by name, with their present counters."""
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
    """Run the block as a call of a method's function; raise BenchError if it wrote into what it got."""
    watched = watch(**given)
    yield
    check(watched, function, method)


def leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what mappings, lists, tuples and data classes finally hold, by dotted name.

    Of a task these are only the parts that need not be read first.
    """
    if isinstance(tree, Task):
        # without its backbone, because asking for that means reading it
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
