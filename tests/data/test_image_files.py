"""Images open as RGB whatever their format is (datasets 6.1), and no path leaves its folder."""

from __future__ import annotations

import pickle
import threading
import warnings
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from PIL import Image

from bench.data.imagefile import FolderSource, escapes, is_image, open_rgb
from bench.errors import BenchError, MissingData
from tests.fixtures import disk


@pytest.mark.parametrize(
    ("mode", "colour", "name", "options", "rgb"),
    [
        ("L", 77, "grey.jpg", {}, (77, 77, 77)),
        ("CMYK", (0, 255, 255, 0), "cmyk.jpg", {}, (255, 0, 0)),
        ("P", 3, "palette.png", {}, None),
        ("P", 3, "transparent.png", {"transparency": 3}, None),
        ("RGBA", (10, 200, 30, 0), "alpha.png", {}, (10, 200, 30)),
        ("1", 1, "bits.png", {}, (255, 255, 255)),
        ("RGB", (9, 90, 200), "really_a_png.jpg", {"format": "PNG"}, (9, 90, 200)),
        ("RGB", (255, 0, 0), "really_a_gif.jpg", {"format": "GIF"}, (255, 0, 0)),
        ("RGB", (9, 90, 200), "really_a_bmp.JPEG", {"format": "BMP"}, (9, 90, 200)),
    ],
)
def test_every_kind_of_file_opens_as_rgb(
    tmp_path: Path,
    mode: str,
    colour: int | tuple[int, ...],
    name: str,
    options: dict,
    rgb: tuple[int, ...] | None,
) -> None:
    disk.image(tmp_path / name, colour, mode=mode, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = FolderSource(tmp_path).open(name)
    assert (opened.mode, opened.size) == ("RGB", (8, 6))
    if rgb is not None:
        assert np.abs(np.asarray(opened).astype(int) - rgb).max() <= 3


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    disk.image(tmp_path / "turned.jpg", size=(8, 6), exif=exif)
    assert open_rgb(tmp_path / "turned.jpg").size == (8, 6)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    whole = disk.image(tmp_path / "whole.jpg", size=(64, 64)).read_bytes()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "noise.jpg").read_bytes()[:1500])
    (tmp_path / "text.jpg").write_text("<html>sign in</html>")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "header.png").write_bytes(b"\x89PNG\r\n\x1a\n" + whole[:40])
    for name in ("cut.jpg", "text.jpg", "empty.jpg", "header.png"):
        with pytest.raises(BenchError, match=name.replace(".", r"\.")) as error:
            FolderSource(tmp_path).open(name)
        assert not isinstance(error.value, MissingData)
    with pytest.raises(MissingData, match="absent"):
        FolderSource(tmp_path).open("absent.jpg")


def test_separators_of_windows_are_read_but_not_rewritten(tmp_path: Path) -> None:
    disk.image(tmp_path / "a" / "b.png")
    assert FolderSource(tmp_path).open("a\\b.png").size == (8, 6)


@pytest.mark.parametrize(
    "path",
    [
        "../x.jpg",
        "a/../../x.jpg",
        "/etc/x.jpg",
        "C:\\x.jpg",
        "C:x.jpg",
        "\\x.jpg",
        "a\\..\\x.jpg",
        "",
        "a\0b",
    ],
)
def test_paths_that_leave_the_folder(tmp_path: Path, path: str) -> None:
    assert escapes(path)
    with pytest.raises(BenchError, match="stay inside"):
        FolderSource(tmp_path).open(path)


@pytest.mark.parametrize("path", ["x.jpg", "a/b c/x.jpg", "a/..b/x.jpg", "2012 Ram C/V/x.jpg", "a\\b.jpg"])
def test_paths_that_stay(path: str) -> None:
    assert not escapes(path)


def test_names_of_images() -> None:
    assert [is_image(n) for n in ("a.JPEG", "a.jpg", ".hidden.jpg", "Thumbs.db", "README.txt", "a.mat")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_sources_can_be_sent_to_workers(tmp_path: Path) -> None:
    assert pickle.loads(pickle.dumps(FolderSource(tmp_path))) == FolderSource(tmp_path)


def test_threads_that_open_images_leave_the_warning_filters_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.image(tmp_path / "a.png", (1, 2, 3), mode="RGB")
    both, original = threading.Barrier(2), Image.open
    first_out = threading.Event()

    def overlapping(file: BinaryIO, **more: Any) -> Image.Image:
        """Two threads are inside together, and the one that came in first leaves first."""
        if not both.wait(10):
            return original(file, **more)
        first_out.wait(10)
        warnings.warn("broken EXIF", stacklevel=1)
        return original(file, **more)

    monkeypatch.setattr(Image, "open", overlapping)
    with warnings.catch_warnings(), ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("error")
        before = list(warnings.filters)
        opened = [pool.submit(open_rgb, tmp_path / "a.png") for _ in range(2)]
        wait(opened, return_when=FIRST_COMPLETED)
        first_out.set()
        assert {future.result().getpixel((0, 0)) for future in opened} == {(1, 2, 3)}
        assert warnings.filters == before
