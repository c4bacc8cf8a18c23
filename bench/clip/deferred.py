"""open_clip without what its imports load and most runs never use: torch's compiler, and timm. (no torch)

open_clip imports torchvision, which asks torch's compiler for one function, and timm, for its kinds of
towers. Both take seconds, in every process. Here each of those names loads its library when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

# By module, the functions and classes that are imported from it and can wait until they are called.
_LATER = {
    "torch._dynamo.utils": ("is_compile_supported",),  # by torchvision.ops
    "timm": (),  # by open_clip.timm_model, as are these
    "timm.layers": ("RotAttentionPool2d", "AttentionPool2d", "Mlp", "to_2tuple"),
}


def open_clip() -> ModuleType:
    """The package open_clip, imported; what is in it may be imported in the usual way afterwards."""
    if "open_clip" not in sys.modules:
        with stand_ins(_LATER):
            import_module("open_clip")
    return sys.modules["open_clip"]


@contextmanager
def stand_ins(later: Mapping[str, tuple[str, ...]]) -> Iterator[None]:
    """While others are imported, stand-ins for the modules in ``later``; afterwards they are gone again.

    A name that ``later`` gives for a module loads it when it is called, any other name at once. Nothing
    stands in for a module that is loaded already, or that is not installed.
    """
    known = {name.partition(".")[0] for name in later}
    installed = {package for package in known if package in sys.modules or find_spec(package)}
    absent = [name for name in later if name not in sys.modules and name.partition(".")[0] in installed]
    here = {name: _StandIn(name) for name in absent}
    for name, module in here.items():
        for function in later[name]:
            setattr(module, function, _caller(module, function))
    sys.modules.update(here)
    try:
        yield
    finally:
        for name in here:
            _leave(name)


class _StandIn(ModuleType):
    """Has what the module of its name has."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks for such names, and goes on without
            raise AttributeError(name)
        return getattr(_real(self), name)


def _caller(module: ModuleType, function: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(_real(module), function)(*args, **kwargs)

    return call


def _real(module: ModuleType) -> ModuleType:
    name = module.__name__
    _leave(name)
    _leave(name.partition(".")[0])  # its package may have a stand-in too, which could not give its parts
    return import_module(name)


def _leave(name: str) -> None:
    if isinstance(sys.modules.get(name), _StandIn):
        del sys.modules[name]
