"""Whatever is wrong with a file, the error is one line that names the file."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from bench.data.imagefile import FolderSource, open_rgb
from bench.data.opening import Opening
from bench.errors import BenchError, MissingData, UnreadableImage
from bench.features.decode import Block, InputFormat, render_block

FORMATS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "PCX", "TGA"]
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)


def whole(name: str) -> bytes:
    if name == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, name)
    return buffer.getvalue()


@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_or_scribbled_file_opens_or_is_named(tmp_path: Path, name: str) -> None:
    data, draw, file = whole(name), random.Random(name), tmp_path / f"bad.{name.lower()}"
    file.write_bytes(data)
    assert open_rgb(file).mode == "RGB"
    failed = 0
    for attempt in range(40):
        broken = bytearray(data[: draw.randrange(1, len(data))] if attempt % 2 else data)
        for _ in range(draw.randrange(1, 20)):
            # most scribbles where the structure is
            broken[draw.randrange(min(len(broken), draw.choice((40, 400, 10**6))))] = draw.randrange(256)
        file.write_bytes(broken)
        for opening in (None, Opening()):
            try:
                assert open_rgb(file, opening, max_pixels=10**7).mode == "RGB"
            except BenchError as error:
                failed += 1
                assert file.name in str(error) and not isinstance(error, MissingData)
    assert failed > 10


def test_an_exception_of_any_kind_is_an_unreadable_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    class Broken:
        def open(self, path: str) -> Image.Image:
            raise self.error

    for error in (RuntimeError("codec"), KeyError(3), MemoryError(), ZeroDivisionError("x"), EOFError()):
        monkeypatch.setattr(Image, "open", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
        with pytest.raises(BenchError, match=r"a\.png"):
            open_rgb(tmp_path / "a.png")
        source = Broken()
        source.error = error
        for other in (source, FolderSource(tmp_path)):
            with pytest.raises(UnreadableImage, match=r"a\.png") as said:
                render_block(other, InputFormat(4), Block(("a.png",), ("eval",)))
            assert said.value.path == "a.png" and "()" not in str(said.value)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(BenchError, match=r"the image file is empty: .*a\.png; replace it"):
        FolderSource(tmp_path).open("a.png")


@pytest.mark.parametrize("content", [HEIC, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7"])
def test_what_pillow_does_not_know_is_said_with_its_mend(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "IMG_1.jpg").write_bytes(content)
    with pytest.raises(
        BenchError, match=r"not an image that can be read: .*IMG_1\.jpg .*HEIC.*save it as PNG"
    ):
        open_rgb(tmp_path / "IMG_1.jpg", Opening())
