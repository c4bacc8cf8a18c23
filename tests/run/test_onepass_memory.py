"""One-pass evaluation holds one batch of dense features, however many images the test set has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FEW, MANY = 400, 1600

# Three states scored on RN50-shaped dense features (49 x 2048, 0.4 MB an image in single precision), from a
# tower that costs nothing; prints the peak memory after a small test set and after one four times its size.
CODE = """
import json, sys
sys.path.insert(0, {features!r})
from pathlib import Path
from types import SimpleNamespace as Made
import torch
from feature_fakes import GreySource, WideTower
from bench.interface import Method
from bench.run import onepass
from bench.run.session import Session

class Mean(Method):
    name, title, taps = "mean", "Mean", ("dense",)

    def logits(self, params, consts, features, values):
        return features["dense"].mean(1) @ params["W"]

def measure(n):
    target = Made(
        name="many", digest="d" * 64, stored_as="d" * 64, covers="lists", spec=Made(identity=""),
        source=GreySource(), classes=None, classnames=("a", "b", "c"),
        test=Made(paths=[str(i) for i in range(n)], labels=[0] * n),
    )
    fit = Made(backbone=tower.spec, method=Mean(), parts=Made(source=""), settings={{}}, key="0" * 64,
               cell=Made(method="made"), dataset=target)
    evaluation = Made(target=target, values={{}}, changed={{}}, key="1" * 64, parts=None)
    jobs = [onepass.Job(fit, evaluation, {{"W": torch.randn(2048, 3)}}, {{}}, {{}}, 1.5) for _ in range(3)]
    ended = onepass.run(session, jobs)
    assert not any(isinstance(one, Exception) for one in ended), ended
    scored = [arrays["top1"].size for _, arrays in ended]
    return scored, int(next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1]) / 1024

tower = WideTower(size=64)
session = Session("cpu", Path({root!r}), print, workers=0, dense_cache=False)
session._backbones[tower.spec.digest, tower.spec.dtype] = tower
print(json.dumps([measure({few}), measure({many})]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's resource counters")
def test_memory_does_not_grow_with_the_test_set(tmp_path: Path) -> None:
    code = CODE.format(features=str(ROOT / "tests" / "features"), root=str(tmp_path), few=FEW, many=MANY)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    (few, small), (many, large) = json.loads(run.stdout)
    assert few == [FEW] * 3 and many == [MANY] * 3
    kept = (MANY - FEW) * 49 * 2048 * 2 / 2**20
    assert kept > 200
    assert large - small < 60, f"features of {kept:.0f} MB took {large - small:.0f} MB more memory"
    assert not list(tmp_path.rglob("*.npy")), "nothing is stored"
