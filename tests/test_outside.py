"""Reading from outside: unpacking is bounded, decoding is typed, and odd content is refused in one line."""

from __future__ import annotations

import gzip
import lzma
import struct
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bench import typed, unpack


class Shape(msgspec.Struct, forbid_unknown_fields=True):
    """Something with one field."""

    seeds: list[int]


@pytest.mark.parametrize(("read", "pack"), [(unpack.xz, lzma.compress), (unpack.gz, gzip.compress)])
def test_streams_unpack_within_the_bound_alone(read, pack, tmp_path: Path) -> None:
    file = tmp_path / "packed"
    whole = b"x" * 3_000_000 + b"y" * 10
    file.write_bytes(pack(whole[:-10]) + pack(whole[-10:]))
    assert read(file) == whole
    with pytest.raises(unpack.Torn, match="unpacks to more than 1 MB"):
        read(file, 1_000_000)
    packed = file.read_bytes()
    first = len(pack(whole[:-10]))
    for cut in {*range(0, len(packed), 41), len(packed) - 1} - {first}:
        file.write_bytes(packed[:cut])
        with pytest.raises(unpack.Torn, match=r"ends early|empty|damaged"):
            read(file)


def test_arrays_are_numbers_of_a_bounded_size(tmp_path: Path) -> None:
    file = tmp_path / "some.npz"
    arrays = {
        "a": np.arange(10),
        "b": np.ones((3, 4), order="F") * np.arange(4),
        "c": np.array(3),
        "d": np.empty((0, 5)),
    }
    np.savez_compressed(file, **arrays)
    read = unpack.npz(file)
    assert read.keys() == arrays.keys()
    assert all(
        np.array_equal(read[name], arrays[name]) and read[name].shape == arrays[name].shape for name in arrays
    )
    with pytest.raises(unpack.Torn, match="it has no array 'x'"):
        unpack.npz(file, ["x"])
    np.savez_compressed(file, a=np.zeros(1_000_000))
    with pytest.raises(unpack.Torn, match="more than 1 MB"):
        unpack.npz(file, ["a"], 1_000_000)
    np.savez_compressed(file, a=np.array([print], dtype=object))
    with pytest.raises(unpack.Torn, match="not an array of numbers"):
        unpack.npz(file, ["a"])


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': (), 'fortran_order': False, 'shape': (2,)}",
        "{[]: 1}",
        "{'descr': '<u4', 'fortran_order': False, 'shape': (True,)}",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (-2, -1)}",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (2,",
        "(" * 9000,
        "",
    ],
)
def test_hostile_headers_are_told_in_a_line(header: str, tmp_path: Path) -> None:
    file = tmp_path / "some.npz"
    data = np.lib.format.magic(1, 0) + struct.pack("<H", len(header)) + header.encode() + bytes(4)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", data)
    with pytest.raises(unpack.Torn, match=r"some\.npz: damaged \([^\n]+\)$"):
        unpack.npz(file, ["a"])


def test_odd_compression_is_told_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "some.npz"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", bytes(80))
    for method in (14, 12, 99):  # LZMA, bzip2, nobody's
        whole = bytearray(file.read_bytes())
        for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
            whole[whole.index(mark) + at] = method
        file.write_bytes(whole)
        with pytest.raises(unpack.Torn, match=r"some\.npz: damaged"):
            unpack.npz(file, ["a"])


def test_no_flipped_bit_changes_an_array(tmp_path: Path) -> None:
    file, rng = tmp_path / "some.npz", np.random.default_rng(1)
    np.savez_compressed(file, top1=np.arange(300) % 7, labels=np.arange(300) % 5)
    whole = file.read_bytes()
    expected = unpack.npz(file, ["top1", "labels"])
    refused = 0
    for _ in range(300):
        bad = bytearray(whole)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        file.write_bytes(bad)
        try:
            read = unpack.npz(file, ["top1", "labels"])
        except unpack.Torn:
            refused += 1
        else:  # a time or another remark in the file's directory
            assert all(np.array_equal(read[name], expected[name]) for name in expected)
    assert refused > 100


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"seeds": ["x"]}', r"f: seeds\[0\]: Expected `int`, got `str`"),
        (b'{"seeds": [1], "q": 2}', "f: Object contains unknown field `q`"),
        (b"[" * 100_000, "f: "),
        (b"\xff{}", "f: "),
        (b'{"seeds": [1e999]}', "out of range"),
    ],
)
def test_json_of_another_type_is_one_line(text: bytes, said: str) -> None:
    with pytest.raises(typed.Odd, match=said) as caught:
        typed.decoded(text, Shape, "f")
    assert "\n" not in str(caught.value)


def test_toml_of_another_type_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "suite.toml"
    file.write_text("seeds = [1, 2]")
    assert typed.toml(file, Shape).seeds == [1, 2]
    for text in ("a=" + "[" * 5000, "a=" + "9" * 5000, "seeds = 1", "[", "seeds = [1]\nmore = 1"):
        file.write_text(text)
        with pytest.raises(typed.Odd, match=r"suite\.toml: ") as caught:
            typed.toml(file, Shape)
        assert "\n" not in str(caught.value)
