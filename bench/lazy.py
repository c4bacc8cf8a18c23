"""The name ``torch``, which imports torch at its first use.

Planning, tables and a run that finds all its records there never use torch, so they never wait for its slow
import.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any


class _Lazy(ModuleType):
    """A stand-in that imports the real module when one of its attributes is asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


if TYPE_CHECKING:
    import torch as torch
else:
    torch = _Lazy("torch")
