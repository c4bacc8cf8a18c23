"""Import open_clip without two libraries that most runs never use: torch's compiler and timm.

Importing open_clip imports both: torchvision, which it uses, asks torch's compiler for one function, and timm
has image towers that open_clip offers. Each takes seconds in every process. This module puts stand-ins in
their place, which load the library when something of it is first used. This module imports no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

# Maps each module to the functions and classes that are imported from it and can wait until they are called.
_LATER = {
    "torch._dynamo.utils": ("is_compile_supported",),  # torchvision.ops imports it
    "timm": (),  # open_clip.timm_model imports it, and the names below
    "timm.layers": ("RotAttentionPool2d", "AttentionPool2d", "Mlp", "to_2tuple"),
}


def open_clip() -> ModuleType:
    """Import the package open_clip and return it. Its parts can be imported in the usual way afterwards."""
    if "open_clip" not in sys.modules:
        with stand_ins(_LATER):
            import_module("open_clip")
    return sys.modules["open_clip"]


@contextmanager
def stand_ins(later: Mapping[str, tuple[str, ...]]) -> Iterator[None]:
    """Put stand-ins in place of the modules in ``later`` during the block, and remove them afterwards.

    ``later`` maps a module to functions and classes. Importing one of these from the stand-in loads nothing;
    the real module is loaded when it is called. Reading any other name of the stand-in loads the real module
    at once. A module that is loaded already, or that is not installed, gets no stand-in.
    """
    known = {name.partition(".")[0] for name in later}
    installed = {package for package in known if package in sys.modules or find_spec(package)}
    absent = [name for name in later if name not in sys.modules and name.partition(".")[0] in installed]
    here = {name: _StandIn(name) for name in absent}
    for name, module in here.items():
        for function in later[name]:
            setattr(module, function, _loading_caller(module, function))
    sys.modules.update(here)
    try:
        yield
    finally:
        for name in here:
            _remove(name)


class _StandIn(ModuleType):
    """A module that loads the real module of its name when an attribute is read that it does not have."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks for such names, and can do without them
            raise AttributeError(name)
        return getattr(_real(self), name)


def _loading_caller(module: ModuleType, function: str) -> Callable[..., Any]:
    """Make a function that, when called, loads the real module and calls its function of this name."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(_real(module), function)(*args, **kwargs)

    return call


def _real(module: ModuleType) -> ModuleType:
    """Remove the stand-in, and import and return the real module."""
    name = module.__name__
    _remove(name)
    _remove(name.partition(".")[0])  # its package may have a stand-in too, which cannot import submodules
    return import_module(name)


def _remove(name: str) -> None:
    """Remove the stand-in of this name, if there is one."""
    if isinstance(sys.modules.get(name), _StandIn):
        del sys.modules[name]
