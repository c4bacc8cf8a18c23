"""Class subsets are cut before the arg-max (protocol 1.6, 21 item 12), and equal logits rank the lower class
first.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp

from bench.data import catalog
from bench.data.spec import DatasetSpec
from bench.errors import BenchError
from bench.interface import POOLED, Method
from bench.run import outputs
from bench.run.evaluate import evaluate
from bench.run.guard import Guard


class Stored(Method):
    """Logits that are simply the features."""

    name, title = "stored", "Stored"

    def logits(self, params: Any, consts: Any, features: Any, values: Any) -> torch.Tensor:
        return features[POOLED]


def told(
    logits_BK: torch.Tensor,
    classes: tuple[int, ...] | None = None,
    labels: list[int] | None = None,
    temperature: float | None = None,
    keep_logits: bool = False,
) -> dict[str, np.ndarray]:
    """The arrays of an evaluation whose logits are the features, in slices of four images."""
    names = tuple(map(str, range(len(classes) if classes else logits_BK.shape[1])))
    test = SimpleNamespace(paths=list(range(len(logits_BK))), labels=labels or [0] * len(logits_BK))
    spec = SimpleNamespace(identity="")
    target = SimpleNamespace(
        classes=classes, classnames=names, test=test, name="stored", spec=spec, covers="lists"
    )
    backbone = SimpleNamespace(config={"vision_cfg": {}, "embed_dim": 8}, family="other", image_size=8)
    fit = SimpleNamespace(
        method=Stored(),
        backbone=backbone,
        cell=SimpleNamespace(method="stored"),
        parts=SimpleNamespace(source=""),
        settings={},
        key="f" * 64,
        dataset=SimpleNamespace(classnames=[*map(str, range(logits_BK.shape[1]))]),
    )
    session = SimpleNamespace(
        device="cpu",
        sharers=1,
        keep_logits=keep_logits,
        guard=Guard(),
        slices=lambda *_: ((i, logits_BK[i : i + 4]) for i in range(0, len(logits_BK), 4)),
    )
    evaluation = SimpleNamespace(target=target, values={}, changed={}, key="e" * 64, parts=None)
    _, arrays = evaluate(session, fit, evaluation, {}, {}, {}, temperature)  # type: ignore[arg-type]
    return arrays


def test_sliced_rows_equal_masked_logits() -> None:
    logits = torch.randn(10, 30, generator=torch.Generator().manual_seed(1))
    classes = (1, 4, 9, 16, 25, 28)
    masked = torch.full_like(logits, float("-inf"))
    masked[:, list(classes)] = logits[:, list(classes)]
    found = told(logits, classes)
    np.testing.assert_array_equal(np.asarray(classes)[found["top1"]], masked.argmax(1).numpy())
    np.testing.assert_array_equal(np.asarray(classes)[found["classes"]], masked.topk(5).indices.numpy())
    best = masked.double().softmax(1).log().topk(5).values
    np.testing.assert_allclose(found["logp"], best.numpy(), rtol=1e-6)


def test_equal_logits_rank_the_lower_class_first() -> None:
    found = told(torch.zeros(3, 7), labels=[0, 3, 6])
    assert found["top1"].tolist() == [0, 0, 0]
    assert found["classes"][0].tolist() == [0, 1, 2, 3, 4]
    assert found["rank"].tolist() == [0, 3, 6]


def test_fewer_than_five_classes_are_padded() -> None:
    found = told(torch.tensor([[0.0, 2.0, 1.0]]))
    assert found["top1"].tolist() == [1]
    assert found["classes"].tolist() == [[1, 2, 0, -1, -1]]
    assert np.isneginf(found["logp"][0, 3:]).all() and np.isfinite(found["logp"][0, :3]).all()


@pytest.mark.parametrize("piece", [8 * 9, 64 << 20])
def test_everything_that_metrics_need(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    """Against scipy, in pieces of one image and of all."""
    monkeypatch.setattr(outputs, "_PIECE", piece)
    logits = 10 * torch.randn(10, 9, generator=torch.Generator().manual_seed(2))
    labels, T = [i % 9 for i in range(10)], 2.5
    found = told(logits, labels=labels, temperature=T, keep_logits=True)
    logp = log_softmax(logits.double().numpy(), 1)
    rows = np.arange(10)
    order = np.argsort(-logp, 1, kind="stable")
    np.testing.assert_array_equal(
        found["rank"], [list(o).index(y) for o, y in zip(order, labels, strict=True)]
    )
    np.testing.assert_allclose(found["true_logp"], logp[rows, labels], rtol=1e-6)
    np.testing.assert_allclose(found["squares"], (np.exp(logp) ** 2).sum(1), rtol=1e-6)
    np.testing.assert_allclose(found["lse_t"], logsumexp(logp / T, 1), rtol=1e-5, atol=1e-7)
    at_T = np.exp(log_softmax(logits.double().numpy() / T, 1))
    np.testing.assert_allclose(found["squares_t"], (at_T**2).sum(1), rtol=1e-6)
    confidence = np.exp(found["logp"][:, 0].astype(float) / T - found["lse_t"])
    np.testing.assert_allclose(confidence, at_T.max(1), rtol=1e-5)
    np.testing.assert_array_equal(found["logits"], logits.half().numpy())


def test_a_wide_gap_is_no_certainty() -> None:
    found = told(torch.tensor([[0.0, 30.0]]), labels=[0])
    assert found["true_logp"].tolist() == [-30.0]
    assert -1e-12 < found["logp"][0, 0] < 0


def test_without_a_temperature_nothing_is_said_at_one() -> None:
    assert {"lse_t", "squares_t", "logits"}.isdisjoint(told(torch.zeros(3, 7)))


def test_logits_beyond_half_precision_are_kept_in_single() -> None:
    found = told(torch.tensor([[0.0, 1.0], [0.0, 1e5], [1.0, 2.0]]), keep_logits=True)
    assert found["logits"].dtype == np.float32
    assert found["logits"].tolist() == [[0.0, 1.0], [0.0, 1e5], [1.0, 2.0]]


def test_logits_too_far_apart_are_an_error_that_names_the_method() -> None:
    with pytest.raises(BenchError, match=r"^stored: its logits lie too far apart"):
        told(torch.tensor([[0.0, 3e38]]) - torch.tensor([[3e38, 0.0]]))


def test_more_classes_than_records_can_number_are_refused() -> None:
    outputs.empty(1, 32768, False)
    with pytest.raises(BenchError, match="32769 classes"):
        outputs.empty(1, 32769, False)


def test_diverged_logits_are_an_error() -> None:
    with pytest.raises(BenchError, match="not finite"):
        told(torch.tensor([[0.0, float("nan"), 1.0]]))


def test_published_subsets_are_ascending() -> None:
    """ImageNet-A and -R: 200 strictly increasing rows of ImageNet's class list, by WordNet id."""
    for name in ("imagenet_a", "imagenet_r"):
        spec: DatasetSpec = catalog.spec(name)
        wnids = spec.extra["wnids"]
        assert len(wnids) == len(set(wnids)) == 200
        assert list(wnids) == sorted(wnids)
