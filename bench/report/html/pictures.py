"""Put figures into the page as inline SVG, with ids of their own and without links to the outside."""

from __future__ import annotations

import re

import pandas as pd

from bench.errors import BenchError
from bench.report.figures.plot import KINDS, encode, plot
from bench.report.html.text import escape

_PER_BACKBONE = ("shots", "cd", "time", "prompts")
_ZOOM = 1.2 / 0.75  # CSS pixels per point; the figure is a fifth larger than in print
_HEADINGS = {
    "shots": "Accuracy against shots",
    "cd": "Average ranks over datasets",
    "time": "Accuracy against seconds",
    "prompts": "Prompt sets",
    "beta": "Blending with the frozen head",
}

_CAPTIONS = {
    "shots": "Lines are means over seeds with 95 % intervals. These cover other test images of the datasets "
    "and, where there are several seeds, other draws of the support set. Dashed grey lines are methods that "
    "use no labels.",
    "cd": "Rank 1 is best. "
    "A bar joins methods whose average ranks differ by less than the critical difference.",
    "time": "The seconds of one cell cover preparing, training every configuration, searching, evaluating. "
    "Bars are 95 % intervals. A ring marks a method that no other beats in both speed and accuracy.",
    "prompts": "The figure compares prompt sets for one method on the same support sets. "
    "Bars are 95 % intervals.",
    "beta": "The same fits are evaluated with different weights of the frozen head. "
    "Bands are 95 % intervals of the paired change.",
}


def all_of(frame: pd.DataFrame, first: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    """Return the HTML of every figure that the records allow, and the reasons why others are missing."""
    general = frame.attrs.get("notes", ())  # these notes stand below the tables already
    shown: list[str] = []
    missing: list[str] = []
    backbones: list[str | None] = sorted(frame["backbone"].unique())
    swept = sorted(frame[frame["variant"].str.startswith("beta=")]["dataset"].unique())
    places: dict[str, list[tuple[str | None, list[str]]]] = {
        kind: [(b, []) for b in backbones] for kind in _PER_BACKBONE
    }
    places["beta"] = [(None, [name]) for name in swept] or [(None, [])]
    for kind in (kind for kind in KINDS if kind in places):
        for backbone, datasets in places[kind]:
            where = "".join(
                f", {name}" for name in (backbone if len(backbones) > 1 else "", *datasets) if name
            )
            try:
                drawn = plot(frame, kind, backbone=backbone, datasets=datasets, first=first)
            except BenchError as error:
                missing.append(f"{_HEADINGS[kind]}{where}: {error}")
                continue
            picture = inline(encode(drawn, "svg").decode(), f"figure-{len(shown)}", drawn.alt)
            notes = "".join(f"<li>{escape(note)}</li>" for note in drawn.notes if note not in general)
            below = f'<figcaption>{escape(_CAPTIONS[kind])}<ul class="notes">{notes}</ul></figcaption>'
            wide = " wide" if drawn.figure.get_figwidth() > 5 else ""
            shown.append(
                f'<figure class="picture{wide}"><h3>{escape(_HEADINGS[kind] + where)}</h3>'
                f'<div class="scroll">{picture}</div>{below}</figure>\n'
            )
    return shown, missing


def inline(svg: str, name: str, alt: str) -> str:
    """Turn an SVG file into an element of a page.

    Its ids begin with ``name``, its style applies to it alone, and its metadata are dropped.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
    svg = re.sub(r'\b(id=")', rf"\g<1>{name}-", svg)
    svg = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("*{", f"#{name} *{{")
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0]
    size = f'viewBox="0 0 {width} {height}" style="width:{float(width) * _ZOOM:.0f}px"'
    head = f'<svg id="{name}" role="img" aria-label="{escape(alt)}" {size} xmlns:xlink="http://www.w3.org/1999/xlink">'
    return head + svg[svg.index(">", svg.index("<svg")) + 1 :]
