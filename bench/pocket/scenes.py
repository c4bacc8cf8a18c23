"""Draw scenes of the embedded suite: one main glyph among smaller ones on a textured background.

A scene is a tuple of integers. They are drawn from the bytes that SHAKE-256 gives for (dataset, split, class,
index), so that the list of scenes is the same on every machine and with every library version. Pixels are
computed when a scene is opened, and agree between machines to 2 levels of 255. This module imports no torch.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from bench.errors import BenchError
from bench.names import nearest
from bench.pocket import glyphs, textures

SIDE = 128  # px, the side of a scene, which is square
RENDERING = 1  # part of every dataset digest: raise it when the pixels of a scene may change
_COARSE = 64  # px, the size at which textures are computed before they are enlarged


class Sprite(NamedTuple):
    """A glyph in a scene: its centre and longer side in px, its angle in degrees (anticlockwise)."""

    glyph: int
    x: int
    y: int
    size: int
    angle: int


class Scene(NamedTuple):
    """A scene in integers.

    ``bench.pocket.textures`` explains those of the background; ``contrast`` is in percent.
    """

    main: Sprite
    others: tuple[Sprite, ...]
    texture: int
    colour: int
    shift: tuple[int, int, int]
    depth: int
    angle: int
    frequency: int
    phase: int
    seed: int
    contrast: int


@dataclass(frozen=True)
class Style:
    """The ranges, ends included, that a scene's generator draws from.

    Sizes and distances are in px, contrast is in percent.
    """

    size: tuple[int, int] = (64, 125)
    off_centre: int = SIDE  # how far the main glyph may move on each axis; it always stays inside
    others: tuple[int, int] = (0, 3)
    other_size: tuple[int, int] = (18, 38)
    ring: tuple[int, int] = (46, 56)  # distance of the other glyphs from the centre
    plain: int = 25  # percent of scenes with a plain background, beside those whose texture is "plain"
    colours: tuple[str, ...] = tuple(textures.COLOURS)
    depth: tuple[int, int] = (25, 89)
    contrast: tuple[int, int] = (85, 100)


STYLES: Mapping[str, Style] = {
    "common": Style(),
    # Without black backgrounds black lines stay visible.
    "paper": Style(colours=tuple(name for name in textures.COLOURS if name != "black")),
    "hard": Style(
        size=(44, 64), off_centre=14, others=(3, 5), other_size=(22, 36), plain=0, contrast=(35, 60)
    ),
}


@dataclass(frozen=True)
class SceneSource:
    """An opener (ImageSource) of one dataset's scenes by path, such as ``train/cat/0042.png``.

    It can be pickled. ``drawings`` maps a split to the glyph ids of each class. The i-th scene of a class
    shows drawing i modulo their number, so that every drawing gets its share. The other glyphs of a scene are
    drawings of other classes of the same split, smaller than the main one and nearer to the border.
    """

    dataset: str
    classnames: tuple[str, ...]
    drawings: Mapping[str, tuple[tuple[int, ...], ...]]
    style: str = "common"

    def open(self, path: str) -> Image.Image:
        """Return the scene as an RGB image, (SIDE, SIDE).

        Raises BenchError for a path that names no scene.
        """
        return render(self.scene(path))

    def scene(self, path: str) -> Scene:
        """Return the integers behind a path. Raises BenchError for a path that names no scene."""
        match = re.fullmatch(r"([a-z]+)/([^/]+)/(\d{4})\.png", path)
        labels = _labels(self.classnames)
        if match is None or match[1] not in self.drawings or match[2] not in labels:
            example = f"{next(iter(self.drawings))}/{next(iter(labels))}/0000.png"
            raise BenchError(f"{self.dataset} has no image '{path}'; paths look like {example}")
        return self.draw(match[1], labels[match[2]], int(match[3]))

    def draw(self, split: str, label: int, index: int) -> Scene:
        """Return the ``index``-th scene of a class in ``split``."""
        if self.style not in STYLES:
            raise BenchError(f"{self.dataset}: unknown style '{self.style}'{nearest(self.style, STYLES)}")
        drawings, style = self.drawings[split], STYLES[self.style]
        words = _words(f"{self.dataset}/{split}/{self.classnames[label]}/{index}")
        main = _main(drawings[label][index % len(drawings[label])], style, words)
        others = tuple(
            _other(drawings, label, style, words)
            for _ in range(_pick(words, *style.others))
            if len(drawings) > 1
        )
        return Scene(
            main,
            others,
            texture=_pick(words, 0, len(textures.TEXTURES) - 1) * (_pick(words, 0, 99) >= style.plain),
            colour=list(textures.COLOURS).index(style.colours[_pick(words, 0, len(style.colours) - 1)]),
            shift=(_pick(words, -19, 19), _pick(words, -19, 19), _pick(words, -19, 19)),
            depth=_pick(words, *style.depth),
            angle=_pick(words, 0, 179),
            frequency=_pick(words, 400, 900),
            phase=_pick(words, 0, 359),
            seed=_pick(words, 0, 2**31 - 1),
            contrast=_pick(words, *style.contrast),
        )


def folder(classname: str) -> str:
    """Return a class name as part of a path: lower case, everything but letters and digits as a hyphen."""
    return re.sub(r"[^a-z0-9]+", "-", classname.lower()).strip("-")


@lru_cache
def _labels(classnames: tuple[str, ...]) -> dict[str, int]:
    return {folder(name): label for label, name in enumerate(classnames)}


def render(scene: Scene) -> Image.Image:
    """Return the scene as an RGB image, (SIDE, SIDE)."""
    first, second = textures.tones(scene.colour, scene.shift, scene.depth)
    weight = textures.weight(scene.texture, _COARSE, scene.angle, scene.frequency, scene.phase, scene.seed)
    coarse = np.array(first) + weight[:, :, None] * (np.array(second) - np.array(first))
    image = Image.fromarray(np.rint(coarse).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    for sprite in (*scene.others, scene.main):
        patch, corner = _place(sprite)
        image.paste(patch, corner, patch)
    if scene.contrast < 100:
        image = Image.blend(Image.new("RGB", image.size, first), image, scene.contrast / 100)
    return image


def render_masks(scene: Scene) -> dict[str, np.ndarray]:
    """Return where each thing is visible, as boolean (SIDE, SIDE) arrays that cover every pixel exactly once.

    The keys are ``main``, ``other0``, ``other1``, ... in the scene's order, and ``background``. A pixel
    belongs to the foremost drawing that is at least half opaque there, and to the background if there is
    none. The soft edges of drawings in front of it may still hide most of it: k edges, each under half
    opaque, leave as little as 0.5 ** k of what they cover to be seen.
    """
    free = np.ones((SIDE, SIDE), bool)
    masks = {}
    names = [f"other{i}" for i in range(len(scene.others))]
    for name, sprite in reversed([*zip(names, scene.others, strict=True), ("main", scene.main)]):
        canvas = Image.new("L", (SIDE, SIDE))
        patch, corner = _place(sprite)
        canvas.paste(patch.getchannel("A"), corner)
        masks[name] = (np.asarray(canvas) > 127) & free
        free &= ~masks[name]
    return {"main": masks["main"], **{name: masks[name] for name in names}, "background": free}


def _place(sprite: Sprite) -> tuple[Image.Image, tuple[int, int]]:
    """Return a sprite as RGBA, and the position of its top left corner."""
    glyph = glyphs.raster(sprite.glyph)
    size = (
        max(1, glyph.width * sprite.size // glyphs.SIDE),
        max(1, glyph.height * sprite.size // glyphs.SIDE),
    )
    patch = glyph.resize(size, Image.Resampling.BILINEAR)
    patch = patch.rotate(sprite.angle, Image.Resampling.BILINEAR, expand=True)
    return patch, (sprite.x - patch.width // 2, sprite.y - patch.height // 2)


def _main(glyph: int, style: Style, words: Iterator[int]) -> Sprite:
    """Draw the main glyph's size, position and angle."""
    size = _pick(words, *style.size)
    reach = min(style.off_centre, (SIDE - size) // 2)
    x, y = _pick(words, -reach, reach), _pick(words, -reach, reach)
    return Sprite(glyph, SIDE // 2 + x, SIDE // 2 + y, size, _pick(words, -17, 17))


def _other(drawings: tuple[tuple[int, ...], ...], label: int, style: Style, words: Iterator[int]) -> Sprite:
    """Draw a glyph of another class on a ring around the centre."""
    row = drawings[(label + _pick(words, 1, len(drawings) - 1)) % len(drawings)]
    glyph = row[_pick(words, 0, len(row) - 1)]
    x, y = _on_square(_pick(words, 0, 359), _pick(words, *style.ring))
    return Sprite(glyph, SIDE // 2 + x, SIDE // 2 + y, _pick(words, *style.other_size), _pick(words, -28, 28))


def _on_square(turn: int, radius: int) -> tuple[int, int]:
    """Return a point on a square around the origin, ``turn`` of 360 along it.

    Unlike a circle, a square needs integers only.
    """
    side, step = divmod(turn, 90)
    along = (2 * step - 89) * radius // 90
    return ((along, -radius), (radius, along), (-along, radius), (-radius, -along))[side]


def _words(key: str) -> Iterator[int]:
    """Return the unsigned 32-bit integers that belong to ``key``, as many as any scene takes."""
    return iter(struct.unpack("<64I", hashlib.shake_256(key.encode()).digest(256)))


def _pick(words: Iterator[int], low: int, high: int) -> int:
    """Bring the next integer of ``words`` into low..high (both included)."""
    return low + next(words) % (high - low + 1)
