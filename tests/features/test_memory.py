"""Memory does not grow while features of any size are written and read, and a killed run leaves no worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

# Encodes `n` 64-pixel images to RN50's dense rows (49 x 2048 float16, 0.2 MB), streams them, prints memory.
CODE = """
import json, sys
sys.path.insert(0, {here!r})
from pathlib import Path
from types import SimpleNamespace
import numpy as np, torch
from feature_fakes import GreySource, WideTower
from bench.features.encode import Wanted, encode, keys
from bench.features.store import FeatureStore

def peak():
    # not ru_maxrss, which a child takes over from the process that started it
    return int(next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1]) / 1024

tower, data = WideTower(size=64), SimpleNamespace(stored_as="d" * 64, source=GreySource())
store, paths = FeatureStore(Path({root!r})), [str(i) for i in range({n})]
encode(tower, data, [Wanted(paths[:64], {{"flip": ["dense"]}})], store, workers=0)
before = peak()
encode(tower, data, [Wanted(paths, {{"eval": ["dense"]}})], store, workers=0)
rows = sum(len(piece) for _, piece in store.slices(keys(tower, data)("dense", "eval"), paths))
written = sum(f.stat().st_size for f in store.root.rglob("*.npy")) / 2**20
print(json.dumps([before, peak(), rows, written]))
"""


def measure(root: Path, n: int) -> tuple[float, float, int, float]:
    code = CODE.format(here=str(HERE), root=str(root), n=n)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return tuple(json.loads(run.stdout))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's resource counters")
def test_memory_does_not_grow_with_what_is_written(tmp_path: Path) -> None:
    before, after, rows, written = measure(tmp_path, 2000)
    assert rows == 2000 and written > 380
    assert after - before < 150, f"{written:.0f} MB written took {after - before:.0f} MB more memory"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's resource counters")
def test_four_gigabytes_are_written_within_two_gigabytes_of_memory(tmp_path: Path) -> None:
    _, after, rows, written = measure(tmp_path, 21_000)
    assert rows == 21_000 and written > 4000
    assert after < 2000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_run_leaves_no_worker_behind(tmp_path: Path) -> None:
    code = f"""
import sys, multiprocessing
sys.path.insert(0, {str(HERE)!r})
from pathlib import Path
from feature_fakes import TinyTower, dataset
from bench.features.encode import stream
if __name__ == "__main__":
    paths = [f"{{i}}.png" for i in range(10**5)]
    data = dataset(Path({str(tmp_path)!r}))
    for _ in stream(TinyTower(), data, paths, "eval", ["pooled"], workers=2, batch=4):
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        workers = [int(pid) for pid in run.stdout.readline().split()]
        os.kill(run.pid, signal.SIGKILL)
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    while any(_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in workers)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
