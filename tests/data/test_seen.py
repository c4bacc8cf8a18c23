"""Images that are exchanged while the lists of paths stay are noticed; new times and sizes alone change
nothing.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from bench.data import seen
from bench.data.dataset import Dataset, Items
from bench.data.imagefile import FolderSource
from bench.data.spec import parse
from bench.errors import BenchError

LISTS = "1" * 64


def dataset(root: Path, lists: str = LISTS) -> Dataset:
    """Five files in three parts; the digest is of the lists alone."""
    root.mkdir(exist_ok=True)
    names = [f"{i}.png" for i in range(5)]
    for name in names:
        (root / name).write_bytes(b"image " + name.encode())
    parts = [Items(tuple(names[a:b]), (0,) * (b - a)) for a, b in ((0, 2), (2, 3), (3, 5))]
    spec = parse({"name": "made"}, "made")
    return Dataset("made", spec, ("thing",), *parts, digest="1" * 64, source=FolderSource(root), lists=lists)


def rewritten(file: Path, content: bytes | None = None) -> None:
    """The file with a later time of change, as an unpacked archive or an exchange leaves it."""
    if content is not None:
        file.write_bytes(content)
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))


def test_untouched_and_rewritten_files_are_the_same_dataset(tmp_path: Path) -> None:
    data, place = dataset(tmp_path / "images"), tmp_path / "results"
    assert seen.current(data, [place]) == data, "nothing was used before"
    seen.note(place, data, ["0.png", "3.png", "4.png"])
    assert seen.current(data, [place]) == data
    for file in (tmp_path / "images").iterdir():
        rewritten(file)
    assert seen.current(data, [place]) == data
    assert data.covers == "lists"


@pytest.mark.parametrize("content", [b"other bytes", b"IMAGE 3.png"], ids=["another size", "the same size"])
def test_an_exchanged_image_is_another_dataset(tmp_path: Path, content: bytes) -> None:
    data, place = dataset(tmp_path / "images"), tmp_path / "results"
    seen.note(place, data, ["0.png", "3.png"])
    rewritten(tmp_path / "images" / "3.png", content)
    now = seen.current(data, [place])
    assert now.digest != data.digest and now.covers == "contents"
    assert now.lists == data.lists and now.stored_as != data.stored_as
    assert "1 of its images" in now.notes[-1] and "3.png" in now.notes[-1]
    assert seen.current(data, [place]).digest == now.digest, "it stays that other dataset"
    rewritten(tmp_path / "images" / "3.png", b"image 3.png")
    assert seen.current(data, [place]) == data, "and becomes the first one again with the first images"


def test_the_new_digest_is_of_all_contents_and_nothing_else(tmp_path: Path) -> None:
    """Two machines that notice different exchanges of the same files agree."""
    digests = set()
    for machine, used in (("one", ["3.png"]), ("two", ["0.png", "3.png"])):
        data, place = dataset(tmp_path / machine), tmp_path / f"{machine}-results"
        seen.note(place, data, used)
        rewritten(tmp_path / machine / "3.png", b"new")
        digests.add(seen.current(data, [place]).digest)
    assert len(digests) == 1
    data, place = dataset(tmp_path / "three"), tmp_path / "three-results"
    seen.note(place, data, ["3.png"])
    rewritten(tmp_path / "three" / "3.png", b"new")
    rewritten(tmp_path / "three" / "2.png", b"new too, never used before")
    assert seen.current(data, [place]).digest not in digests


def test_every_place_is_asked(tmp_path: Path) -> None:
    """Features of old images in a store are noticed by a results folder that never saw them."""
    data, store, results = dataset(tmp_path / "images"), tmp_path / "store", tmp_path / "results"
    seen.note(store, data, ["3.png"])
    rewritten(tmp_path / "images" / "3.png", b"new")
    assert seen.current(data, [results, store]).digest != data.digest
    seen.note(results, data, ["3.png"])  # two places disagree about the same lists
    assert seen.current(data, [results, store]).digest != data.digest
    assert seen.current(data, [results]) == data


def test_stamps_are_taken_once_and_copied_from_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, store, results = dataset(tmp_path / "images"), tmp_path / "store", tmp_path / "results"
    hashed: list[str] = []
    original = seen.sha256_file
    monkeypatch.setattr(seen, "sha256_file", lambda file: (hashed.append(file.name), original(file))[1])
    seen.note(store, data, ["0.png", "3.png", "0.png"])
    seen.note(store, data, ["0.png", "3.png", "absent.png"])
    seen.note(results, data, ["0.png", "3.png"], beside=[store])
    seen.current(data, [results, store])
    assert sorted(hashed) == ["0.png", "3.png"]


def test_what_vouches_for_its_contents_is_not_watched(tmp_path: Path) -> None:
    data = dataset(tmp_path / "images", lists="")
    seen.note(tmp_path / "results", data, data.test.paths)
    assert not (tmp_path / "results").exists()
    assert data.covers == "contents" and data.stored_as == data.digest


def test_processes_do_not_overwrite_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, place = dataset(tmp_path / "images"), tmp_path / "results"
    seen.note(place, data, ["0.png"])
    monkeypatch.setattr(seen, "_WRITER", "another")
    seen.note(place, data, ["3.png"])
    rewritten(tmp_path / "images" / "0.png", b"new")
    rewritten(tmp_path / "images" / "3.png", b"new")
    assert "2 of its images" in seen.current(data, [place]).notes[-1]


def test_damaged_stamps_are_refused(tmp_path: Path) -> None:
    data, place = dataset(tmp_path / "images"), tmp_path / "results"
    seen.note(place, data, ["0.png"])
    (file,) = (place / "images").rglob("*.json")
    file.write_text('{"schema": 1, "images": {"0.png": [1]}}')
    with pytest.raises(BenchError, match="delete it"):
        seen.current(data, [place])


def test_every_file_is_hashed_on_request(tmp_path: Path) -> None:
    """A change that keeps size and time is beyond ``current`` and not beyond ``contents``."""
    data, place, file = dataset(tmp_path / "images"), tmp_path / "results", tmp_path / "images" / "3.png"
    seen.note(place, data, ["3.png"])
    before = file.stat()
    file.write_bytes(b"IMAGE 3.png")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert seen.current(data, [place]) == data
    hashes = seen.contents(data)
    assert len(hashes) == 5
    assert seen.differing(data, hashes, [place]) == ["3.png"]
    assert seen.differing(replace(data, lists="2" * 64), hashes, [place]) == []
