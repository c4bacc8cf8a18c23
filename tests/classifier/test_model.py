"""A classifier predicts what the record of its cell says, in any company, process and number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bench
from bench.errors import BenchError, UnreadableImage
from tests.classifier.conftest import SETTINGS, World

Kept = Callable[[str], Path]


QUICK = ("zero-shot", "tip-adapter-f", "safe")  # the others take the same way, and more seconds


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[] if m in QUICK else pytest.mark.slow) for m in SETTINGS]
)
def test_it_predicts_what_the_record_says(world: World, kept: Kept, method: str) -> None:
    model = bench.load(kept(method))
    paths, predicted, classnames = world.recorded(method)
    assert model.classes_.tolist() == list(classnames)
    assert model.predict(paths).tolist() == [classnames[k] for k in predicted]
    shares = model.predict_proba(paths)
    assert shares.shape == (len(paths), 3)
    assert np.allclose(shares.sum(1), 1.0) and (shares.argmax(1) == predicted).all()


def test_an_image_gets_the_same_answer_alone_and_among_others(world: World, kept: Kept) -> None:
    model = bench.load(kept("tip-adapter-f"))
    paths, _, _ = world.recorded("tip-adapter-f")
    together = model.logits(paths)
    assert (together[::-1] == model.logits(paths[::-1])).all()
    assert (together[5] == model.logits(paths[5])[0]).all()


def test_many_images_need_several_calls(world: World, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.classifier import model as models

    model = bench.load(kept("safe"))
    paths, _, _ = world.recorded("safe")
    whole = model.logits(paths)
    monkeypatch.setattr(models, "_CHUNK", 11)
    assert (model.logits(paths) == whole).all(), "portions change nothing"
    monkeypatch.setattr(models, "ROWS", 5)
    assert np.allclose(model.logits(paths), whole, atol=1e-4), "the size of a call changes rounding alone"


def test_files_pictures_and_arrays_are_the_same_image(world: World, kept: Kept) -> None:
    model = bench.load(kept("zero-shot"))
    paths, _, _ = world.recorded("zero-shot")
    pictures = [Image.open(path) for path in paths[:4]]
    arrays = [np.asarray(one.convert("RGB")) for one in pictures]
    want = model.logits(paths[:4])
    for same in (pictures, arrays, np.stack(arrays), [Path(p) for p in paths[:4]], np.array(paths[:4])):
        assert (model.logits(same) == want).all()
    assert (model.logits(pictures[0]) == want[:1]).all() and (model.logits(arrays[0]) == want[:1]).all()
    assert model.logits([]).shape == (0, 3) and model.predict_proba([]).shape == (0, 3)


def test_a_picture_in_memory_is_opened_by_the_rule_of_files(world: World, kept: Kept, tmp_path: Path) -> None:
    """Turned as EXIF says, on white where it is transparent."""
    model = bench.load(kept("zero-shot"))
    clear = Image.new("RGBA", (40, 30), (200, 0, 0, 0))
    turned = Image.open(world.recorded("zero-shot")[0][0]).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    clear.save(tmp_path / "clear.png")
    turned.save(tmp_path / "turned.png", exif=exif)
    assert (model.logits(clear) == model.logits(tmp_path / "clear.png")).all()
    assert (model.logits(clear) == model.logits(Image.new("RGB", (40, 30), "white"))).all()
    assert (
        model.logits(tmp_path / "turned.png") == model.logits(turned.transpose(Image.Transpose.ROTATE_270))
    ).all()
    assert (model.logits(tmp_path / "turned.png") != model.logits(turned)).any()


def test_score_is_the_share_of_right_answers(world: World, kept: Kept) -> None:
    model = bench.load(kept("zero-shot"))
    paths, predicted, names = world.recorded("zero-shot")
    right = [names[k] for k in predicted]
    assert model.score(paths, right) == 1.0
    other = [names[(predicted[0] + 1) % 3], *right[1:]]
    assert model.score(paths, other) == pytest.approx(1 - 1 / len(paths))
    with pytest.raises(BenchError, match="no class of this classifier"):
        model.score(paths, ["apple"] * (len(paths) - 1) + ["pear"])
    with pytest.raises(BenchError, match="one class for each image"):
        model.score(paths, ["apple"])


@pytest.mark.parametrize(
    "wrong",
    [7, [7], [np.zeros((4, 4), float)], np.zeros((2, 3, 4, 5, 3), np.uint8), np.zeros((4, 4, 2), np.uint8)],
)
def test_what_is_no_image_is_refused(kept: Kept, wrong: object) -> None:
    with pytest.raises(BenchError, match=r"give (paths|pixels)"):
        bench.load(kept("zero-shot")).predict(wrong)


def test_an_unreadable_image_is_an_error_in_python(world: World, kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    paths, _, _ = world.recorded("zero-shot")
    with pytest.raises(UnreadableImage, match=r"bad\.png"):
        bench.load(kept("zero-shot")).predict([paths[0], tmp_path / "bad.png", paths[1]])


def test_the_process_is_left_as_it_was(world: World, kept: Kept) -> None:
    paths, _, _ = world.recorded("zero-shot")
    before = (
        torch.get_deterministic_debug_mode(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
    )
    tiny = torch.tensor([1e-40])
    bench.load(kept("zero-shot")).predict(paths)
    after = (
        torch.get_deterministic_debug_mode(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
    )
    assert after == before and (tiny * 1.0 == tiny).all() and (tiny * 1.0 != 0).all()


@pytest.mark.slow
def test_another_process_and_number_of_threads_give_equal_bits(world: World, kept: Kept) -> None:
    paths, _, _ = world.recorded("safe")
    code = (
        "import sys, bench; sys.stdout.buffer.write(bench.load(sys.argv[1]).logits(sys.argv[2:]).tobytes())"
    )
    want = bench.load(kept("safe")).logits(paths).tobytes()
    for threads in ("1", "3"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(kept("safe")), *paths],
            env={**os.environ, "OMP_NUM_THREADS": threads},
            capture_output=True,
            check=True,
        )
        assert done.stdout == want
