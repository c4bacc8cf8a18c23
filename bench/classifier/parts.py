"""Turn a method's constants into tensors and plain data, and back.

``Method.prepare`` returns whatever the method likes: tensors, numbers, the pooling head, modules of the
frozen towers, its own dataclasses. A tensor or module that is part of the backbone is stored as a reference,
because a classifier is used with the same weights. What is neither plain, nor a tensor, nor part of the
backbone is refused, because nothing else could be read back without a pickle.

A tree is plain data of JSON. Each node is a list that begins with its kind, as in ``["tensor", "3"]``.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from bench.clip.backbone import Backbone
from bench.errors import BenchError
from bench.interface import Method
from bench.names import short, shown

# The modules whose dataclasses and functions a tree may name, besides the method's own.
_OPEN = ("bench.clip.", "bench.methods.")
_HEAD, _TEXT, _MODEL = "head", "text", "model"


class Unstorable(BenchError):
    """The error for constants that hold something which no file can hold. It names the place."""


def packed(value: Any, tower: Backbone, method: Method) -> tuple[Any, dict[str, Tensor]]:
    """Return a method's constants as a tree and the tensors that it refers to by number.

    Raises Unstorable for anything that could not be read back.
    """
    packer = _Packer(tower, method)
    return packer.node(value, "constants"), packer.tensors


def unpacked(tree: Any, tensors: Mapping[str, Tensor], tower: Backbone, method: Method) -> Any:
    """Return the constants of a tree, on the tower's device.

    Raises BenchError for a tree that does not fit the tower, the method or the tensors.
    """
    try:
        return _Unpacker(tensors, tower, method).value(tree)
    except BenchError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, ImportError) as error:
        raise BenchError(
            f"the constants of {method.name} in this classifier do not fit this program ({error}): make the "
            "classifier again"
        ) from error


def _named(tower: Backbone) -> Iterable[tuple[str, Tensor]]:
    """Yield the tensors of a backbone by the names that trees use, those that methods use most first."""
    if tower._head is not None:
        yield from ((f"{_HEAD}/{name}", x) for name, x in tower._head.params.items())
    yield from ((f"{_MODEL}/{name}", x) for name, x in tower.model.named_parameters())
    yield from ((f"{_MODEL}/{name}", x) for name, x in tower.model.named_buffers())


def _place(x: Tensor) -> tuple[Any, ...]:
    """Return what is equal for two tensors that are the same memory, read in the same way."""
    return (x.data_ptr(), tuple(x.shape), tuple(x.stride()), x.dtype, str(x.device))


def _open(module: str, method: Method) -> bool:
    """Return whether a tree may name what a module defines."""
    own = type(method).__module__
    return module.startswith(_OPEN) or module.partition(".")[0] == own.partition(".")[0] != "bench"


class _Packer:
    """The maker of one tree."""

    def __init__(self, tower: Backbone, method: Method) -> None:
        self.tower, self.method = tower, method
        self.tensors: dict[str, Tensor] = {}
        self.numbers: dict[tuple[Any, ...], str] = {}
        self.text: Any = None
        with suppress(BenchError):  # not every model has a causal text tower
            self.text = tower.text
        self.named: dict[tuple[Any, ...], str] = {}
        for name, x in _named(tower):
            if x.numel():
                self.named.setdefault(_place(x), name)
        self.modules = {id(module): name for name, module in tower.model.named_modules()}

    def node(self, value: Any, where: str) -> Any:
        """Return the node of a value. ``where``: its place, for messages."""
        if isinstance(value, Tensor):
            return self.tensor(value, where)
        if value is None or isinstance(value, bool | int | str):
            return ["plain", value]
        if isinstance(value, float):
            return ["float", value.hex()]  # JSON has no infinity
        if value is self.tower._head and value is not None:
            return ["part", _HEAD]
        if value is self.text and value is not None:
            return ["part", _TEXT]
        if isinstance(value, nn.Module) and id(value) in self.modules:
            return ["module", self.modules[id(value)]]
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                raise self.refused(where, "a mapping whose keys are not all words")
            return ["map", {key: self.node(item, f"{where}.{key}") for key, item in value.items()}]
        if isinstance(value, list | tuple) and type(value) in (list, tuple):
            return [type(value).__name__, [self.node(x, f"{where}[{i}]") for i, x in enumerate(value)]]
        if isinstance(value, set | frozenset):
            if not all(isinstance(x, str) for x in value):
                raise self.refused(where, "a set of other things than words")
            return [type(value).__name__, sorted(value)]
        if is_dataclass(value) and not isinstance(value, type):
            return self.dataclass(value, where)
        if isinstance(value, FunctionType) and self.names(value.__module__, value.__qualname__, value):
            return ["function", value.__module__, value.__qualname__]
        raise self.refused(where, f"a {type(value).__name__}")

    def tensor(self, x: Tensor, where: str) -> Any:
        """Return the node of a tensor: a reference to the backbone's, or its number among those stored."""
        if x.layout != torch.strided or x.is_complex() or x.is_quantized:
            raise self.refused(where, f"a tensor of {x.dtype}, {x.layout}")
        place = _place(x)
        if x.numel() and place in self.named:
            return ["weights", self.named[place]]
        if not x.numel() or place not in self.numbers:
            number = str(len(self.tensors))
            self.tensors[number] = x.detach().cpu().clone().contiguous()
            self.numbers[place] = number
        return ["tensor", self.numbers[place]]

    def dataclass(self, value: Any, where: str) -> Any:
        """Return the node of a dataclass of the program's towers or methods, or of the method itself."""
        cls = type(value)
        if not self.names(cls.__module__, cls.__qualname__, cls) or not all(f.init for f in fields(value)):
            raise self.refused(where, f"a {cls.__qualname__} of {cls.__module__}")
        inside = {f.name: self.node(getattr(value, f.name), f"{where}.{f.name}") for f in fields(value)}
        return ["object", cls.__module__, cls.__qualname__, inside]

    def names(self, module: str, name: str, value: Any) -> bool:
        """Return whether reading a tree would find ``value`` under this name."""
        return _open(module, self.method) and getattr(sys.modules.get(module), name, None) is value

    def refused(self, where: str, what: str) -> Unstorable:
        """Return the error for a value that no file can hold."""
        return Unstorable(
            f"{self.method.name} cannot be saved as a classifier: its {shown(short(where))} is {what}, which "
            "only its process can hold; choose another method"
        )


