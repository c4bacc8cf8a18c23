"""Hostile names for tests: printed as they are, they would steer a terminal, a browser or a spreadsheet."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

LINK = "\x1b]8;;http://evil\x07\x1b[31mred\x1b[0m"
UNSEEN = "\u202eevil\u2066\u200b\x9b31m\x7f\u2028\ufeff"
NAMES = ("[red]bold[x]", "[]", ":boom: $x^2$", "=1+1|cmd", "<img src=x onerror=alert(1)>", LINK, UNSEEN)
TITLE = f"=[red]mk[/x] :boom: $\\frac{{x $ \\input{{x}} `a` [x](javascript:alert) <img src=x> {LINK} {UNSEEN}"


def folder(root: Path, count: int = 8) -> Path:
    """A folder with a hostile name and a class folder for every hostile name."""
    place = root / f"set [red] [] {LINK.replace('/', '')} {UNSEEN} $x :smile:"
    for k, name in enumerate(NAMES):
        own = place / name.replace("/", "")
        own.mkdir(parents=True)
        for i in range(count):
            draw = random.Random(f"{k} {i}")
            image = Image.new("RGB", (16, 16))
            image.putdata([(draw.randrange(256), 30 * k, draw.randrange(256)) for _ in range(256)])
            image.save(own / f"{i}[b]\x1b[5m.png")
    return place


def raw(text: str) -> set[str]:
    """What is in a text that must not be, line breaks aside."""
    return {c for c in text if not c.isprintable()} - {"\n"}
