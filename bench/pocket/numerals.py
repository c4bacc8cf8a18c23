"""Draw the ten digits as glyphs in fonts that matplotlib ships; the embedded CLIPs see no other writing.

This module imports no torch.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.pocket.iconsets import SIDE, Concept, Glyphs

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
INKS = ((10, 10, 10), (250, 250, 250), (200, 40, 40), (40, 60, 200))
CONCEPTS = tuple(Concept(f"digit-{k}", str(k), "digit", (word,)) for k, word in enumerate(WORDS))


def digit_glyphs(first_row: int) -> Glyphs:
    """Draw every digit in every font; digit k is concept ``first_row + k``.

    The result is empty without matplotlib.
    """
    spec = find_spec("matplotlib")
    folder = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" if spec and spec.origin else None
    fonts = sorted(folder.glob("DejaVu*.ttf")) if folder else []
    drawn = [
        (first_row + k, _digit(str(k), font, INKS[(i + k) % len(INKS)], stroke))
        for i, font in enumerate(f for f in fonts if "Display" not in f.name)
        for k in range(10)
        for stroke in (0, 3)
    ]
    if not drawn:
        return Glyphs(np.zeros((0, SIDE, SIDE, 4), np.uint8), np.zeros(0, np.int64))
    return Glyphs(np.stack([image for _, image in drawn]), np.array([row for row, _ in drawn], np.int64))


def _digit(text: str, font: Path, ink: tuple[int, int, int], stroke: int) -> np.ndarray:
    size = ImageFont.truetype(str(font), SIDE)
    left, top, right, bottom = size.getbbox(text, stroke_width=stroke)
    image = Image.new("RGBA", (int(right - left), int(bottom - top)), (*ink, 0))
    ImageDraw.Draw(image).text((-left, -top), text, font=size, fill=(*ink, 255), stroke_width=stroke)
    k = (SIDE - 2) / max(image.size)
    image = image.resize(
        (max(1, round(image.width * k)), max(1, round(image.height * k))), Image.Resampling.BICUBIC
    )
    out = Image.new("RGBA", (SIDE, SIDE), (*ink, 0))
    out.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return np.array(out)
