"""Whole commands that share a feature store: images are encoded once, and clearing it spoils no run."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.cli.codes import Code
from tests.run.conftest import records

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 300  # seconds
Start = Callable[..., "subprocess.Popen[str]"]
pytestmark = pytest.mark.slow


@pytest.fixture
def start(images: Path) -> Iterator[Start]:
    made: list[subprocess.Popen[str]] = []

    def begin(*words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bench", *map(str, words)]
        made.append(
            subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
        return made[-1]

    yield begin
    for one in made:
        one.kill()
        one.communicate()


def a_run(images: Path, results: Path, cache: Path) -> tuple[object, ...]:
    grid = ("--datasets", images, "--backbone", "pocket-rn", "--methods", "zero-shot,tip-adapter-f,safe")
    quick = ("--set", "safe.steps=6", "--set", "safe.check_every=2", "--set", "tip-adapter-f.epochs=2")
    ends = ("--shots", "2", "--seeds", "1,2", "--jobs", "1", "--results", results, "--cache", cache)
    return "run", *grid, *quick, *ends


def size(store: Path) -> dict[str, int]:
    """Bytes of shards, by feature set."""
    return {
        folder.name: sum(file.stat().st_size for file in folder.glob("*.npy"))
        for folder in store.iterdir()
        if (folder / "key.json").exists()
    }


def encodes(said: str) -> int:
    """Passes through the image tower, by a run's last line."""
    return int(re.findall(r"(\d+) encodes?,", said)[-1])


def recorded(results: Path) -> int:
    return len(list((results / "runs").rglob("*.json")))


def test_three_runs_that_start_at_once_encode_once(start: Start, images: Path, tmp_path: Path) -> None:
    alone = start(*a_run(images, tmp_path / "alone", tmp_path / "own"))
    passes = encodes(alone.communicate(timeout=LIMIT)[0])
    assert alone.returncode == Code.GOOD and passes > 0
    three = [start(*a_run(images, tmp_path / str(i), tmp_path / "shared")) for i in range(3)]
    said = [one.communicate(timeout=LIMIT)[0] for one in three]
    assert [one.returncode for one in three] == [Code.GOOD] * 3, said
    assert size(tmp_path / "shared") == size(tmp_path / "own")
    assert sum(map(encodes, said)) == passes
    want = records(tmp_path / "alone")
    assert all(records(tmp_path / str(i)) == want for i in range(3))
    assert not list(tmp_path.rglob(".*.tmp"))


def test_clearing_the_store_in_the_middle_of_a_run_spoils_nothing(
    start: Start, images: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    run = start(*a_run(images, tmp_path / "results", store))
    deadline = time.monotonic() + LIMIT
    while not recorded(tmp_path / "results") and time.monotonic() < deadline:
        time.sleep(0.02)
    clear = start("cache", "clear", "--yes", "--cache", store)
    said = clear.communicate(timeout=LIMIT)[0]
    then = recorded(tmp_path / "results")
    assert run.wait(LIMIT) == Code.GOOD
    if then < recorded(tmp_path / "results"):  # else the machine was too busy to meet it in the middle
        assert clear.returncode == Code.INCOMPLETE and "running commands use" in said
    whole = start(*a_run(images, tmp_path / "whole", tmp_path / "own"))
    assert whole.wait(LIMIT) == Code.GOOD
    assert records(tmp_path / "results") == records(tmp_path / "whole")
    last = start("cache", "clear", "--yes", "--cache", store)
    assert last.wait(LIMIT) == Code.GOOD and size(store) == {}
