"""Image files from strangers cannot start a program, exhaust memory, or make the program wait for ever."""

from __future__ import annotations

import ast
import os
import re
import socket
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import formats, imagefile
from bench.data.imagefile import open_rgb
from bench.data.opening import Opening
from bench.data.views import render
from bench.errors import BenchError, MissingData, UnsuitableImage
from bench.features.decode import Block, InputFormat, render_block
from tests.fixtures import disk, hostile

ROOT = Path(__file__).resolve().parents[2]
BOTH = pytest.mark.parametrize("opening", [None, Opening()])


@BOTH
def test_no_program_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opening: Opening | None
) -> None:
    """Pillow gives PostScript to Ghostscript, whatever the file's name."""
    program, ran = tmp_path / "bin" / "gs", tmp_path / "ran"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    file = tmp_path / "0.png"
    file.write_bytes(hostile.FOREIGN["EPS"])
    with pytest.raises(BenchError, match=r"0\.png begins like EPS; save it as PNG"):
        open_rgb(file, opening)
    assert not ran.exists()


@pytest.mark.parametrize("kind", hostile.FOREIGN)
def test_other_formats_are_named_and_their_readers_never_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    formats.readable()  # all of Pillow's plugins are there now

    def called(*_: object) -> None:
        pytest.fail("a reader that is not on the list was asked")

    for name, (_, accept) in list(Image.OPEN.items()):
        if name not in formats.FORMATS:
            monkeypatch.setitem(Image.OPEN, name, (called, accept))
    (tmp_path / "a.jpg").write_bytes(hostile.FOREIGN[kind])
    with pytest.raises(BenchError, match=r"a\.jpg begins like [A-Z0-9]+; save it as PNG or JPEG"):
        open_rgb(tmp_path / "a.jpg")


def test_images_are_opened_in_one_place() -> None:
    calls = [
        file.relative_to(ROOT).as_posix()
        for file in [*(ROOT / "bench").rglob("*.py"), *(ROOT / "methods").rglob("*.py")]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("Image.open", "PIL.Image.open")
    ]
    assert calls == ["bench/data/formats.py"]


def test_every_format_of_the_list_opens_under_any_ending(tmp_path: Path) -> None:
    known = set(formats.readable())
    assert {"PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"} <= known
    saved = [kind for kind in (*known, "MPO") if kind in Image.SAVE and kind not in ("AVIF", "IM")]
    assert len(saved) > 12
    for kind in saved:
        Image.new("RGB", (16, 12), (250, 0, 0)).save(tmp_path / "a.jpg", kind)
        assert np.abs(np.asarray(open_rgb(tmp_path / "a.jpg")).astype(int) - (250, 0, 0)).max() <= 8, kind


@BOTH
@pytest.mark.parametrize("size", [(300_000, 1), (1, 300_000)])
def test_a_line_of_pixels_stays_small(tmp_path: Path, size: tuple[int, int], opening: Opening | None) -> None:
    """At 224 px the whole of it would be 67 million px wide."""
    file = tmp_path / "line.png"
    file.write_bytes(hostile.png(*size))
    assert file.stat().st_size < 40_000
    image = open_rgb(file, opening)
    with hostile.in_time():
        for view in ("eval", "flip", "rrc(0.08)#3"):
            for resize in ("shortest", "squash"):
                assert not render(image, view, "a", 224, resize=resize).any()


@BOTH
def test_a_small_file_of_many_pixels_is_not_believed(tmp_path: Path, opening: Opening | None) -> None:
    file = tmp_path / "flat.png"
    file.write_bytes(hostile.png(13_300, 13_300))
    assert file.stat().st_size < 25_000
    with pytest.raises(
        UnsuitableImage, match=r"13300 x 13300 px .* of only 21,\d+ bytes: .*--max-pixels 177M"
    ):
        open_rgb(file, opening)
    with file.open("ab") as handle:
        handle.write(bytes(900_000))  # as large as it should be: then memory alone decides
    with pytest.raises(UnsuitableImage, match="--max-pixels allows 100"):
        open_rgb(file, opening, max_pixels=10**8)


def test_formats_that_take_twice_the_memory_count_twice(tmp_path: Path) -> None:
    for kind in {"WEBP", "AVIF", "JPEG2000"} & set(formats.readable()):
        disk.image(tmp_path / "a.png", size=(40, 30), format=kind)
        with pytest.raises(UnsuitableImage, match=f"those of {kind} count twice"):
            open_rgb(tmp_path / "a.png", max_pixels=2399)
        assert open_rgb(tmp_path / "a.png", max_pixels=2400).size == (40, 30)


def test_a_file_that_is_mostly_holes_is_not_read_whole(tmp_path: Path) -> None:
    disk.image(tmp_path / "a.webp")
    os.truncate(tmp_path / "a.webp", 10**12)
    with hostile.in_time(), pytest.raises(UnsuitableImage, match="the file has 1,000,000 MB"):
        open_rgb(tmp_path / "a.webp", max_pixels=10**8)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_packed_remarks_do_not_grow(tmp_path: Path, kind: bytes) -> None:
    packed = zlib.compress(bytes(10**8), 9)
    (tmp_path / "a.png").write_bytes(hostile.png(8, 8, hostile.chunk(kind, b"k\0\0" + packed)))
    with pytest.raises(BenchError, match=r"a\.png \(Decompressed data too large"):
        open_rgb(tmp_path / "a.png")


