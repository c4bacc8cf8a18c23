"""Write the commands that make the numbers again, and the program and machines behind them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bench.data import catalog
from bench.names import RECIPE, value_text
from bench.records import store
from bench.records.keys import SINGLE
from bench.records.types import EvaluationRecord, Failure, FitRecord
from bench.report.command import command
from bench.report.frame import precision
from bench.report.html.text import escape

_AXES = ("dataset", "shots", "seed")
_READY = (
    "<p>These commands run as they are, in the folder in which the report was made. Cells that have a record "
    "are not run again. Datasets with files of their own are looked for in $BENCH_DATA or --data-root.</p>"
)

_IMPORTED = (
    "Predictions of methods that live elsewhere were imported from files: write the path of each file."
)


class Command(NamedTuple):
    """A command as text, and what somebody has to add before it runs (empty: it runs as it is)."""

    text: str
    lacks: tuple[str, ...] = ()


class _Grid(NamedTuple):
    """The cells that one command makes, except for their methods.

    ``shape``: datasets, shots and seeds. ``flags``: changed settings, prompt sets and plugins. ``lacks``:
    what the command needs and the records do not hold.
    """

    folder: str
    backbone: str
    protocol: str
    preset: str
    flags: tuple[str, ...]
    shape: tuple[tuple[Any, ...], ...]
    shifted: bool
    lacks: tuple[str, ...] = ()


class _Made(NamedTuple):
    """What the records behind a row say of how it was made.

    ``flags``: changed settings and the precision as options. ``own``: the methods that are plugins, so that
    their source is in the keys. ``place``: the end of the path of a person's own dataset, None for those of
    the program. ``imported``: whether the predictions were made elsewhere.
    """

    flags: tuple[str, ...]
    own: tuple[str, ...]
    place: str | None
    imported: bool = False


def section(
    frame: pd.DataFrame, prompts: Mapping[str, Any], plugins: Mapping[str, str], places: Mapping[str, str]
) -> str:
    """Write commands and provenance as HTML."""
    every = commands(frame, prompts, plugins, places)
    ready = "\n".join(one.text for one in every if not one.lacks)
    rows = "".join(
        f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in provenance(frame)
    )
    return (
        (_READY + f'<pre class="commands"><code>{escape(ready)}</code></pre>' if ready else "")
        + _unfinished([one for one in every if one.lacks])
        + f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>'
    )


def _unfinished(some: Sequence[Command]) -> str:
    if not some:
        return ""
    lacking = dict.fromkeys(reason for one in some for reason in one.lacks)
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in lacking)
    lines = "\n".join(one.text for one in some)
    return (
        "<p>The following commands need a path that the records do not hold. "
        "<code>bench report</code> writes those of plugins and datasets into them if you name them with "
        "--plugin or --datasets.</p>"
        f"<ul>{reasons}</ul><pre><code>{escape(lines)}</code></pre>"
    )


def commands(
    frame: pd.DataFrame,
    prompts: Mapping[str, Any],
    plugins: Mapping[str, str] | None = None,
    places: Mapping[str, str] | None = None,
) -> list[Command]:
    """List ``bench run`` commands whose grids together are the cells of the frame.

    ``prompts``: methods' default prompt sets. ``plugins``: the file of each method that is a plugin, empty if
    it needs none. ``places``: the folder or TOML file of each dataset of a person's own.
    """
    plugins, places = plugins or {}, places or {}
    folders, catalogue = list(map(str, frame.attrs.get("folders", ()))), set(catalog.names())
    grids: dict[_Grid, list[str]] = {}
    imports: list[Command] = []
    located = frame.assign(
        folder=[_folder(path, folders) for path in frame["path"]], variant=frame["variant"].astype(str)
    )
    axes = ["folder", "backbone", "protocol", "preset", "method", "variant"]
    for values, rows in located.groupby(axes, sort=True):
        folder, backbone, protocol, preset, method, _ = map(str, values)
        made = {str(name): _made(some.iloc[0]) for name, some in rows.groupby("dataset", sort=True)}
        first = next(iter(made.values()))
        if first.imported:
            imports += [_import(row, folder) for _, row in rows.iterrows()]
            continue
        files = sorted({plugins[name] for name in first.own if plugins.get(name)})
        theirs = {*first.own, *([method] if plugins else [])} - set(plugins)
        lacks = [f"The method {name} is a plugin's: add --plugin FILE." for name in sorted(theirs)]
        unknown = {
            n: m.place
            for n, m in made.items()
            if n not in places and (m.place is not None or n not in catalogue)
        }
        lacks += [
            f"The dataset {name} is somebody's own: replace its name by its path"
            + (f", which ended in {place}." if place else ".")
            for name, place in unknown.items()
        ]
        sets = tuple(sorted(rows["prompts"].unique()))
        named = () if _usual(method, sets, prompts) else ("--prompts", ",".join(sets))
        flags = (*first.flags, *named, *(word for file in files for word in ("--plugin", file)))
        shape = tuple(tuple(sorted(set(rows[axis]) - {0})) for axis in _AXES)
        shape = (tuple(places.get(name, name) for name in shape[0]), *shape[1:])
        shifted = bool((rows["target"] != rows["dataset"]).any())
        grid = _Grid(folder, backbone, protocol, preset, flags, shape, shifted, tuple(lacks))
        grids.setdefault(grid, []).append(method)
    return [*(_command(grid, methods) for grid, methods in _merged(grids)), *imports]


def _import(row: pd.Series, folder: str) -> Command:
    """Return the command that imports predictions again. Records hold the name of the file alone."""
    record = store.read(Path(row["path"]))
    file = record.imported if isinstance(record, EvaluationRecord) else ""
    words = [file, "--name", row["method"], "--dataset", row["dataset"], "--shots", str(row["shots"])]
    words += ["--seed", str(row["seed"])] if row["shots"] else []
    words += ["--target", row["target"]] if row["target"] != row["dataset"] else []
    words += ["--backbone", row["backbone"], "--preset", row["preset"]]
    words += ["--protocol", row["protocol"]] if row["protocol"] != RECIPE else []
    return Command(command("import", shlex.join(words), [folder] if folder else []), (_IMPORTED,))


def _folder(path: str, folders: Sequence[str]) -> str:
    """Return the results folder in which a record lies; empty if the frame does not say which were read."""
    return next((folder for folder in folders if Path(path).is_relative_to(folder)), "")


def _made(row: pd.Series) -> _Made:
    path = Path(row["path"])
    record = store.read(path)
    if record is None or isinstance(record, FitRecord):
        return _Made((), (), None)
    fits = store.behind(path, record)
    failed = record.parts if isinstance(record, Failure) else None
    changed = {fit.cell.method: dict(fit.changed) for fit in reversed(fits)}
    changed.setdefault(record.cell.method, {}).update(record.changed)
    flags = [
        word
        for method, values in changed.items()
        for name, value in sorted(values.items())
        for word in ("--set", f"{method}.{name}={value_text(value, typed=True)}")
    ]
    encoded = precision(fits[0].parts if fits else failed)
    flags += ["--precision", encoded] if encoded != SINGLE else []
    own = [fit.cell.method for fit in fits if fit.parts.source]
    own += [record.cell.method] if failed and failed.source and not fits else []
    identity = fits[0].dataset_identity if fits else getattr(record, "dataset_identity", "")
    place = (fits[0].dataset_place if fits else "") if identity else None
    imported = isinstance(record, EvaluationRecord) and bool(record.imported)
    return _Made(tuple(flags), tuple(own), place, imported)


def _usual(method: Any, sets: tuple[str, ...], prompts: Mapping[str, Any]) -> bool:
    return method in prompts and set(prompts[method]) == set(sets)


def _merged(grids: Mapping[_Grid, list[str]]) -> Iterator[tuple[_Grid, list[str]]]:
    """Join grids that one command can make.

    Methods without labels join a grid on the same datasets, and the values of one swept setting join too.
    """
    sweeps: dict[tuple[_Grid, str, str], list[str]] = {}
    rest: dict[_Grid, list[str]] = {}
    for grid, methods in grids.items():
        flags = grid.flags
        if (
            len(methods) == 1
            and flags[:1] == ("--set",)
            and flags.count("--set") == 1
            and "," not in flags[1]
        ):
            name, _, value = flags[1].partition("=")
            sweeps.setdefault((grid._replace(flags=flags[2:]), name, methods[0]), []).append(value)
        else:
            rest[grid] = list(methods)
    for grid in [g for g in rest if not g.shape[1]]:  # no shots, so no labels
        datasets = grid.shape[:1]
        like = grid._replace(shape=datasets)
        host = next((g for g in rest if g.shape[1] and g._replace(shape=g.shape[:1]) == like), None)
        if host is not None:
            rest[host] = [*rest.pop(grid), *rest[host]]
    yield from rest.items()
    for (grid, name, method), values in sweeps.items():
        text = ",".join(sorted(values, key=_number))
        yield grid._replace(flags=("--sweep", f"{name}={text}", *grid.flags)), [method]


def _number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def _command(grid: _Grid, methods: list[str]) -> Command:
    datasets, shots, seeds = grid.shape
    words = ["--methods", ",".join(methods), "--datasets", ",".join(datasets)]
    words += ["--shots", ",".join(map(str, shots)), "--seeds", ",".join(map(str, seeds))] if shots else []
    words += ["--backbone", grid.backbone, "--preset", grid.preset]
    words += ["--protocol", grid.protocol] if grid.protocol != RECIPE else []
    words += ["--targets" if grid.shifted else "--no-targets", *grid.flags]
    folders = [grid.folder] if grid.folder else []
    return Command(command("run", shlex.join(words), folders), grid.lacks)


def provenance(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return what the records say of program, machine and weights, with all values where they differ."""
    facts_by_name: dict[str, dict[str, None]] = {}
    for path, backbone in zip(frame["path"], frame["backbone"], strict=True):
        record = store.read(Path(path))
        if record is None:
            continue
        facts = record.provenance
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
        fit = store.fit_of(Path(path), record)
        if fit and fit.parts.weights:
            facts_by_name.setdefault(f"weights of {backbone}", {})[f"SHA-256 {fit.parts.weights}"] = None
    return [(name, "; ".join(values)) for name, values in facts_by_name.items()]
