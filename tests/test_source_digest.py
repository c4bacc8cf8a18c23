"""A file's digest changes if the file computes something else, and only then."""

from __future__ import annotations

import pytest

from bench.source_digest import code_digest

CODE = b'''"""What it does."""

from scipy.special import softmax
from torch import Tensor
from bench.interface import SUPPORT


class Halver:
    """Halves."""

    rate = 0.001

    def apply(self, x):
        return x * self.rate + f"{x:.2f} times".count("x")


class Point(NamedTuple):
    x: float = 3.0
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"What it does", b"Another text"),
        (b"    rate = 0.001\n", b"    rate = 1e-3  # the published one\n"),
        (b"apply(self, x)", b"apply(self, x: Tensor) -> Tensor"),
        (b"from torch import Tensor\n", b"if TYPE_CHECKING:\n    from torch import Tensor\n\n"),
        (
            b"from bench.interface import SUPPORT",
            b"from typing import Any\nfrom bench.recipe import SUPPORT, unit",
        ),
        (b"    rate = 0.001\n", b"    rate: ClassVar[float] = 0.001\n"),
        (b"x * self.rate + f", b"(\n            x * self.rate\n        ) + f"),
        (b'f"{x:.2f} times"', b"f'{x:.2f} '\"times\""),
    ],
)
def test_what_computes_nothing_is_no_drift(old: bytes, new: bytes) -> None:
    assert old in CODE
    assert code_digest(CODE.replace(old, new)) == code_digest(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"0.001", b"0.002"),
        (b"0.001", b"'0.001'"),
        (b"x * self", b"x / self"),
        (b":.2f", b":.3f"),
        (b"rate = 0.001", b"rate = None"),
        (b"return", b"del x\n        return"),
        (b"scipy.special", b"another.place"),
        (b"import SUPPORT", b"import TEXT as SUPPORT"),
        (b"x: float = 3.0", b"x = 3.0"),
    ],
)
def test_what_computes_something_else_is(old: bytes, new: bytes) -> None:
    assert old in CODE
    assert code_digest(CODE.replace(old, new)) != code_digest(CODE)
