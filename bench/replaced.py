"""Functions that code replaced for its whole process: they are noticed and put back.

A method could, for example, replace ``torch.nn.functional.normalize`` and so change every other method. This
module compares the functions and classes of these owners before and after a method's work: the modules of the
program, the base class of methods and the methods themselves, torch with its functions and tensors, and
NumPy's random numbers. It looks only at what has been imported and imports no torch itself.
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
    """A module or class whose functions and classes are compared.

    ``keys``: the names of these functions and classes. ``take``: reads them from the owner's ``vars``.
    """

    name: str
    owner: Any
    keys: list[str]
    take: Callable[[Any], tuple[Any, ...]]
    known: set[str] = field(default_factory=set)  # all keys that the class has had

    def read(self) -> tuple[Any, ...] | None:
        """Return what the keys hold, or None if one of them was deleted."""
        try:
            return self.take(vars(self.owner))
        except KeyError:
            return None

    def hiding(self) -> list[str]:
        """Delete the new keys of a class that hide an inherited function, and return them."""
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
    """The functions and classes that modules and classes hold, kept to notice when one is replaced."""

    def __init__(self) -> None:
        # By identity, because a file that is loaded again has classes of the same names.
        self.owners: dict[int, _Owner] = {}

    def add(self, owners: Iterable[tuple[str, Any]]) -> None:
        """Add owners as they are now; owners that are known stay as they are."""
        for name, owner in owners:
            if id(owner) not in self.owners:
                keys = [key for key, value in vars(owner).items() if _code(value)]
                # With one key itemgetter would make no tuple, so the first key is read twice.
                take = operator.itemgetter(*keys, *keys[:1]) if keys else lambda names: ()
                self.owners[id(owner)] = _Owner(name, owner, keys, take)

    def held(self, *only: Any) -> Held:
        """Return what the keys of all owners, or of those given, hold now."""
        held = []
        for owner in [self.owners[id(one)] for one in only] or self.owners.values():
            if isinstance(owner.owner, type) and len(vars(owner.owner)) != len(owner.known):
                owner.known = set(vars(owner.owner))
            if (now := owner.read()) is not None:
                held.append((owner, now))
        return held


def put_back(before: Held) -> list[str]:
    """Put back every function that was replaced since ``before``, and return the names of these functions.

    Two changes stay: new names, unless they hide a function that a class has inherited, and functions that a
    library replaced by one of its own.
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


_names = Names()  # of this process; modules that are imported later are added
_seen = 0  # number of modules at the last look


def names() -> Names:
    """Return the functions of all owners that are imported now."""
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
    """Run a block, put back the functions that it replaced, and yield the list of their names.

    The list is filled when the block ends. A module that the block imports first is looked at as soon as its
    import ends.
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
    """A finder of modules that adds what a newly imported module holds to ``held``."""

    def __init__(self, held: Held) -> None:
        self.held = held

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a watched module, whose loader then adds it to ``held``; None for others."""
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
    """Return whether a library replaced a function of its own by a wrapper or a class of its own."""
    module = str(getattr(value, "__module__", ""))
    own = module.split(".")[0] == owner.split(".")[0] and not module.startswith(_METHODS)
    return own and (isinstance(value, type) or getattr(value, "__name__", key) == key)
