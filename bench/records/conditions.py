"""What may move a number by rounding: the device, threads, libraries and flags that it was made under."""

from __future__ import annotations

from collections.abc import Iterable

from bench.records.types import Provenance

# What records that do not say it were made without.
_OFF = {"streamed": False, "flush_denormal": False}

Conditions = tuple[tuple[str, str], ...]  # (name, value), sorted


def conditions(facts: Provenance) -> Conditions:
    """The conditions that a record was made under."""
    named = {
        "device": f"{facts.device.partition(':')[0]} ({facts.device_name})",
        "threads": str(facts.threads),
    }
    named |= {name: "on" if on else "off" for name, on in {**_OFF, **facts.flags}.items()}
    return tuple(sorted({**named, **facts.libraries}.items()))


def mixed(many: Iterable[Conditions]) -> str:
    """In one line what differs between conditions; empty where nothing does."""
    several: dict[str, list[str]] = {}
    every = [dict(one) for one in many]
    for name in dict.fromkeys(name for one in every for name in one):
        values = {one[name] for one in every if name in one}  # older records do not say everything
        if len(values) > 1:
            several[name] = sorted(values)
    return "; ".join(f"{name} {' and '.join(values)}" for name, values in several.items())
