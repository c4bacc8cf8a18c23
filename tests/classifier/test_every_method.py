"""Every method of the program can be kept, or says why it cannot: its constants read back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.classifier import file
from bench.classifier.cell import of_fit
from bench.classifier.model import Model
from bench.classifier.parts import Unstorable
from bench.contract import lab as labs
from bench.contract.lab import Lab, open_lab
from bench.interface import Method
from bench.registry import builtin

# Their constants hold modules of their own, which no file can hold; docs/classifier.md names them.
NOT = {"safe-layer4"}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_lab() as opened:
        yield opened


def kept_and_read(lab: Lab, method: Method, family: str, tmp_path: Path) -> None:
    """Fit a method in the lab, keep it, load it with a new tower, and compare logits to the last bit."""
    measured = labs.measure(lab, method, builtin(), family, "uneven")
    task = measured.task()
    consts = measured.method.prepare(task)
    fit, features = measured.fit, measured.test()
    want = measured.logits(features, consts)
    kept = of_fit(fit, fit.evaluations[0], measured.state, consts, 1.0, lab.session, builtin())
    file.save(kept, tmp_path / "x.clf")
    model = Model(file.read(tmp_path / "x.clf"), "cpu", backbone=lab.towers[family])
    with torch.no_grad():
        assert torch.equal(model.score_features(features), want)
    source, paths = fit.dataset.source, fit.dataset.test.paths
    found = [answer.logits for answer in model.answers(source, paths)]
    assert [int(z.argmax()) for z in found if z is not None] == measured.top1.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", builtin().names())
def test_a_method_reads_back_as_it_was(name: str, lab: Lab, tmp_path: Path) -> None:
    method = builtin().get(name)
    for family in sorted(set(method.towers) & set(lab.towers)):
        if name in NOT:
            with pytest.raises(Unstorable, match=f"{name} cannot be saved"):
                kept_and_read(lab, method, family, tmp_path / family)
        else:
            kept_and_read(lab, method, family, tmp_path / family)
