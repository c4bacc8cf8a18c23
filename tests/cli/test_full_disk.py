"""A full disk is one line and exit code 2 in every verb that writes, and leaves no half file."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.records import packed
from tests.report import made
from tests.test_user_errors import bench

resource = pytest.importorskip("resource", reason="needs limits on the size of files")


@contextmanager
def full(size: int = 0) -> Iterator[None]:
    """No file of this process may grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.grid(tmp_path_factory.mktemp("results"), ["zero-shot", "tip-adapter-f"], shots=(1,))


@pytest.mark.parametrize(
    "words",
    [
        ("pack", "--results", "R", "--out", "O/packed"),
        pytest.param(("report", "--results", "R", "--out", "O/r.html"), marks=pytest.mark.slow, id="report"),
        ("table", "--results", "R", "--out", "O/t.tex"),
        ("plot", "--results", "R", "--out", "O/p.png"),
        ("compare", "tip-adapter-f", "zero-shot", "--results", "R", "--out", "O/c.md"),
        ("check", "--update", "--results", "R", "--baseline", "O/b.json"),
        ("new", "method", "my-probe", "--folder", "O"),
    ],
    ids=lambda words: words[0],
)
def test_one_line_no_half_file_and_the_same_command_goes_on(
    words: tuple[str, ...], results: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(results) if w == "R" else f"{tmp_path}{w[1:]}" if w[:2] in ("O", "O/") else w for w in words]
    with full():
        assert bench(*given) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"bench: {tmp_path}/") and "file too large; make room there" in said
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    assert bench(*given) == 0
    assert [file for file in tmp_path.rglob("*") if file.is_file()]


def test_what_was_there_stays(results: Path, tmp_path: Path, capsys: Any) -> None:
    for words in (("table", "--out", tmp_path / "t.tex"), ("pack", "--out", tmp_path)):
        assert bench(*words, "--results", results) == 0
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    predictions = len(before[packed.PREDICTIONS])
    assert predictions < len(before[packed.RECORDS]), "else this does not fill up between the two"
    for words, size in (
        (("table", "--methods", "zero-shot", "--out", tmp_path / "t.tex"), 0),
        (("pack", "--out", tmp_path), 0),
        (("pack", "--out", tmp_path), predictions),  # between the two files
    ):
        with full(size):
            assert bench(*words, "--results", results) == 2
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_a_run_that_cannot_even_record_its_failure(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """What was finished stays, and the same command goes on."""
    from bench.records import store

    cells = ("run", "--datasets", "digits", "--methods", "zero-shot,tip-adapter", "--backbone", "pocket-rn")
    cells = (*cells, "--shots", "1", "--seeds", "1,2", "--prompts", "hand", "--jobs", "1")
    places = ("--results", tmp_path / "r", "--cache", tmp_path / "c")
    written = 0
    real = store.write_bytes

    def fills_up(path: Path, data: bytes) -> None:
        nonlocal written
        if written > 3 and path.suffix in (".json", ".npz"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written += 1
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_bytes", fills_up)
        assert bench(*cells, *places) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"bench: {tmp_path / 'r'}") and "no space left on device; make room there" in said
    assert not list(tmp_path.rglob("*.tmp"))
    assert bench(*cells, *places) == 0
    assert "3 cells, 1 of them recorded before" in capsys.readouterr().out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_full_standard_streams() -> None:
    command = [sys.executable, "-c", "from bench.cli import main; main()", "list", "suites"]
    with open("/dev/full", "wb") as full_file:
        done = subprocess.run(command, stdout=full_file, stderr=subprocess.PIPE, timeout=60, check=False)
        assert done.returncode == 2 and done.stderr.startswith(b"bench: no space left on device; make room")
        assert done.stderr.count(b"\n") == 1
        done = subprocess.run(command, stdout=full_file, stderr=full_file, timeout=60, check=False)
        assert done.returncode == 2, "nothing can be said, and the code says it"


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO, errno.EROFS])
def test_other_refusals_of_a_disk(
    number: int, results: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    assert bench("table", "--results", results, "--out", tmp_path / "t.md") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"bench: {tmp_path / 't.md'}: {os.strerror(number).lower()}; ")
    assert said.count("\n") == 1 and not list(tmp_path.iterdir())
