"""Images that are too large are refused by their header, and thin ones need little memory."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from bench.cli.data import app
from bench.data import limit, thin, views
from bench.data.imagefile import FolderSource, open_rgb, unguarded
from bench.data.opening import Opening
from bench.data.verify import verify
from bench.data.views import render
from bench.errors import BenchError, UnsuitableImage
from tests.fixtures import disk

GUARD = Image.MAX_IMAGE_PIXELS


def header_only(file: Path, width: int, height: int) -> Path:
    """A PNG that says how large it is and holds no pixel: who decodes it fails otherwise."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9) + b"IDAT" + bytes(13))
    return file


@pytest.mark.parametrize("opening", [None, Opening()])
def test_a_large_image_is_refused_as_what_it_is(tmp_path: Path, opening: Opening | None) -> None:
    file = header_only(tmp_path / "map.png", 14_000, 13_000)
    with pytest.raises(UnsuitableImage) as error:
        open_rgb(file, opening, max_pixels=150_000_000)
    said = str(error.value)
    assert said.startswith(
        f"{file}: 14000 x 13000 px are 182.0 million pixels, --max-pixels allows 150.0 million"
    )
    assert "--max-pixels 182M" in said and "damaged" not in said
    with pytest.raises(BenchError, match="damaged"):
        open_rgb(file, opening, max_pixels=182_000_000)


def test_pillows_own_limit_does_not_count_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    disk.image(tmp_path / "a.png", (1, 2, 3), size=(30, 20))
    assert open_rgb(tmp_path / "a.png").size == (30, 20)
    assert Image.MAX_IMAGE_PIXELS == 10
    with pytest.raises(UnsuitableImage):
        open_rgb(tmp_path / "a.png", max_pixels=599)
    assert Image.MAX_IMAGE_PIXELS == 10
    opened = open_rgb(tmp_path / "a.png", max_pixels=600)
    assert (render(opened, "rrc(0.9)#0", "a", 4) == (1, 2, 3)).all()  # its crop has more than 20 pixels
    assert Image.MAX_IMAGE_PIXELS == 10


def test_threads_restore_the_limit_when_the_last_one_leaves() -> None:
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with unguarded():
            first_in.set()
            assert second_in.wait(10)
        first_out.set()

    def second() -> int | None:
        assert first_in.wait(10)
        with unguarded():
            second_in.set()
            assert first_out.wait(10)
            return Image.MAX_IMAGE_PIXELS

    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        both = pool.submit(first), pool.submit(second)
        both[0].result()
        assert both[1].result() is None
    assert Image.MAX_IMAGE_PIXELS == GUARD and warnings.filters == before


@pytest.mark.parametrize(
    ("text", "pixels"), [("500M", 500_000_000), ("2g", 2 * 10**9), ("1.5M", 1_500_000), ("40000", 40_000)]
)
def test_numbers_of_pixels(text: str, pixels: int) -> None:
    assert limit.parsed(text) == pixels


@pytest.mark.parametrize("text", ["", "0", "-1", "M", "10X", "1e6", "nan", "500 MB"])
def test_wrong_numbers_of_pixels(text: str) -> None:
    with pytest.raises(BenchError, match=r"--max-pixels .*such as 500M"):
        limit.parsed(text)


def test_the_usual_limit_follows_memory_and_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    limit.usual.cache_clear()
    monkeypatch.setattr(limit, "_memory", lambda: 240 * 10**9)
    for workers, most in ((4, 2_500_000_000), (16, 625_000_000)):
        monkeypatch.setattr(limit, "_most_workers", lambda workers=workers: workers)
        limit.usual.cache_clear()
        assert limit.usual() == most
    limit.usual.cache_clear()
    monkeypatch.setattr(limit, "_memory", lambda: 0)
    assert limit.usual() == 89_478_485  # what Pillow itself opens without a warning
    limit.usual.cache_clear()
    monkeypatch.undo()
    assert limit._memory() > 10**8


@pytest.mark.parametrize(
    ("groups", "limits", "found"),
    [
        ("0::/\n", {"memory.max": "max"}, []),
        ("0::/\n", {"memory.max": "4000"}, [4000]),
        (
            "0::/slurm/job_7/step_0\n",
            {"slurm/job_7/memory.max": "2000", "slurm/memory.max": "9000", "slurm/job_8/memory.max": "1"},
            [2000, 9000],
        ),
        (
            "3:cpu,cpuacct:/slurm\n2:memory:/slurm/job_7\n1:name=systemd:/x\n0::/\n",
            {
                "memory/slurm/job_7/memory.limit_in_bytes": "3000",
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "cpu,cpuacct/slurm/memory.limit_in_bytes": "1",
            },
            [3000, 9223372036854771712],
        ),
        ("0::/docker/of:outside\n", {"memory.max": "5000"}, [5000]),
        ("", {}, []),
    ],
)
def test_limits_of_nested_groups(
    groups: str, limits: dict[str, str], found: list[int], tmp_path: Path
) -> None:
    files = {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{at}": text for at, text in limits.items()}}
    for at, text in files.items():
        (tmp_path / at).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / at).write_text(f"{text}\n" if "memory" in at.split("/")[-1] else text)
    (tmp_path / "sys/fs/cgroup/slurm/job_7/step_0/memory.max").mkdir(parents=True)  # cannot be read
    assert list(limit._group_limits(tmp_path)) == found