class _Unpacker:
    """The reader of one tree."""

    def __init__(self, tensors: Mapping[str, Tensor], tower: Backbone, method: Method) -> None:
        self.tower, self.method = tower, method
        self.tensors = {name: x.to(tower.device) for name, x in tensors.items()}
        self.named = dict(_named(tower))
        self.modules = dict(tower.model.named_modules())

    def value(self, node: Any) -> Any:
        """Return the value of a node."""
        kind, *content = node
        return _READ[kind](self, *content)

    def part(self, name: str) -> Any:
        """Return a part of the backbone that methods call."""
        if name not in (_HEAD, _TEXT):
            raise KeyError(name)
        return self.tower.head if name == _HEAD else self.tower.text

    def object(self, module: str, name: str, inside: Mapping[str, Any]) -> Any:
        """Return a dataclass with its fields."""
        cls = self.found(module, name)
        if not (inspect.isclass(cls) and is_dataclass(cls)):
            raise TypeError(f"{module}.{name} is no dataclass")
        return cls(**{key: self.value(item) for key, item in inside.items()})

    def function(self, module: str, name: str) -> Any:
        """Return a function that a module defines."""
        found = self.found(module, name)
        if not isinstance(found, FunctionType) or found.__module__ != module:
            raise TypeError(f"{module}.{name} is no function")
        return found

    def found(self, module: str, name: str) -> Any:
        """Return what a module of the towers, of the methods or of the method itself defines."""
        if not _open(module, self.method) or "." in name:
            raise TypeError(f"{module}.{name} may not be named")
        loaded = sys.modules.get(module)
        if loaded is None and module.startswith(_OPEN):
            loaded = importlib.import_module(module)
        return getattr(loaded, name)


_READ: dict[str, Callable[..., Any]] = {
    "plain": lambda self, x: x,
    "float": lambda self, x: float.fromhex(x),
    "tensor": lambda self, name: self.tensors[name],
    "weights": lambda self, name: self.named[name],
    "module": lambda self, name: self.modules[name],
    "map": lambda self, items: {key: self.value(item) for key, item in items.items()},
    "list": lambda self, items: [self.value(item) for item in items],
    "tuple": lambda self, items: tuple(self.value(item) for item in items),
    "set": lambda self, items: set(items),
    "frozenset": lambda self, items: frozenset(items),
    "part": _Unpacker.part,
    "object": _Unpacker.object,
    "function": _Unpacker.function,
}
