"""A user's own images become the right RGB pixels: deep, transparent and turned ones, several in one file."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import catalog
from bench.data.imagefile import FolderSource, open_rgb
from bench.data.opening import Opening
from bench.errors import BenchError, UnsuitableImage
from tests.fixtures import disk

OWN = Opening()
SPLIT = "split_zhou_DescribableTextures.json"


def opened(file: Path, opening: Opening | None = OWN) -> np.ndarray:
    image = open_rgb(file, opening)
    assert image.mode == "RGB"
    return np.asarray(image)


def saved(file: Path, values: object, dtype: str, mode: str | None = None, **options: object) -> Path:
    """A grey image of these values (rows, columns)."""
    image = Image.fromarray(np.asarray(values, dtype))
    (image if mode is None else image.convert(mode)).save(file, **options)
    return file


def grey_of(file: Path, opening: Opening = OWN) -> list[int]:
    """The grey values of the first row."""
    pixels = opened(file, opening)
    assert (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0].tolist()


def png(file: Path, width: int, depth: int, colour: int, row: bytes, clear: bytes = b"") -> Path:
    """A PNG of one row, of forms that Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"tRNS", clear) if clear else b""]
    parts += [chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return file


DEEP_16 = [[0, 128, 129, 257, 30000, 65535]]
SEEN_16 = [0, 0, 1, 1, 117, 255]  # 30000 / 257 = 116.7


@pytest.mark.parametrize(
    ("name", "dtype"), [("a.png", "<u2"), ("a.tif", "<u2"), ("big-endian.tif", ">u2"), ("a.pgm", "<u2")]
)
def test_sixteen_bits_are_scaled(tmp_path: Path, name: str, dtype: str) -> None:
    assert grey_of(saved(tmp_path / name, DEEP_16, dtype)) == SEEN_16


def test_white_is_zero_where_a_tiff_says_so(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.tif", DEEP_16, "<u2", tiffinfo={262: 0})
    assert grey_of(file) == [255 - seen for seen in SEEN_16]


def test_twelve_bits_are_scaled_by_their_own_white(tmp_path: Path) -> None:
    """Pillow writes no 12-bit TIFF: the stated bits and the two packed values are put into one of 16 bits."""
    buffer = io.BytesIO()
    Image.fromarray(np.array([[0xAAAA, 0xBBBB]], np.uint16)).save(buffer, "TIFF")
    data, entry = buffer.getvalue(), struct.pack("<HHI", 258, 3, 1)
    at = data.index(entry) + len(entry)
    data = data[:at] + struct.pack("<H", 12) + data[at + 2 :]
    (tmp_path / "a.tif").write_bytes(data.replace(b"\xaa\xaa\xbb\xbb", b"\xff\xf8\x00\x00"))
    assert grey_of(tmp_path / "a.tif") == [255, 128]


def test_jpeg_2000_of_sixteen_bits(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.jp2", np.full((8, 8), 30000), "<u2", irreversible=False)
    assert set(grey_of(file)) == {117}


@pytest.mark.parametrize(
    ("values", "dtype", "seen"),
    [
        ([0, 64, 255], "i4", [0, 64, 255]),
        ([0, 30000, 65535], "i4", [0, 117, 255]),
        ([0, 2**30, 2**31 - 1], "i4", [0, 128, 255]),
        ([0, 0, 0], "i4", [0, 0, 0]),
        ([0.0, 0.25, 0.7], "f4", [0, 64, 178]),  # 63.75, 178.5: half to even
        ([0.0, 0.5, 1.0000001], "f4", [0, 128, 255]),
        ([-1e-6, 0.5, 1.0], "f4", [0, 128, 255]),
        ([0.0, 100.4, 254.9], "f4", [0, 100, 255]),
        ([0.0, 30000.0, 65535.0], "f4", [0, 117, 255]),
        ([0.0, 0.0, 0.0], "f4", [0, 0, 0]),
        ([0.0, 0.07, 0.03], "f4", [0, 18, 8]),
    ],
)
def test_white_of_thirty_two_bits_is_the_smallest_that_bounds_the_image(
    tmp_path: Path, values: list[float], dtype: str, seen: list[int]
) -> None:
    assert grey_of(saved(tmp_path / "a.tif", [values], dtype)) == seen


def unsigned_tiff(file: Path, values: list[int]) -> Path:
    """Pillow writes 32-bit integers as signed; the sample format is changed to unsigned."""
    buffer = io.BytesIO()
    Image.fromarray(np.array([values], np.uint32).view(np.int32)).save(buffer, "TIFF")
    entry = struct.pack("<HHI", 339, 3, 1)
    data = buffer.getvalue()
    at = data.index(entry) + len(entry)
    file.write_bytes(data[:at] + struct.pack("<H", 1) + data[at + 2 :])
    return file


def test_unsigned_integers_beyond_the_sign(tmp_path: Path) -> None:
    assert grey_of(unsigned_tiff(tmp_path / "a.tif", [0, 2**31, 2**32 - 1])) == [0, 128, 255]


@pytest.mark.parametrize(
    ("values", "dtype", "said"),
    [
        ([0.0, float("nan")], "f4", "not finite"),
        ([0.0, float("inf")], "f4", "not finite"),
        ([-0.5, 0.5], "f4", "its values go down to -0.5, which is below black, 0"),
        ([-700, 1200], "i4", "its values go down to -700, which is below black, 0"),
        ([0.0, 1.3], "f4", "its values reach 1.3; this may be white, or dark where white is 255"),
        ([0, 300], "i4", "its values reach 300; this may be white, or dark where white is 65535"),
        ([0, 1_000_000], "i4", "this may be white, or dark where white is .*"),
        ([0, 5], "i4", "this may be white, or dark where white is 255"),
        ([0.0, 0.004], "f4", "this may be white, or dark where white is 1"),
        ([0, 4095], "u2", "its values reach 4095; this may be white, or dark where white is 65535"),
        ([0, 1023], "u2", r"as in  \[images\] white = 4095"),
        ([0, 1], "u2", "its values reach 1;"),
        ([0.0, 1e6], "f4", r"its values reach 1e\+06, which is above every usual white"),
    ],
)
def test_values_without_a_known_white_are_refused_by_name(
    tmp_path: Path, values: list[float], dtype: str, said: str
) -> None:
    file = saved(tmp_path / "odd.tif", [values], dtype)
    with pytest.raises(UnsuitableImage, match=r"odd\.tif: .*" + said):
        opened(file)


def test_a_given_white_takes_the_place_of_all_rules(tmp_path: Path) -> None:
    twelve = Opening(white=4095.0)
    assert grey_of(saved(tmp_path / "a.png", [[0, 2048, 4095, 9000]], "<u2"), twelve) == [0, 128, 255, 255]
    assert grey_of(saved(tmp_path / "b.tif", [[-5.0, 1.3]], "f4"), Opening(white=1.3)) == [0, 255]
    assert grey_of(saved(tmp_path / "c.png", [[7, 200]], "u1"), twelve) == [7, 200]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_from_a_fifteenth_of_white_on_deep_images_are_taken(tmp_path: Path, name: str) -> None:
    assert grey_of(saved(tmp_path / name, [[0, 4369]], "<u2")) == [0, 17]
    assert grey_of(saved(tmp_path / name, [[0, 0]], "<u2")) == [0, 0]
    file = saved(tmp_path / name, [[0, 4368]], "<u2")
    with pytest.raises(UnsuitableImage, match="its values reach 4368"):
        opened(file)
    assert grey_of(file, Opening(white=65535.0)) == [0, 17], "a given white is believed"


def test_strips_of_a_large_deep_image_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (37, 11))
    file = saved(tmp_path / "a.png", values, "<u2")
    whole = opened(file)
    monkeypatch.setattr("bench.data.pixels._STRIP", 40)
    assert np.array_equal(opened(file), whole)
    assert np.array_equal(whole[..., 0], np.rint(values / 257))


HALF = 128  # of 255: red 200 on white is 200 * 128/255 + 255 * 127/255 = 227.4


@pytest.mark.parametrize(
    ("mode", "colour", "name", "options", "seen"),
    [
        ("RGBA", (200, 0, 10, HALF), "a.png", {}, (227, 127, 132)),
        ("RGBA", (200, 0, 10, 0), "a.png", {}, (255, 255, 255)),
        ("RGBA", (200, 0, 10, 255), "a.png", {}, (200, 0, 10)),
        ("RGBA", (200, 0, 10, HALF), "a.tif", {}, (227, 127, 132)),
        ("RGBA", (200, 0, 10, HALF), "a.webp", {"lossless": True, "exact": True}, (227, 127, 132)),
        ("LA", (100, HALF), "a.png", {}, (177, 177, 177)),
        ("L", 77, "a.png", {"transparency": 77}, (255, 255, 255)),
        ("L", 77, "a.png", {"transparency": 78}, (77, 77, 77)),
        ("RGB", (9, 8, 7), "a.png", {"transparency": (9, 8, 7)}, (255, 255, 255)),
        ("RGB", (9, 8, 7), "a.png", {"transparency": (9, 8, 6)}, (9, 8, 7)),
        ("P", 0, "a.png", {"transparency": 0}, (255, 255, 255)),
        ("P", 0, "a.png", {"transparency": bytes([HALF])}, (127, 127, 127)),
        ("P", 0, "a.gif", {"transparency": 0}, (255, 255, 255)),
        ("1", 1, "a.png", {}, (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), "a.tif", {}, (255, 0, 0)),
    ],
)
def test_transparency_lies_on_white(
    tmp_path: Path, mode: str, colour: int | tuple[int, ...], name: str, options: dict, seen: tuple[int, ...]
) -> None:
    pixels = opened(disk.image(tmp_path / name, colour, mode=mode, **options))
    assert (pixels == pixels[0, 0]).all() and tuple(pixels[0, 0].tolist()) == seen


def test_transparency_lies_on_the_background(tmp_path: Path) -> None:
    file = disk.image(tmp_path / "a.png", (200, 0, 10, HALF), mode="RGBA")
    assert opened(file, Opening((0, 0, 255)))[0, 0].tolist() == [100, 0, 132]


def test_one_transparent_grey_of_any_depth(tmp_path: Path) -> None:
    deep = saved(tmp_path / "16.png", [[3000, 3001, 65535]], "<u2", transparency=3000)
    assert grey_of(deep) == [255, 12, 255] and grey_of(deep, Opening((0, 0, 0))) == [0, 12, 255]
    two = png(tmp_path / "2.png", 4, 2, 0, bytes([0b00011011]), struct.pack(">H", 2))
    assert grey_of(two) == [0, 85, 255, 255]
    four = png(tmp_path / "4.png", 2, 4, 0, bytes([0x5A]), struct.pack(">H", 5))
    assert grey_of(four) == [255, 170]
    one = png(tmp_path / "1.png", 8, 1, 0, bytes([0b00011011]), struct.pack(">H", 0))
    assert grey_of(one, Opening((9, 9, 9))) == [9, 9, 9, 255, 255, 9, 255, 255]


def test_sixteen_bit_colours(tmp_path: Path) -> None:
    row = struct.pack(">6H", 0, 1000, 65535, 30000, 257, 513)
    assert opened(png(tmp_path / "a.png", 2, 16, 2, row)).tolist() == [[[0, 3, 255], [117, 1, 2]]]
    grey_alpha = struct.pack(">4H", 30000, 65535, 30000, 0)
    assert grey_of(png(tmp_path / "b.png", 2, 16, 4, grey_alpha)) == [117, 255]
    keyed = png(tmp_path / "c.png", 2, 16, 2, row, struct.pack(">3H", 0, 0, 0))
    with pytest.raises(UnsuitableImage, match=r"c\.png: 16-bit colours with one transparent"):
        opened(keyed)


@pytest.mark.parametrize(("colour", "clear"), [(2, False), (4, True), (6, True)])
def test_dark_sixteen_bit_colours_are_refused(tmp_path: Path, colour: int, clear: bool) -> None:
    """Their lower bits are gone when Pillow is done, so no white could bring them back."""
    count = {2: 3, 4: 1, 6: 3}[colour]

    def file(*values: int) -> Path:
        alpha = (65535,) if clear else ()
        row = b"".join(struct.pack(f">{count + clear}H", *(value,) * count, *alpha) for value in values)
        return png(tmp_path / "a.png", len(values), 16, colour, row)

    assert grey_of(file(0, 17 * 256)) == [0, 17]
    for values in ((0, 4095), (0, 255)):
        for opening in (OWN, Opening(white=4095.0)):
            with pytest.raises(UnsuitableImage, match=r"a\.png: its 16-bit colours stay below"):
                opened(file(*values), opening)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize(
    ("orientation", "corners"),  # where the corners of the stored 1 2 / 3 4 come to lie, row by row
    [(1, "1234"), (2, "2143"), (3, "4321"), (4, "3412"), (5, "1324"), (6, "3142"), (7, "4231"), (8, "2413")],
)
def test_images_are_turned_as_exif_says(tmp_path: Path, name: str, orientation: int, corners: str) -> None:
    greys = {"1": 0, "2": 80, "3": 160, "4": 240}
    stored = np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((16, 24), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).convert("RGB").save(tmp_path / name, exif=exif, quality=95)
    pixels = opened(tmp_path / name)
    assert pixels.shape[:2] == ((48, 32) if orientation > 4 else (32, 48))
    at = [pixels[y, x, 0] for y in (4, -4) for x in (4, -4)]
    assert np.abs(np.array(at, int) - [greys[c] for c in corners]).max() <= 3


@pytest.mark.parametrize("block", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*"])
def test_a_broken_exif_block_turns_nothing(tmp_path: Path, block: bytes) -> None:
    disk.image(tmp_path / "a.jpg", (9, 9, 9), exif=block)
    assert opened(tmp_path / "a.jpg").shape == (6, 8, 3)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_of_several_pictures_the_first(tmp_path: Path, name: str) -> None:
    pictures = [Image.new("RGB", (8, 6), colour) for colour in ((0, 0, 255), (255, 0, 0))]
    options = {"lossless": True} if name == "a.webp" else {}
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], **options)
    assert opened(tmp_path / name)[0, 0].tolist() == [0, 0, 255]


def test_plain_images_are_opened_alike_in_both_ways(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    Image.fromarray(noise).save(tmp_path / "b.png")
    Image.fromarray(noise).convert("P").save(tmp_path / "c.png")
    disk.image(tmp_path / "d.jpg", (10, 20, 30, 40), mode="CMYK")
    for file in tmp_path.iterdir():
        assert np.array_equal(opened(file), opened(file, None))
    assert np.array_equal(opened(tmp_path / "b.png"), noise)


def class_folders(root: Path) -> Path:
    for part in ("train", "val", "test"):
        for name in ("cat", "dog"):
            disk.image(root / part / name / f"{part}.png", (200, 0, 10, 0), mode="RGBA")
    return root


def shown(name: str, root: Path | None = None) -> list[int]:
    dataset = catalog.find(name, root)
    return list(dataset.source.open(dataset.test.paths[0]).getpixel((0, 0)))


def test_who_has_an_own_way(tmp_path: Path) -> None:
    """Folders and a user's own TOML have it; the catalog's datasets are opened as published."""
    folder = class_folders(tmp_path / "pets")
    assert shown(str(folder)) == [255, 255, 255]
    toml = tmp_path / "mine.toml"
    for table, seen in (
        ("", [255, 255, 255]),
        ('[images]\nbackground = "#00f"\n', [0, 0, 255]),
        ("[images]\nas_published = true\n", [200, 0, 10]),
    ):
        toml.write_text(f'name = "mine"\nfolder = "pets"\n{table}')
        assert shown(str(toml)) == seen
    split = disk.split_file(tmp_path / "dtd" / SPLIT, ["banded", "woven"])
    for path, _, _ in split["test"]:
        disk.image(tmp_path / "dtd" / "images" / path, (200, 0, 10, 0), mode="RGBA", format="PNG")
    assert shown("dtd", tmp_path) == [200, 0, 10]
    toml.write_text(
        'name = "mine"\nreader = "coop-split"\n[layout]\nfolders = ["dtd"]\nimages = ["images"]\n'
        f'[options]\nfile = "{SPLIT}"\n'
    )
    assert shown(str(toml)) == [255, 255, 255]
    assert all(catalog.spec(name).opening is None for name in catalog.names())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('background = "whit"', "background 'whit' is no opaque colour"),
        ('background = "#ffffff80"', "no opaque colour"),
        ("background = 3", "no opaque colour"),
        ("white = 0", "white must be a number above 0"),
        ('white = "bright"', "white must be a number above 0"),
        ("white = true", "white must be a number above 0"),
        ("white = nan", "white must be a number above 0"),
        ("as_published = 1", "as_published must be true or false"),
        ("as_published = true\nwhite = 1", "as_published = true fixes how images are opened"),
        ('back = "white"', "unknown key 'back'"),
    ],
)
def test_wrong_tables_are_refused(tmp_path: Path, line: str, said: str) -> None:
    toml = tmp_path / "mine.toml"
    toml.write_text(f'name = "mine"\nfolder = "pets"\n[images]\n{line}\n')
    with pytest.raises(BenchError, match=said) as error:
        catalog.find(str(toml), None)
    assert "[images]" in str(error.value)


def test_published_images_are_as_they_were(tmp_path: Path) -> None:
    """The ways of Pillow that own images are spared: white for 16 bits, alpha dropped, not turned."""
    source = FolderSource(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    disk.image(tmp_path / "turned.jpg", exif=exif)
    assert source.open("turned.jpg").size == (8, 6)
    saved(tmp_path / "deep.png", [[100, 300, 65535]], "<u2")
    assert np.asarray(source.open("deep.png"))[0, :, 0].tolist() == [100, 255, 255]
    disk.image(tmp_path / "alpha.png", (10, 200, 30, 0), mode="RGBA")
    assert source.open("alpha.png").getpixel((0, 0)) == (10, 200, 30)
