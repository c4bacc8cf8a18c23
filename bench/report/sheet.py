"""Draw contact sheets: small images in rows with lines of text under each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.names import shown
from bench.report.pairs import Pair

# Sizes in pixels.
SIDE = 128  # longest side of an image
GAP = 10  # space between images
LINE = 14  # height of a line of text
PER_ROW = 8  # images in a row


@dataclass(frozen=True)
class Flips:
    """Positions in the test list that only the first or only the second method gets right.

    The positions with the most consistent seeds stand first.
    """

    only_first: tuple[int, ...]
    only_second: tuple[int, ...]


def flips(pair: Pair) -> Flips:
    """Return the images on which two methods differ, ordered by the number of seeds in which they do."""
    ahead = pair.first.astype(int) - pair.second.astype(int)  # (S, n); one row stands for every seed

    def most(sign: int) -> tuple[int, ...]:
        count = (ahead == sign).sum(0) - (ahead == -sign).sum(0)
        return tuple(int(i) for i in np.argsort(-count, kind="stable") if count[i] > 0)

    return Flips(most(1), most(-1))


def seed_of(pair: Pair, image: int) -> int:
    """Return the position of the first seed in which the two methods differ on an image."""
    return int((pair.first != pair.second)[:, image].argmax())


@dataclass(frozen=True)
class Picture:
    """An image and the lines under it."""

    image: Image.Image
    lines: tuple[str, ...]


def sheet(title: str, groups: Sequence[tuple[str, Sequence[Picture]]]) -> Image.Image:
    """Draw groups of pictures below one another, each with its heading."""
    font = ImageFont.load_default(size=12)
    lines = max((len(p.lines) for _, pictures in groups for p in pictures), default=0)
    cell = SIDE + lines * LINE + GAP
    heights = [2 * LINE + max(1, -(-len(pictures) // PER_ROW)) * cell for _, pictures in groups]
    canvas = Image.new("RGB", (PER_ROW * (SIDE + GAP) + GAP, 2 * LINE + sum(heights) + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, LINE // 2), shown(title), fill="black", font=ImageFont.load_default(size=14))
    top = 2 * LINE
    for (heading, pictures), height in zip(groups, heights, strict=True):
        text = shown(heading if pictures else f"{heading}: none")
        draw.text((GAP, top + LINE // 2), text, fill="black", font=font)
        for i, picture in enumerate(pictures):
            x, y = GAP + (i % PER_ROW) * (SIDE + GAP), top + 2 * LINE + (i // PER_ROW) * cell
            small = picture.image.copy()
            small.thumbnail((SIDE, SIDE))
            canvas.paste(small, (x, y))
            for k, line in enumerate(picture.lines):
                draw.text((x, y + SIDE + k * LINE), _fitting(shown(line), font), fill="black", font=font)
        top += height
    return canvas


def encoded(image: Image.Image) -> bytes:
    """Return the image as the bytes of a PNG file."""
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()


def _fitting(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(line) <= SIDE + GAP - 2:
        return line
    while line and font.getlength(f"{line}…") > SIDE + GAP - 2:
        line = line[:-1]
    return f"{line}…"
