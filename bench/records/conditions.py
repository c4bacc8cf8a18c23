"""Collect and compare the conditions that numbers were made under: device, threads, libraries and flags.

No key contains the conditions, because they change a number by rounding only. Tables and runs name the
conditions that differ.
"""

from __future__ import annotations

from collections.abc import Iterable

from bench.records.types import Provenance

# Flags that older records do not name; such records were made without them.
_OFF = {"streamed": False, "flush_denormal": False}

Conditions = tuple[tuple[str, str], ...]  # (name, value), sorted


def conditions(facts: Provenance) -> Conditions:
    """Return the conditions that a record was made under, sorted by name."""
    named = {
        "device": f"{facts.device.partition(':')[0]} ({facts.device_name})",
        "threads": str(facts.threads),
    }
    named |= {name: "on" if on else "off" for name, on in {**_OFF, **facts.flags}.items()}
    return tuple(sorted({**named, **facts.libraries}.items()))


def mixed(many: Iterable[Conditions]) -> str:
    """Return one line that names the conditions that differ, or "" if none does."""
    several: dict[str, list[str]] = {}
    every = [dict(one) for one in many]
    for name in dict.fromkeys(name for one in every for name in one):
        values = {one[name] for one in every if name in one}  # older records do not name all conditions
        if len(values) > 1:
            several[name] = sorted(values)
    return "; ".join(f"{name} {' and '.join(values)}" for name, values in several.items())
