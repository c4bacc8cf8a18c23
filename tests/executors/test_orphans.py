"""A run whose process is killed leaves no worker behind, and the next run completes the same table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.run.conftest import Bench
from tests.test_children import alive, gone

GRID = ("--methods", "tip-adapter,tip-adapter-f", "--seeds", "1,2,3,4,5")


def below(pid: int) -> list[int]:
    """The processes that a process started, and that these started."""
    found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [other for one in found for other in below(one)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_worker_outlives_its_run(bench: Bench, tmp_path: Path, images: Path, cache: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert bench("run", *GRID, "--results", whole, "--jobs", "1").exit_code == 0
    words = ["run", *GRID, "--jobs", "2", "--results", cut, "--datasets", images]
    words += ["--backbone", "pocket-rn", "--shots", "2"]
    words += ["--set", "tip-adapter-f.epochs=2"]
    for number, sent in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)):
        run = subprocess.Popen(
            [sys.executable, "-m", "bench", *map(str, words)],
            env={**os.environ, "BENCH_CACHE": str(cache)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        end = time.monotonic() + 300
        while run.poll() is None and len(list(cut.rglob("*.npz"))) <= 2 * number and time.monotonic() < end:
            time.sleep(0.02)
        started = below(run.pid) if run.poll() is None else []
        shared = [p for pid in started for p in _shared(pid)]
        run.send_signal(sent)
        said = run.communicate(timeout=60)[1].decode()
        assert len(started) >= 2 and gone(started, 15)
        assert not shared, "what a killed process would leave in the system"
        assert "Traceback" not in said
        if sent is not signal.SIGKILL:
            assert run.returncode == 130 and "bench: interrupted; what was finished is kept" in said
    assert bench("run", *GRID, "--results", cut, "--jobs", "1").exit_code == 0
    table = ("table", "--format", "csv", "--results")
    assert bench(*table, cut).stdout == bench(*table, whole).stdout


def _shared(pid: int) -> list[str]:
    """What a process has mapped of the system's shared memory."""
    maps = Path(f"/proc/{pid}/maps").read_text() if alive(pid) else ""
    return [line for line in maps.splitlines() if "/dev/shm" in line]
