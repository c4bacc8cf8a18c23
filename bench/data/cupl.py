"""From a class name to its key in a CuPL file (datasets 5.6): a rule per dataset, and a table for the exceptions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bench.data.spec import CuplRule
from bench.errors import BenchError
from bench.names import nearest


def _name(words: str) -> str:
    return words


def _year_last(words: str) -> str:
    first, _, rest = words.partition(" ")
    return f"{rest} {first}"


def _scene_qualifier(classname: str) -> str:
    qualifier, blank, scene = classname.partition(" ")
    return f"{scene} ({qualifier})" if blank else classname


RULES: dict[str, Callable[[str], str]] = {
    "name": _name,
    "year-last": _year_last,
    "scene-qualifier": _scene_qualifier,
}


def cupl_key(rule: CuplRule, classname: str) -> str:
    """The key a class name should have: the table's entry, else the rule's form with blanks for underscores."""
    if rule.rule not in RULES:
        raise BenchError(f"unknown CuPL key rule '{rule.rule}'{nearest(rule.rule, RULES)}")
    return rule.keys.get(classname) or RULES[rule.rule](classname).replace("_", " ")


def find_key(rule: CuplRule, classname: str, available: Iterable[str]) -> str:
    """The key of ``classname`` among a file's keys, upper and lower case alike. Raises BenchError when none fits."""
    keys = {key.lower(): key for key in available}
    wanted = cupl_key(rule, classname)
    if wanted.lower() not in keys:
        hint = nearest(wanted, keys.values())
        raise BenchError(f"class '{classname}': no key '{wanted}' among the CuPL prompts{hint}")
    return keys[wanted.lower()]
