"""The values that a method reads, and the guard that keeps what is not in a fit's key from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from bench.errors import BenchError

Values = Mapping[str, Any]


class FitValues(dict[str, Any]):
    """What a fit may read: settings and its grid point's values, but none for inference only (``inference``).

    Such a value is not in the fit's key, and not in here. Asking for it by ``[name]``, ``get``, ``pop``,
    ``setdefault`` or ``in`` raises BenchError; what the recipe itself puts under its name, as a grid axis, is
    in the key and may be read.
    """

    def __init__(self, values: Values, method: str, inference: Collection[str]) -> None:
        super().__init__({name: value for name, value in values.items() if name not in inference})
        self.method = method
        self.late = frozenset(inference)

    def with_(self, more: Values) -> FitValues:
        """These values and, where names are the same instead of them, ``more``, all of which may be read."""
        both = FitValues.__new__(FitValues)
        both.update(self)
        both.update(more)
        both.method, both.late = self.method, self.late
        return both

    def _lacks(self, name: object) -> bool:
        """Whether the name is not here; raises BenchError where it must not be asked for."""
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
        """The value of that name, or ``default``."""
        return default if self._lacks(name) else self[name]

    def pop(self, name: str, *default: Any) -> Any:
        """The value of that name, which is taken out, or ``default``."""
        self._lacks(name)
        return super().pop(name, *default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """The value of that name, which is ``default`` from now on where there was none."""
        self._lacks(name)
        return super().setdefault(name, default)
