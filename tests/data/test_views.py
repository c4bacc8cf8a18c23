"""Views are bit-identical to CLIP's own transform, and random crops are the same on every machine."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.data.views import View, bank, crop_box, parse, preprocessing, render, render_views
from bench.errors import BenchError

SIZES = [
    (64, 64),
    (65, 64),
    (64, 97),
    (33, 120),
    (501, 333),
    (500, 375),
    (7, 300),
    (224, 225),
    (1, 1),
    (640, 427),
]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(noise)


@pytest.mark.parametrize("side", [64, 33, 224])
@pytest.mark.parametrize("shape", SIZES)
def test_eval_is_bit_identical_to_open_clips_transform(shape: tuple[int, int], side: int) -> None:
    open_clip = pytest.importorskip("open_clip")
    image = picture(*shape)
    theirs = open_clip.image_transform(side, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))(image)
    ours = render(image, "eval", "a.jpg", side)
    assert ours.dtype == np.uint8 and ours.shape == (side, side, 3)
    assert np.array_equal(ours, (theirs * 255).round().byte().permute(1, 2, 0).numpy())


def test_squash_is_bit_identical_to_open_clips_transform() -> None:
    open_clip = pytest.importorskip("open_clip")
    image = picture(90, 61)
    plain = {"mean": (0, 0, 0), "std": (1, 1, 1), "resize_mode": "squash", "interpolation": "bilinear"}
    theirs = open_clip.image_transform(32, is_train=False, **plain)(image)
    ours = render(image, "eval", "a.jpg", 32, mode="bilinear", resize="squash")
    assert np.array_equal(ours, (theirs * 255).round().byte().permute(1, 2, 0).numpy())


def test_flip_is_eval_mirrored_and_views_share_one_image() -> None:
    image = picture(70, 51)
    views = ("flip", "rrc(0.5)#1", "eval", "rrc(0.9,noflip)#0")
    together = render_views(image, views, "a/b.jpg", 32)
    assert np.array_equal(together[0], together[2][:, ::-1])
    for view, pixels in zip(views, together, strict=True):
        assert np.array_equal(pixels, render(image, view, "a/b.jpg", 32))


def test_other_image_modes_are_made_rgb_before_the_resize() -> None:
    grey = Image.fromarray(np.arange(64 * 48, dtype=np.uint32).astype(np.uint8).reshape(48, 64))
    assert np.array_equal(render(grey, "eval", "g", 16), render(grey.convert("RGB"), "eval", "g", 16))


@pytest.mark.parametrize("index", range(6))
def test_a_random_crop_is_torchvisions_resized_crop_of_the_box(index: int) -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    image, view = picture(113, 87), parse(f"rrc(0.3)#{index}")
    (left, top, right, bottom), mirror = crop_box(view, "x.jpg", *image.size)
    bicubic = functional.InterpolationMode.BICUBIC
    theirs = functional.resized_crop(image, top, left, bottom - top, right - left, [32, 32], bicubic)
    theirs = functional.hflip(theirs) if mirror else theirs
    assert np.array_equal(render(image, str(view), "x.jpg", 32), np.asarray(theirs))


def test_crop_boxes_are_distributed_as_torchvisions() -> None:
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms")
    stats = pytest.importorskip("scipy.stats")
    torch.manual_seed(0)
    image = Image.new("RGB", (500, 333))
    theirs = [transforms.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(600)]
    boxes = [crop_box(View("rrc", 0.08, True, i), "a.jpg", 500, 333) for i in range(600)]
    ours = [(top, left, bottom - top, right - left) for (left, top, right, bottom), _ in boxes]
    for column in range(4):
        p = stats.ks_2samp([row[column] for row in theirs], [row[column] for row in ours]).pvalue
        assert p > 1e-3, f"column {column} of (top, left, height, width) differs from torchvision's: p = {p}"
    assert 240 < sum(mirror for _, mirror in boxes) < 360


@pytest.mark.parametrize(
    ("shape", "expected"), [((1000, 2), (498, 0, 501, 2)), ((2, 1000), (0, 498, 2, 501))]
)
def test_extreme_shapes_fall_back_to_the_centre(shape: tuple[int, int], expected: tuple[int, ...]) -> None:
    box, _ = crop_box(parse("rrc(0.5)#0"), "thin.jpg", *shape)
    assert box == expected


def test_crops_are_the_same_on_every_machine_and_in_every_process() -> None:
    views = [*bank(0.5, 3), *bank(0.08, 2), *bank(0.9, 2, flip=False)]
    boxes = [crop_box(parse(view), "class_a/img 1.jpg", 640, 427) for view in views]
    assert boxes == [
        ((162, 86, 588, 413), False),
        ((234, 45, 600, 426), False),
        ((12, 23, 499, 422), True),
        ((165, 4, 457, 393), True),
        ((6, 25, 281, 323), False),
        ((35, 0, 604, 427), False),
        ((35, 0, 604, 427), False),
    ]
    boxes_of = f"[crop_box(parse(v), 'class_a/img 1.jpg', 640, 427) for v in {views}]"
    code = f"from bench.data.views import crop_box, parse; print({boxes_of})"
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert run.stdout.strip() == str(boxes)


def test_crops_differ_between_paths_indices_and_areas() -> None:
    seen = {
        crop_box(parse(v), p, 640, 427)[0] for v in (*bank(0.5, 8), *bank(0.4, 8)) for p in ("a.jpg", "b.jpg")
    }
    assert len(seen) == 32


@given(
    st.floats(0.01, 1),
    st.integers(0, 10**6),
    st.integers(1, 2000),
    st.integers(1, 2000),
    st.text(max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_boxes_lie_inside_and_noflip_only_stops_the_mirror(
    a: float, i: int, width: int, height: int, path: str
) -> None:
    mirrored, plain = View("rrc", a, True, i), View("rrc", a, False, i)
    box, _ = crop_box(mirrored, path, width, height)
    left, top, right, bottom = box
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert crop_box(plain, path, width, height) == (box, False)
    assert parse(str(parse(str(mirrored)))) == parse(str(mirrored))


def test_bank_and_canonical_names() -> None:
    assert bank(0.5, 2) == ("rrc(0.5)#0", "rrc(0.5)#1")
    assert bank(0.9, 1, flip=False) == ("rrc(0.9,noflip)#0",)
    assert str(parse("rrc(0.50, noflip)#07")) == "rrc(0.5,noflip)#7"
    assert str(parse("rrc(1.0)#0")) == "rrc(1)#0"
    assert parse("rrc(0.5)#0") != parse("rrc(0.5,noflip)#0")


@pytest.mark.parametrize(
    "wrong", ["", "Eval", "rrc", "rrc(0.5)", "rrc(0)#1", "rrc(1.5)#1", "rrc(0.5)#-1", "rrc(x)#1"]
)
def test_a_wrong_name_is_an_error_that_shows_the_grammar(wrong: str) -> None:
    with pytest.raises(BenchError, match=r"not a view: write 'eval', 'flip', 'rrc\(A\)#I'"):
        parse(wrong)


def test_a_bank_of_an_impossible_area_is_an_error() -> None:
    with pytest.raises(BenchError):
        bank(0.0, 1)


def test_preprocessing_names_differ_with_what_changes_pixels() -> None:
    plain = preprocessing(224, (0.5,) * 3, (0.5,) * 3)
    others = [
        preprocessing(225, (0.5,) * 3, (0.5,) * 3),
        preprocessing(224, (0.5, 0.5, 0.6), (0.5,) * 3),
        preprocessing(224, (0.5,) * 3, (0.5, 0.4, 0.5)),
        preprocessing(224, (0.5,) * 3, (0.5,) * 3, mode="bilinear"),
        preprocessing(224, (0.5,) * 3, (0.5,) * 3, resize="squash"),
    ]
    assert len({plain, *others}) == 6
    assert plain == preprocessing(224, [0.5] * 3, np.full(3, 0.5))


def test_an_unknown_filter_is_an_error() -> None:
    with pytest.raises(BenchError, match="bicubic"):
        render(picture(8, 8), "eval", "a", 8, mode="cubic")


def test_rendered_pixels_do_not_drift() -> None:
    ramp = np.stack([np.add.outer(np.arange(90), np.arange(120)) % 256] * 3, -1).astype(np.uint8)
    pixels = render_views(Image.fromarray(ramp), ("eval", "flip", "rrc(0.5)#0", "rrc(0.08)#1"), "a/b.jpg", 32)
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == "62c3924f698cad04"
