"""Which settings take ``none``: those for which the method itself has None somewhere."""

from __future__ import annotations

import pytest

from bench.errors import BenchError
from bench.interface import Method
from bench.plan import settings
from bench.registry import builtin


class Toy(Method):
    name = "toy"
    settings = {
        "steps": 5,
        "lr": (0.1, 0.01),
        "word": "a",
        "cut": 3,
        "rates": (0.5,),
        "end": None,
        "odd": (None, 1),
    }
    per_dataset = {"digits": {"cut": None}}
    presets = {"quick": {"rates": None, "word": None}}


KNOWN = {"toy": Toy()}


def given(text: str) -> object:
    """The value that ``--set`` gives, or the error."""
    try:
        (value,) = settings.parse_overrides([text], KNOWN)["toy"].values()
    except BenchError as error:
        return str(error)
    return value


@pytest.mark.parametrize("setting", ["cut", "rates", "end"])
def test_none_where_the_default_a_row_or_a_preset_is_none(setting: str) -> None:
    assert given(f"toy.{setting}=none") is None
    (points,) = settings.parse_sweeps([f"toy.{setting}=none,2"], KNOWN).values()
    assert points == [{setting: None}, {setting: (2.0,) if setting == "rates" else 2}]


def test_none_elsewhere_is_refused() -> None:
    assert given("toy.steps=None") == "--set toy.steps=None: not a whole number from 0 on"
    assert given("toy.lr=none") == "--set toy.lr=none: not a finite number"
    assert given("toy.lr=0.1,none") == "--set toy.lr=none: not a finite number"
    assert given("toy.end=x") == "--set toy.end=x: not a finite number or none"
    assert given("toy.cut=x") == "--set toy.cut=x: not a whole number from 0 on or none"
    for text in ("toy.steps=1,none", "toy.lr=none"):
        with pytest.raises(BenchError, match="not a"):
            settings.parse_sweeps([text], KNOWN)


def test_a_word_and_an_element_may_be_called_none() -> None:
    assert given("toy.word=none") == "none"
    assert given("toy.odd=none,2") == (None, 2)
    assert settings.parse_sweeps(["toy.odd=none"], KNOWN) == {"toy": [{"odd": (None,)}]}


def test_every_value_of_a_methods_own_settings_can_be_given() -> None:
    """A preset or a row never holds None for a setting that refuses it."""
    for method in builtin().methods.values():
        for values in (method.settings, *method.per_dataset.values(), *method.presets.values()):
            for setting in (s for s, value in values.items() if value is None):
                text = f"{method.name}.{setting}=none"
                assert settings.parse_overrides([text], builtin().methods), text
