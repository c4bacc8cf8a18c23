"""What is kept of probabilities, by hand and by other ways to count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.imported import outputs
from bench.run import outputs as of_run


def test_three_classes_by_hand() -> None:
    p = np.array([[0.5, 0.25, 0.25], [0.4, 0.2, 0.4], [1.0, 0.0, 0.0]])
    kept = outputs.arrays(p, np.array([0, 2, 0]), np.array([2, 0, 1]))
    # Of equal probabilities the predicted class comes first, then the lower one.
    assert kept["classes"].tolist() == [[0, 1, 2, -1, -1], [2, 0, 1, -1, -1], [0, 1, 2, -1, -1]]
    assert kept["rank"].tolist() == [2, 1, 1]
    assert np.allclose(kept["true_logp"], np.log([0.25, 0.4, outputs.LEAST]), rtol=1e-6)
    assert np.allclose(kept["squares"], [0.375, 0.36, 1.0])
    assert np.isneginf(kept["logp"][:, 3:]).all()
    assert np.allclose(kept["logp"][0, :3], np.log([0.5, 0.25, 0.25]), rtol=1e-6)


def test_pieces_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(9), 50)
    labels, top1 = rng.integers(0, 9, 50), p.argmax(1)
    whole = outputs.arrays(p, top1, labels)
    monkeypatch.setattr(outputs, "_ROWS", 7)
    pieces = outputs.arrays(p, top1, labels)
    assert all(np.array_equal(whole[name], pieces[name]) for name in whole)
    assert np.array_equal(whole["rank"], (p > p[np.arange(50), labels][:, None]).sum(1))
    assert np.array_equal(whole["classes"], np.argsort(-p, 1)[:, :5])


def test_it_is_what_a_run_keeps_of_the_same_probabilities() -> None:
    rng = np.random.default_rng(0)
    logits, labels = torch.from_numpy(rng.normal(0, 3, (40, 7))), rng.integers(0, 7, 40)
    run = of_run.empty(40, 7, scaled=False)
    of_run.fill(run, 0, logits, labels.tolist(), None)
    p = logits.softmax(1).numpy()
    kept = outputs.arrays(p, p.argmax(1), labels)
    assert set(kept) == set(run) - {"top1"}
    for name, x in kept.items():
        assert x.dtype == run[name].dtype and np.allclose(x, run[name], rtol=1e-6), name
