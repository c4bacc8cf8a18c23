"""Folders of killed processes: a living owner keeps its folder, and the next process removes a dead one's."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bench.executors import scratch

HOLD = """
import sys, time
from pathlib import Path
from bench.executors import scratch
with scratch.own(Path(sys.argv[1])):
    Path(sys.argv[1], "file").write_text("x")
    print("there", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_there_while_its_owner_works(temporary: Path) -> None:
    folder = scratch.path()
    for _ in range(2):  # a worker uses one name for all its tasks
        with scratch.own(folder):
            (folder / "runs").mkdir()
            scratch.clear()
            assert [p.name for p in temporary.iterdir()] == [folder.name] and (folder / "runs").is_dir()
        assert not list(temporary.iterdir())
    with pytest.raises(ZeroDivisionError), scratch.own(folder):
        _ = 1 / 0
    assert not list(temporary.iterdir())


def test_what_a_killed_process_left_is_removed(temporary: Path) -> None:
    folder, foreign = scratch.path(), temporary / "bench-ray-elsewhere-1"
    foreign.mkdir()
    owner = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE)
    try:
        assert owner.stdout is not None and owner.stdout.readline() == b"there\n"
        scratch.clear()
        assert (folder / "file").is_file(), "its owner lives"
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.communicate()
    assert (folder / "file").is_file()
    scratch.clear()
    assert not folder.exists() and foreign.is_dir(), "another machine's are not ours to judge"
