"""How to get these numbers again: the commands, the program, the machines."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bench.names import RECIPE
from bench.records import store
from bench.report.html.text import escape

_AXES = ("dataset", "shots", "seed")


def section(frame: pd.DataFrame, prompts: Mapping[str, Any]) -> str:
    """Commands and provenance as HTML."""
    lines = "\n".join(commands(frame, prompts))
    rows = "".join(
        f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in provenance(frame)
    )
    return (
        "<p>Each command resumes: cells that have a record are not run again. "
        "Folders of own images and plugins have to be named again.</p>"
        f"<pre><code>{escape(lines)}</code></pre>"
        f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>'
    )


def commands(frame: pd.DataFrame, prompts: Mapping[str, Any]) -> list[str]:
    """``bench run`` commands whose grids together are the cells of the frame.

    ``prompts``: methods' own prompt sets.
    """
    grids: dict[tuple[Any, ...], list[str]] = {}
    for key, rows in frame.groupby(["backbone", "protocol", "preset", "method"], sort=True):
        for variant, own in rows.groupby("variant", sort=True):
            sets = tuple(sorted(own["prompts"].unique()))
            named = () if _usual(key[3], sets, prompts) else ("--prompts", ",".join(sets))
            flags = (*_setting(str(key[3]), str(variant)), *named)
            shape = tuple(tuple(sorted(set(own[axis]) - {0})) for axis in _AXES)
            shifted = bool((own["target"] != own["dataset"]).any())
            grids.setdefault((*key[:3], flags, shape, shifted), []).append(str(key[3]))
    return [_command(key, methods) for key, methods in _merged(grids)]


def _usual(method: Any, sets: tuple[str, ...], prompts: Mapping[str, Any]) -> bool:
    return method in prompts and set(prompts[method]) == set(sets)


def _setting(method: str, variant: str) -> tuple[str, ...]:
    """A row's changed settings as flags; those of the methods below bear their own names already."""
    flags: list[str] = []
    for part in filter(None, variant.split(", ")):
        name, _, value = part.partition("=")
        owner, dot, setting = name.rpartition(".")
        flags += ["--set", f"{owner if dot else method}.{setting}={value.replace('/', ',')}"]
    return tuple(flags)


def _merged(grids: dict[tuple[Any, ...], list[str]]) -> Iterator[tuple[tuple[Any, ...], list[str]]]:
    """Methods without labels join grids on the same datasets; values of one swept setting join too."""
    sweeps: dict[tuple[Any, ...], list[str]] = {}
    rest: dict[tuple[Any, ...], list[str]] = {}
    for key, methods in grids.items():
        flags = key[3]
        if len(flags) >= 2 and flags[0] == "--set" and flags.count("--set") == 1 and "," not in flags[1]:
            name, _, value = flags[1].partition("=")
            sweeps.setdefault((*key[:3], (name, flags[2:], methods[0]), *key[4:]), []).append(value)
        else:
            rest[key] = list(methods)
    for key in [k for k in rest if not k[4][1]]:  # no shots: no labels
        host = next(
            (k for k in rest if k[:4] == key[:4] and k[4][0] == key[4][0] and k[4][1] and k[5] == key[5]),
            None,
        )
        if host is not None:
            rest[host] = [*rest.pop(key), *rest[host]]
    yield from rest.items()
    for (*head, (name, flags, method), shape, shifted), values in sweeps.items():
        text = ",".join(sorted(values, key=_number))
        yield (*head, ("--sweep", f"{name}={text}", *flags), shape, shifted), [method]


def _number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def _command(key: tuple[Any, ...], methods: list[str]) -> str:
    backbone, protocol, preset, flags, (datasets, shots, seeds), shifted = key
    words = ["bench", "run", "--methods", ",".join(methods), "--datasets", ",".join(datasets)]
    words += ["--shots", ",".join(map(str, shots)), "--seeds", ",".join(map(str, seeds))] if shots else []
    words += ["--backbone", backbone, "--preset", preset]
    words += ["--protocol", protocol] if protocol != RECIPE else []
    return shlex.join([*words, "--targets" if shifted else "--no-targets", *flags])


def provenance(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """What the records say of program, machine and weights; several values where they differ."""
    facts_by_name: dict[str, dict[str, None]] = {}
    for path, backbone in zip(frame["path"], frame["backbone"], strict=True):
        said = store.read(Path(path))
        if said is None:
            continue
        facts = said.provenance
        if facts.device_name:
            commit = facts.commit or "not a checkout"
            facts_by_name.setdefault("commit", {})[f"{commit}{' with changes' if facts.dirty else ''}"] = None
            facts_by_name.setdefault("machine", {})[f"{facts.device_name} ({facts.device})"] = None
        if facts.flags:
            facts_by_name.setdefault("flags", {})[", ".join(f"{k} {v}" for k, v in facts.flags.items())] = (
                None
            )
        for name, version in facts.libraries.items():
            facts_by_name.setdefault(name, {})[str(version)] = None
        if fit := store.fit_of(Path(path), said):
            facts_by_name.setdefault(f"weights of {backbone}", {})[f"SHA-256 {fit.parts.weights}"] = None
    return [(name, "; ".join(values)) for name, values in facts_by_name.items()]
