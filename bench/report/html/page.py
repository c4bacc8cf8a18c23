"""Put the page together: sections in order, with style, script and data inside."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template

import pandas as pd

from bench.errors import BenchError
from bench.names import counted, shown
from bench.report.coordinates import ROW
from bench.report.html import classes, grids, pictures, reproduce, standing
from bench.report.html.details import Details
from bench.report.html.gallery import Find, Gallery, of_catalog
from bench.report.html.text import escape
from bench.report.table import Table
from bench.report.tables import table

# The folder of the page's template, style and script.
_HERE = Path(__file__).resolve().parent

STEPS = 6  # steps that ``say`` of ``report`` counts


def report(
    frame: pd.DataFrame,
    *,
    title: str = "Few-shot CLIP adaptation",
    prompts: Mapping[str, Sequence[str]] | None = None,
    targets: Sequence[str] = (),
    first: Sequence[str] = (),
    plugins: Mapping[str, str] | None = None,
    places: Mapping[str, str] | None = None,
    images: Find = of_catalog,
    say: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> str:
    """Write the report on a DataFrame from ``load_results`` as HTML. Equal records give equal text.

    ``prompts``: the prompt sets that methods use by default, by method, to keep the commands short.
    ``targets``: shifted test sets in the wanted order. ``first``: methods that get a colour before others if
    a figure cannot tell all of them apart. ``plugins``: the files that methods come from, by method, and
    ``places``: the folders or TOML files of people's own datasets, by name; commands name both. ``images``
    returns the dataset of a name with its images, for pictures of mistakes (``gallery.Gallery``). ``say`` is
    called with the current work, the number of finished steps and of all steps. Raises BenchError if no table
    can be made.
    """
    say("tables", 0, STEPS)
    details = Details(frame)
    tables, lost = _first_tables(frame)
    if not tables:
        raise BenchError("; ".join(lost) or "no table can be made of these records")
    shifted = _shift_tables(frame, tuple(targets))
    say("figures", 1, STEPS)
    shown, missing = pictures.all_of(frame, tuple(first))
    say("statistics", 2, STEPS)
    statistics = standing.section(tables)
    say("classes and mistakes", 3, STEPS)
    by_dataset = classes.section(frame, tables, Gallery(images), places)
    say("how to get it again", 4, STEPS)
    again = reproduce.section(frame, prompts or {}, plugins or {}, places or {})
    say("what stands behind each number", 5, STEPS)
    parts = {
        "title": escape(title),
        "summary": _summary(frame),
        "accuracy": "".join(
            grids.grid(t, details, f"t1-{i}", _one(t, len(tables))) for i, t in enumerate(tables)
        ),
        "shifts": _section("shifts", "Shifted test sets", shifted, details),
        "shots": grids.shot_boxes([*tables, *shifted]),
        "figures": f'<div class="pictures">{"".join(shown)}</div>' + _absent(missing),
        "statistics": statistics,
        "classes": by_dataset,
        "reproduce": again,
        "style": _text("style.css"),
        "script": _text("script.js"),
        "data": data(details.payload()),
    }
    return Template(_text("page.html")).substitute(parts)


def data(value: object) -> str:
    """Return JSON that can stand in a script element: nothing in it ends the element or starts a comment.

    Characters that are not printable become escapes that the reader sees.
    """
    text = _dumped(value)
    if not text.isprintable() or "\\u00" in text:
        text = _dumped(_harmless(value))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _dumped(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _harmless(value: object) -> object:
    """Return the same value with only printable characters in its texts, also in keys."""
    if isinstance(value, str):
        return shown(value, keep="\n")
    if isinstance(value, Mapping):
        return {_harmless(key): _harmless(item) for key, item in value.items()}
    return [*map(_harmless, value)] if isinstance(value, list | tuple) else value


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _first_tables(frame: pd.DataFrame) -> tuple[list[Table], list[str]]:
    tables: list[Table] = []
    lost = []
    for backbone in sorted(frame["backbone"].unique()):
        try:
            tables.append(table(frame, "1", backbone=backbone))
        except BenchError as error:
            lost.append(str(error))
    return tables, lost


def _shift_tables(frame: pd.DataFrame, targets: tuple[str, ...]) -> list[Table]:
    """Return one table per source, with the rows that were evaluated on at least one shifted test set."""
    shifted = frame["target"] != frame["dataset"]
    rows = frame[shifted.groupby([frame[name] for name in (*ROW, "dataset")]).transform("any")]
    sources = sorted(frame[shifted]["dataset"].unique())
    return [table(rows, "3", datasets=[source], targets=targets) for source in sources]


def _one(t: Table, several: int) -> str:
    """Return the caption of a first table, with its backbone if there are several tables."""
    backbone = t.rows[0].block[0] if t.rows else ""
    return f"{t.title}, {backbone}" if several > 1 else t.title


def _section(name: str, heading: str, tables: list[Table], details: Details) -> str:
    if not tables:
        return ""
    inner = "".join(grids.grid(t, details, f"t3-{i}", t.title) for i, t in enumerate(tables))
    return f'<section id="{name}"><h2>{escape(heading)}</h2>{inner}</section>'


def _summary(frame: pd.DataFrame) -> str:
    good = frame[frame["status"] == "ok"]
    counts = [
        (good["method"].nunique(), "methods"),
        (good["dataset"].nunique(), "datasets"),
        (good["backbone"].nunique(), "backbones"),
        (good["fit"].nunique(), "fits"),
        (len(good), "evaluations"),
    ]
    words = [f"{n} {name if n != 1 else name.removesuffix('s')}" for n, name in counts]
    last = max((str(w) for w in frame["written"]), default="")[:10]
    bad = int((frame["status"] == "failed").sum())
    more = (
        f" {counted(bad, 'cell')} failed; the tables show {'it' if bad == 1 else 'them'} as ERR."
        if bad
        else ""
    )
    return escape(f"{', '.join(words)}. The last record was written on {last}." + more)


def _absent(missing: list[str]) -> str:
    if not missing:
        return ""
    items = "".join(f"<li>{escape(reason)}</li>" for reason in missing)
    return (
        '<details class="absent"><summary>Figures that these records do not allow</summary>'
        f"<ul>{items}</ul></details>"
    )
