"""Work out the settings of a method for one cell, and read those that the user gives.

A setting has a default (``settings``), which the dataset's row (``per_dataset[recipe_as]``), the preset
(``presets[preset]``) and the user (``--set method.key=value``) may replace. The last of these wins.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from bench.errors import BenchError
from bench.interface import Method
from bench.names import canonical, nearest

PRESETS = ("paper", "quick")
MOST_SWEPT = 10_000  # most values of one sweep, because each adds an evaluation or a fit to every cell
Overrides = Mapping[str, Mapping[str, Any]]  # canonical method name -> setting -> value


def resolve(method: Method, preset: str, recipe_as: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of ``method`` with their values for this preset and dataset row."""
    row = next((v for k, v in method.per_dataset.items() if canonical(k) == canonical(recipe_as)), {})
    return {**method.settings, **row, **method.presets.get(preset, {}), **overrides}


def by_time(method: Method, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values that a fit can read, and those that act only at inference (``Method.inference``)."""
    early = {name: value for name, value in values.items() if name not in method.inference}
    return early, {name: values[name] for name in method.inference if name in values}


def check_preset(name: str | None, methods: Iterable[Method]) -> None:
    """Raise BenchError if neither the program nor any of the methods has a preset of this name."""
    known = sorted({*PRESETS, *(preset for method in methods for preset in method.presets)})
    if name is not None and name not in known:
        raise BenchError(f"unknown preset '{name}'{nearest(name, known)}; one of: {', '.join(known)}")


def may_be_none(method: Method, setting: str) -> bool:
    """Return whether a setting takes ``none``: its default, or its value in a row or a preset, is None."""
    places = (method.settings, *method.per_dataset.values(), *method.presets.values())
    return any(setting in values and values[setting] is None for values in places)


def parse_value(text: str, default: Any, name: str, none: bool = False) -> Any:
    """Return a value from the command line in the type of the setting's default.

    ``names.value_text`` writes values in this form. A tuple is written with commas, an empty word as ``""``.
    ``none`` gives None if the default is None or ``none`` is true; for a setting that takes words it is a
    word like any other. Raises BenchError, which names what the setting takes, for any other text.
    """
    if isinstance(default, tuple) and not (none and text.strip().lower() == "none"):
        like = default[0] if default else 0.0
        return tuple(parse_value(part, like, name) for part in text.split(","))
    lowered = text.strip().lower()
    if lowered == "none" and (default is None or none) and not isinstance(default, str):
        return None
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False, "1": True, "0": False}[lowered]
        if isinstance(default, int):
            if (count := int(text)) < 0 <= default:
                raise ValueError
            return count
        if isinstance(default, float):
            if not math.isfinite(number := float(text)):
                raise ValueError
            return number
        if isinstance(default, str):
            return "" if text.strip() == '""' else text.strip()
        if isinstance(number := json.loads(lowered), float) and not math.isfinite(number):
            raise ValueError
        return number
    except (KeyError, ValueError) as error:
        kinds = {bool: "true or false", int: "a whole number from 0 on", float: "a finite number"}
        if isinstance(default, int) and default < 0:
            kinds[int] = "a whole number"
        kind = kinds.get(type(default), "a finite number")
        kind += " or none" if default is None or none else ""
        raise BenchError(f"--set {name}={text}: not {kind}") from error


def _split(text: str, option: str, methods: Mapping[str, Method]) -> tuple[Method, str, str]:
    """Return the method, the setting and the text of the value in ``method.key=value``."""
    name, equals, value = text.partition("=")
    owner, dot, setting = name.partition(".")
    if not (equals and dot):
        raise BenchError(f"{option} {text}: write method.key=value, as in {option} safe.beta=0.7")
    method = methods.get(canonical(owner))
    if method is None:
        raise BenchError(
            f"{option} {text}: unknown method '{owner}'{nearest(owner, [m.name for m in methods.values()])}"
        )
    known = {canonical(s): s for s in method.settings}
    if canonical(setting) not in known:
        raise BenchError(
            f"{option} {text}: {method.name} has no setting '{setting}'{nearest(setting, known.values())}; "
            f"its settings: {', '.join(method.settings) or 'none'}"
        )
    if not value.strip() and not isinstance(method.settings[known[canonical(setting)]], str):
        raise BenchError(f"{option} {text}: no value after =; write one, as in {option} safe.beta=0.7")
    return method, known[canonical(setting)], value


def parse_overrides(items: Iterable[str], methods: Mapping[str, Method]) -> dict[str, dict[str, Any]]:
    """Return the values of ``--set method.key=value`` options, by canonical method name and setting."""
    overrides: dict[str, dict[str, Any]] = {}
    for text in items:
        method, setting, value = _split(text, "--set", methods)
        overrides.setdefault(canonical(method.name), {})[setting] = parse_value(
            value, method.settings[setting], f"{method.name}.{setting}", may_be_none(method, setting)
        )
    return overrides


def parse_sweeps(items: Iterable[str], methods: Mapping[str, Method]) -> dict[str, list[dict[str, Any]]]:
    """Return the overrides of ``--sweep`` options, one per value, by canonical method name.

    An option is ``method.key=start:stop:step`` (stop included) or ``method.key=a,b,c``.
    """
    sweeps: dict[str, list[dict[str, Any]]] = {}
    for text in items:
        method, setting, value = _split(text, "--sweep", methods)
        default = method.settings[setting]
        like = default[0] if isinstance(default, tuple) else default
        none = may_be_none(method, setting)
        values = _range(value, text) if ":" in value and not isinstance(like, str) else value.split(",")
        for v in values:
            parsed = parse_value(str(v), like, f"{method.name}.{setting}", none)
            whole = not isinstance(default, tuple) or (parsed is None and none)
            one = parsed if whole else (parsed,)
            sweeps.setdefault(canonical(method.name), []).append({setting: one})
    return sweeps


def _range(text: str, whole: str) -> list[float]:
    """Return the values of ``start:stop:step``, stop included."""
    try:
        start, stop, step = map(float, text.split(":"))
        count = math.floor((stop - start) / step + 1e-9) + 1
        if step <= 0 or count < 1:
            raise ValueError
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise BenchError(
            f"--sweep {whole}: write start:stop:step, finite and with step > 0, as in 0:2:0.1"
        ) from error
    if count > MOST_SWEPT:
        raise BenchError(f"--sweep {whole}: {count:,} values, at most {MOST_SWEPT:,}; take a larger step")
    return [round(start + i * step, 12) for i in range(count)]
