"""One way to print a p-value everywhere."""

from __future__ import annotations

import pytest

from bench.report.wording import p_equation, p_text


@pytest.mark.parametrize(
    ("p", "text", "equation"),
    [
        (0.0, "<0.001", "p <0.001"),
        (0.00049, "<0.001", "p <0.001"),
        (0.0007, "0.001", "p = 0.001"),
        (0.0123, "0.012", "p = 0.012"),
        (1.0, "1.000", "p = 1.000"),
    ],
)
def test_p_values(p: float, text: str, equation: str) -> None:
    assert (p_text(p), p_equation(p)) == (text, equation)
