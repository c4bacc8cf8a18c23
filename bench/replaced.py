"""Functions that somebody replaced for everybody: noticed, and put back. (no torch, unless it is here)

Looked at are the modules of the program, the base of all methods and the methods themselves, and what methods
work with: torch, its functions and tensors, and NumPy's random numbers.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_METHODS = "bench.methods"
_LIBRARIES = ("numpy.random", "torch", "torch.nn.functional")


@dataclass
class _Owner:
    """A module or class, the keys of its functions and classes, and how these are read."""

    name: str
    owner: Any
    keys: list[str]
    take: Callable[[Any], tuple[Any, ...]]
    known: set[str] = field(default_factory=set)  # all keys that a class was seen with

    def read(self) -> tuple[Any, ...] | None:
        """What the keys hold; None where one of them was taken away."""
        try:
            return self.take(vars(self.owner))
        except KeyError:
            return None

    def hiding(self) -> list[str]:
        """The new keys of a class that hid inherited functions, by whatever; they are gone."""
        if not isinstance(self.owner, type) or len(vars(self.owner)) <= len(self.known):
            return []
        new = vars(self.owner).keys() - self.known
        below = [vars(base) for base in self.owner.__mro__[1:]]
        hiding = sorted(key for key in new if any(_code(names.get(key)) for names in below))
        for key in hiding:
            delattr(self.owner, key)
        self.known.update(new - set(hiding))
        return hiding


Held = list[tuple[_Owner, tuple[Any, ...]]]


class Names:
    """The functions and classes that modules and classes hold, to tell who replaced one of another's."""

    def __init__(self) -> None:
        self.owners: dict[
            int, _Owner
        ] = {}  # by identity: a file that is loaded again has classes of equal names

    def add(self, owners: Iterable[tuple[str, Any]]) -> None:
        """Look at these owners too, as they are now; one that is known is not looked at anew."""
        for name, owner in owners:
            if id(owner) not in self.owners:
                keys = [key for key, value in vars(owner).items() if _code(value)]
                # of one, itemgetter makes no tuple
                take = operator.itemgetter(*keys, *keys[:1]) if keys else lambda names: ()
                self.owners[id(owner)] = _Owner(name, owner, keys, take)

    def held(self, *only: Any) -> Held:
        """What the keys of all owners hold now, or of some."""
        held = []
        for owner in [self.owners[id(one)] for one in only] or self.owners.values():
            if isinstance(owner.owner, type) and len(vars(owner.owner)) != len(owner.known):
                owner.known = set(vars(owner.owner))
            if (now := owner.read()) is not None:
                held.append((owner, now))
        return held


def put_back(before: Held) -> list[str]:
    """The names that hold something else than ``before``, which they hold again.

    New names are let be, unless they hide what a class has inherited, and so is what a library replaces by
    something of its own.
    """
    changed = [f"{owner.name}.{key}" for owner, _ in before for key in owner.hiding()]
    for owner, old in before:
        now = owner.read()
        if now is not None and all(map(operator.is_, old, now)):
            continue
        for key, value in zip(owner.keys, old, strict=False):
            other = vars(owner.owner).get(key)
            if other is not value and not _of_its_own(owner.name, key, other):
                setattr(owner.owner, key, value)
                changed.append(f"{owner.name}.{key}")
    return changed


_names = Names()  # of this process; what is imported later is added
_seen = 0  # how many modules there were when they were gone through


def names() -> Names:
    """The functions of all owners that are imported now."""
    global _seen
    if _seen != len(sys.modules):
        _names.add((name, sys.modules[name]) for name in list(sys.modules) if _watched(name))
        _seen = len(sys.modules)
    if tensor := getattr(sys.modules.get("torch"), "Tensor", None):
        _names.add([("torch.Tensor", tensor)])
    if method := getattr(sys.modules.get("bench.interface"), "Method", None):
        _names.add((f"{cls.__module__}.{cls.__name__}", cls) for cls in _classes(method))
    return _names


@contextmanager
def kept() -> Iterator[list[str]]:
    """Around somebody's code: the functions that it replaced are put back, and are in the list afterwards.

    A module that is first imported meanwhile is looked at from the moment when it is there.
    """
    changed: list[str] = []
    before = names().held()
    first = _FirstImports(before)
    sys.meta_path.insert(0, first)
    try:
        yield changed
    finally:
        with suppress(ValueError):
            sys.meta_path.remove(first)
        changed += put_back(before)


class _FirstImports:
    """Finds modules as Python does; what one that is looked at holds when it is there joins ``held``."""

    def __init__(self, held: Held) -> None:
        self.held = held

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's spec, whose loader looks at it in the end; None for what is not looked at."""
        if not _watched(name):
            return None
        others = [finder.find_spec for finder in sys.meta_path if finder is not self]
        spec = next((found for find in others if (found := find(name, path, target))), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def and_look(module: ModuleType) -> None:
                execute(module)
                made = {name: module, **({"torch.Tensor": module.Tensor} if name == "torch" else {})}
                _names.add(made.items())
                self.held += _names.held(*made.values())

            spec.loader.exec_module = and_look  # type: ignore[method-assign]
        return spec


def _watched(name: str) -> bool:
    return name in _LIBRARIES or (name.startswith("bench.") and not f"{name}.".startswith(f"{_METHODS}."))


def _classes(base: type[Any]) -> Iterator[type[Any]]:
    yield base
    below: list[type[Any]] = base.__subclasses__()
    for cls in below:
        yield from _classes(cls)


def _code(value: Any) -> bool:
    return callable(value) or isinstance(value, classmethod | property)


def _of_its_own(owner: str, key: str, value: Any) -> bool:
    """Whether a library put its own into its own place: a function that wraps the old, or another class."""
    module = str(getattr(value, "__module__", ""))
    own = module.split(".")[0] == owner.split(".")[0] and not module.startswith(_METHODS)
    return own and (isinstance(value, type) or getattr(value, "__name__", key) == key)