def test_the_least_group_is_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "_group_limits", lambda: iter([10**12, 3000]))
    assert limit._memory() == 3000
    monkeypatch.setattr(limit, "_group_limits", lambda: iter([]))
    assert limit._memory() > 10**8


def test_what_the_limit_lacks_is_no_fault_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(limit, "usual", broken)
    disk.image(tmp_path / "a.png")
    with pytest.raises(OSError, match="Input/output error"):
        open_rgb(tmp_path / "a.png")


def test_verify_refuses_by_size(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        disk.class_folder(tmp_path / "pets" / part / "cat", 2, start=len(part))
        disk.class_folder(tmp_path / "pets" / part / "horse", 1, start=len(part))
    disk.image(tmp_path / "pets" / "test" / "cat" / "big.png", size=(100, 60))
    words = ["verify", str(tmp_path / "pets"), "--max-pixels"]
    refused = CliRunner().invoke(app, [*words, "5999"])
    assert refused.exit_code == 1 and "9 of 10 images open" in refused.stdout
    assert (
        "big.png: 100 x 60 px are 6,000 pixels, --max-pixels allows 5,999:" in refused.stdout
        and "likely cause" not in refused.stdout
    )
    assert CliRunner().invoke(app, [*words, "6000"]).exit_code == 0
    assert isinstance(CliRunner().invoke(app, [*words, "many"]).exception, BenchError)


def test_verify_tells_damaged_from_unsuitable(tmp_path: Path) -> None:
    from bench.data import catalog

    for part in ("train", "val", "test"):
        disk.class_folder(tmp_path / "pets" / part / "cat", 2, start=len(part))
        disk.class_folder(tmp_path / "pets" / part / "horse", 1, start=len(part))
    (tmp_path / "pets" / "test" / "cat" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "damaged" in verify(catalog.find(str(tmp_path / "pets"), None)).cause
    assert "damaged" in verify(catalog.find(str(tmp_path / "pets"), None, max_pixels=1)).cause


def noise(width: int, height: int, hard: bool, seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray((values > 127).astype(np.uint8) * 255 if hard else values)


def by_the_way(image: Image.Image, side: int, mode: str) -> np.ndarray:
    """Resized whole, then cut: what every other image goes through."""
    width, height = image.size
    if width <= height:
        width, height = side, int(side * height / width)
    else:
        width, height = int(side * width / height), side
    left, top = round((width - side) / 2), round((height - side) / 2)
    filter = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[mode]
    return np.asarray(image.resize((width, height), filter).crop((left, top, left + side, top + side)))


@given(
    st.integers(1, 24),
    st.integers(0, 600),
    st.integers(1, 24),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["bicubic", "bilinear"]),
    st.integers(0, 99),
)
@settings(max_examples=300, deadline=None)
def test_thin_images_have_the_pixels_of_the_whole_resize(
    short: int, more: int, larger: int, tall: bool, hard: bool, mode: str, seed: int
) -> None:
    size = (short, short + more) if tall else (short + more, short)
    image, side = noise(*size, hard, seed), short + larger
    whole = by_the_way(image, side, mode)
    assert np.array_equal(render(image, "eval", "a", side, mode), whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "_LONG", 0)  # every enlarged image by the way of thin ones
        assert np.array_equal(render(image, "eval", "a", side, mode), whole)


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 40_000), (40_000, 3)])
def test_a_thin_image_stays_small_on_its_way(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """At 224 px the whole resize of the first would be 4 GB."""
    largest, original = 0, Image.Image.resize

    def resize(self: Image.Image, size: tuple[int, int], *rest: object, **more: object) -> Image.Image:
        nonlocal largest
        largest = max(largest, size[0] * size[1])
        return original(self, size, *rest, **more)

    monkeypatch.setattr(Image.Image, "resize", resize)
    image = noise(*size, False, 0)
    for view in ("eval", "flip", "rrc(0.5)#0"):
        assert render(image, view, "a", 224).shape == (224, 224, 3)
    assert largest <= 224 * 224


def test_a_thin_image_has_the_right_pixels_at_224(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    original = thin.middle
    monkeypatch.setattr(thin, "middle", lambda *a: used.append(1) or original(*a))
    for size in ((20, 700), (700, 20)):
        image = noise(*size, True, 1)
        assert np.array_equal(render(image, "eval", "a", 224), by_the_way(image, 224, "bicubic"))
    assert len(used) == 2


def test_a_source_carries_its_limit(tmp_path: Path) -> None:
    disk.image(tmp_path / "a.png", size=(30, 20))
    with pytest.raises(UnsuitableImage, match=r"a\.png: 30 x 20"):
        FolderSource(tmp_path, max_pixels=599).open("a.png")
