"""Only regular files are read; pipes, devices and folders are refused by name, and opening never waits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import files, typed, unpack
from bench.errors import BenchError
from tests.fixtures.hostile import in_time

READERS: list[Callable[[Path], Any]] = [
    files.read_bytes,
    files.read_text,
    files.read_json,
    files.sha256_file,
    lambda file: typed.json(file, dict),
    lambda file: typed.toml(file, dict),
    unpack.xz,
    unpack.gz,
    unpack.npz,
]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
@pytest.mark.parametrize("read", READERS)
def test_nobody_waits_for_a_pipe_or_reads_a_device(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name, said in (("pipe", "a pipe, not a regular file"), ("link", "a device, not a regular file")):
        with in_time(), pytest.raises((OSError, BenchError), match=said) as error:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
def test_a_file_that_becomes_a_pipe_on_the_way_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("x")
    whole = os.stat(tmp_path / "a")
    (tmp_path / "a").unlink()
    os.mkfifo(tmp_path / "a")
    monkeypatch.setattr(os, "stat", lambda path, **_: whole)
    handles = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with in_time(), pytest.raises(OSError, match="a pipe, not a regular file"):
        files.regular(tmp_path / "a")
    if handles:
        assert len(os.listdir("/proc/self/fd")) == handles


def test_text_is_read_as_it_always_was(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("ä\r\nb\rc\n".encode())
    assert files.read_text(tmp_path / "a") == "ä\nb\nc\n"
    (tmp_path / "a").write_bytes(b"ab\xff")
    with pytest.raises(BenchError, match=r"a: not UTF-8 text \(byte 2 is 0xff\)"):
        files.read_text(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        files.read_text(tmp_path / "b")
    with pytest.raises(IsADirectoryError):
        files.read_text(tmp_path)


def test_a_stamp_changes_though_the_time_is_set_back(tmp_path: Path) -> None:
    file = tmp_path / "some"
    file.write_bytes(b"before")
    first, times = files.stamp(file), file.stat()
    with file.open("rb") as opened:
        assert files.stamp(str(file)) == files.stamp(opened.fileno()) == first
    time.sleep(0.01)  # the system's clock ticks
    file.write_bytes(b"behind")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    again = files.stamp(file)
    assert (again.size, again.mtime_ns, again.number) == (first.size, first.mtime_ns, first.number)
    assert again != first