def test_a_jpeg_of_many_scans_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(hostile.jpeg(progressive=True))
    assert open_rgb(tmp_path / "a.jpg").size == (256, 256)
    (tmp_path / "a.jpg").write_bytes(hostile.many_scans(10_000))
    with hostile.in_time(5), pytest.raises(UnsuitableImage, match=r"a progressive JPEG of 10,\d+ scans"):
        open_rgb(tmp_path / "a.jpg")


LIMITED = """
import resource, sys
from pathlib import Path
from bench.data.imagefile import open_rgb
from bench.data.opening import Opening
from bench.errors import BenchError
resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))
for name in sys.argv[1:]:
    for opening in (None, Opening()):
        try:
            print(open_rgb(Path(name), opening).size)
        except BenchError as error:
            print("refused", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_tags_and_packed_rows_stay_within_a_gigabyte(tmp_path: Path) -> None:
    """20,000 tags that share 200,000 bytes would be 4 GB, the rows of the last file 3 GB."""
    tags, texts = hostile.shared_tags(20_000, 200_000), zlib.compress(bytes(10**6))
    files = {
        "exif.jpg": hostile.with_exif(tags),
        "exif.png": hostile.png(8, 8, hostile.chunk(b"eXIf", tags)),
        "tags.tif": tags,
        "texts.png": hostile.png(
            8, 8, *[hostile.chunk(b"zTXt", b"k%d\0\0" % n + texts) for n in range(2000)]
        ),
        "rows.fits": hostile.fits(100, bytes(3 * 10**7)),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    words = [sys.executable, "-c", LIMITED, *(str(tmp_path / name) for name in files)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0 and not done.stderr, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:4] == ["(256, 256)"] * 2 + ["(8, 8)"] * 2 and len(lines) == 10
    assert all(line.startswith("refused") for line in lines[4:8]) and lines[8:] == ["(100, 100)"] * 2


def specials(folder: Path) -> dict[str, str]:
    """Everything that is no regular file, by name, with what is said of it."""
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "folder.png").mkdir()
    (folder / "round.png").symlink_to("round.png")
    (folder / "lost.png").symlink_to("nowhere.png")
    with socket.socket(socket.AF_UNIX) as there:
        os_path = os.getcwd()
        os.chdir(folder)  # the name of a socket has at most about 100 bytes
        try:
            there.bind("socket.png")
        finally:
            os.chdir(os_path)
    return {
        "pipe.png": "a pipe, not a regular file",
        "zero.png": "a device, not a regular file",
        "socket.png": "a socket, not a regular file",
        "folder.png": "is a directory",
        "round.png": "too many levels of symbolic links",
        "lost.png": "a link that leads nowhere",
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
def test_only_regular_files_are_images(tmp_path: Path) -> None:
    source = imagefile.FolderSource(tmp_path)
    for name, said in specials(tmp_path).items():
        with hostile.in_time(), pytest.raises(BenchError, match=said) as error:
            source.open(name)
        assert str(tmp_path / name) in str(error.value)
        assert isinstance(error.value, MissingData) == (name == "lost.png")
        with hostile.in_time(), pytest.raises(BenchError, match=re.escape(name)):
            render_block(source, InputFormat(4), Block((name,), ("eval",)))


def test_too_little_memory_for_a_view_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: object) -> None:
        raise MemoryError

    disk.image(tmp_path / "a.png")
    monkeypatch.setattr("bench.features.decode.render_views", short)
    with pytest.raises(BenchError, match=r"not enough memory to resize a\.png"):
        render_block(imagefile.FolderSource(tmp_path), InputFormat(4), Block(("a.png",), ("eval",)))


PEAK = """
import sys
from pathlib import Path
from PIL import Image
from bench.data import formats
from bench.data.imagefile import open_rgb
from bench.data.opening import Opening
formats.readable()
def peak():
    # of this process alone, in kB
    return int(next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1])

before = peak()
open_rgb(Path(sys.argv[1]), Opening())
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are counted in kB on Linux alone")
@pytest.mark.parametrize(
    ("mode", "ending", "save"),
    [
        ("RGBA", "png", {}),
        ("LA", "png", {}),
        ("I;16", "png", {"transparency": 5}),
        ("F", "tif", {"compression": "tiff_adobe_deflate"}),
        ("CMYK", "jpg", {"progressive": True, "subsampling": 0}),
        ("RGBA", "webp", {"lossless": True, "method": 0}),
        ("RGBA", "avif", {"speed": 10}),
        ("RGBA", "jp2", {}),
    ],
)
def test_an_image_takes_the_memory_that_the_limit_counts(
    tmp_path: Path, mode: str, ending: str, save: dict
) -> None:
    side, file = 3000, tmp_path / f"a.{ending}"
    image = (
        Image.fromarray(np.full((side, side), 9000, np.uint16))
        if mode == "I;16"
        else Image.new(mode, (side,) * 2)
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(file, **save, **({"exif": exif} if ending in ("png", "jpg", "webp", "avif") else {}))
    words = [sys.executable, "-c", PEAK, str(file)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=ROOT, check=True)
    each = 24 if ending in ("webp", "avif", "jp2") else 12
    assert int(done.stdout) * 1024 <= each * side**2 + 20 * 10**6
