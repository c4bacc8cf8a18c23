"""Give a method the values of its settings, and refuse a fit the values that are not in its key.

Some values act only at inference, for example the weight of a cache. They are in no fit's key, so that other
weights need no new fit. If a fit read such a value, two fits with the same key could differ; ``FitValues``
therefore raises an error. This module imports only ``bench.errors``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from bench.errors import BenchError

Values = Mapping[str, Any]


class FitValues(dict[str, Any]):
    """The values that a fit may read: the settings and those of its grid point, without inference-only ones.

    Asking for an inference-only value by ``[name]``, ``get``, ``pop``, ``setdefault`` or ``in`` raises
    BenchError. There is one exception: if the recipe itself puts a value under that name, for example as a
    grid axis, this value is in the key and may be read.
    """

    def __init__(self, values: Values, method: str, inference: Collection[str]) -> None:
        super().__init__({name: value for name, value in values.items() if name not in inference})
        self.method = method
        self.late = frozenset(inference)

    def with_(self, more: Values) -> FitValues:
        """Return these values updated by ``more``, all of which may be read."""
        both = FitValues.__new__(FitValues)
        both.update(self)
        both.update(more)
        both.method, both.late = self.method, self.late
        return both

    def _lacks(self, name: object) -> bool:
        """Return whether the name is missing. Raises BenchError if an inference-only value has this name."""
        if super().__contains__(name):
            return False
        if name in self.late:
            raise BenchError(
                f"{self.method}: '{name}' acts at inference only (Method.inference) "
                "and is not in the fit's key: read it in logits or sweep, or take it out of Method.inference"
            )
        return True

    def __missing__(self, name: str) -> Any:
        self._lacks(name)
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return not self._lacks(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of that name, or ``default``."""
        return default if self._lacks(name) else self[name]

    def pop(self, name: str, *default: Any) -> Any:
        """Remove the value of that name and return it, or return ``default``."""
        self._lacks(name)
        return super().pop(name, *default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return the value of that name, after setting it to ``default`` if it is missing."""
        self._lacks(name)
        return super().setdefault(name, default)
