"""The page docs/methods.md is what the registry says, and every method says what such a page needs."""

from __future__ import annotations

import re

import pytest

from bench.cli import method_docs
from bench.interface import Method
from tests.docs import methods_page

METHODS = [method for methods in methods_page.families().values() for method in methods]


def test_the_page_is_what_the_registry_says() -> None:
    assert methods_page.main(["--check"]) == 0, "run  python -m tests.docs.methods_page"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_method_says_what_it_does_and_what_its_settings_mean(method: Method) -> None:
    said = method_docs.described(type(method))
    assert said.paragraphs and said.paragraphs[0].endswith(".")
    assert set(said.parts) >= {"Source", "Deviates"}, "write both parts into the docstring of the class"
    meanings = method_docs.meanings(method)
    assert [name for name, meaning in meanings.items() if not meaning] == []
    assert set(said.settings) <= set(method.settings), "a meaning without a setting"


def test_every_method_is_on_the_page_once() -> None:
    headings = re.findall(r"^### (.+)$", methods_page.page(), re.M)
    assert sorted(headings) == sorted(method.name for method in METHODS)
    assert "zero-shot" in headings


def test_citations_become_links() -> None:
    text = "See A7 (protocol 12.3, 12.5) and protocol 4."
    assert methods_page.linked(text) == (
        "See [A7](protocol/safe.md#p17-a7) (protocol [12.3](protocol/adapters.md#p12-3), "
        "[12.5](protocol/adapters.md#p12-5)) and protocol [4](protocol/zero-shot-and-linear.md#p4)."
    )
