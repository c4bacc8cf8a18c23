"""Read the parts of a method's docstring and the meanings of its settings, for lists and pages.

A method says in the docstring of its class what it does, and then, each at the start of a line:

    Source: the paper, and the section of docs/protocol
    Trains: what is trained
    Deviates: where it differs from the published code, and why
    Settings:
        name: the meaning of the setting, with its unit

Every part may be missing. A subclass inherits the settings that its parents describe, and no other part. Two
backticks become one, as in Markdown.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.interface import Method
from bench.names import value_text

PARTS = ("Source", "Trains", "Deviates", "Settings")
_HEAD = re.compile(rf"({'|'.join(PARTS)}):(?: (.*))?")
_SETTING = re.compile(r"( +)(\w+): (.+)")


@dataclass(frozen=True)
class Described:
    """A class's docstring: its paragraphs before the first part, and its parts, each on one line.

    ``settings``: the meanings that this docstring gives, by name.
    """

    paragraphs: tuple[str, ...]
    parts: dict[str, str]
    settings: dict[str, str]


def described(cls: type[Method]) -> Described:
    """Return the parts of the docstring that stands in the class itself."""
    before: list[str] = []
    parts: dict[str, list[str]] = {}
    lines = before
    text = inspect.cleandoc(vars(cls).get("__doc__") or "").replace("``", "`")
    for line in text.splitlines():
        if head := _HEAD.fullmatch(line):
            lines = parts.setdefault(head[1], [])
            lines.append(head[2] or "")
        else:
            lines.append(line)
    paragraphs = (" ".join(part.split()) for part in "\n".join(before).split("\n\n"))
    settings = _meanings(parts.pop("Settings", []))
    joined = {name: " ".join(" ".join(part).split()) for name, part in parts.items()}
    return Described(tuple(filter(None, paragraphs)), joined, settings)


def _meanings(lines: list[str]) -> dict[str, str]:
    """Return the meanings in the lines of a part ``Settings``; a deeper line continues the one above it."""
    found: dict[str, str] = {}
    name, indent = "", None
    for line in lines:
        entry = _SETTING.fullmatch(line)
        if entry and indent in (None, len(entry[1])):
            name, indent = entry[2], len(entry[1])
            found[name] = entry[3]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return {name: " ".join(text.split()) for name, text in found.items()}


def meanings(method: Method) -> dict[str, str]:
    """Return the meaning of every setting, its own docstring before its parents'; empty where none has it."""
    known: dict[str, str] = {}
    for cls in reversed(type(method).__mro__):
        if issubclass(cls, Method) and cls is not Method:
            known |= described(cls).settings
    return {name: known.get(name, "") for name in method.settings}


def settings(method: Method) -> list[dict[str, Any]]:
    """Return the settings of a method as rows.

    ``refits``: whether another value is another fit; if not, the value acts at inference only.
    """

    def by(table: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any]:
        return {key: values[name] for key, values in table.items() if name in values}

    return [
        {
            "name": name,
            "default": method.settings[name],
            "presets": by(method.presets, name),
            "datasets": by(method.per_dataset, name),
            "refits": name not in method.inference,
            "meaning": meaning,
        }
        for name, meaning in meanings(method).items()
    ]


def changes(row: Mapping[str, Any]) -> list[str]:
    """Return what presets and datasets change in a row of ``settings``; equal values share a line."""
    lines = [f"preset {preset}: {value_text(value)}" for preset, value in row["presets"].items()]
    groups: dict[str, list[str]] = {}
    for name, value in row["datasets"].items():
        groups.setdefault(value_text(value), []).append(name)
    if groups:
        lines.append("datasets " + "; ".join(f"{', '.join(names)}: {v}" for v, names in groups.items()))
    return lines
