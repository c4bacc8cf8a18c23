"""Class subsets are cut before the arg-max (protocol 1.6, 21 item 12), and equal logits rank the lower class
first.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.data import catalog
from bench.data.spec import DatasetSpec
from bench.errors import BenchError
from bench.interface import POOLED, Method
from bench.run.evaluate import predict
from bench.run.guard import Guard


class Stored(Method):
    """Logits that are simply the features."""

    name, title = "stored", "Stored"

    def logits(self, params: Any, consts: Any, features: Any, values: Any) -> torch.Tensor:
        return features[POOLED]


def predicted(logits_BK: torch.Tensor, classes: tuple[int, ...] | None) -> tuple[np.ndarray, np.ndarray]:
    names = tuple(map(str, range(len(classes) if classes else logits_BK.shape[1])))
    target = SimpleNamespace(
        classes=classes, classnames=names, test=SimpleNamespace(paths=list(range(len(logits_BK))))
    )
    spec = SimpleNamespace(config={"vision_cfg": {}, "embed_dim": 8}, family="other", image_size=8)
    fit = SimpleNamespace(
        method=Stored(),
        backbone=spec,
        cell=SimpleNamespace(method="stored"),
        parts=SimpleNamespace(source=""),
        dataset=SimpleNamespace(classnames=[*map(str, range(logits_BK.shape[1]))]),
    )
    session = SimpleNamespace(
        device="cpu",
        sharers=1,
        guard=Guard(),
        slices=lambda *_: ((i, logits_BK[i : i + 4]) for i in range(0, len(logits_BK), 4)),
    )
    return predict(session, fit, SimpleNamespace(target=target), {}, {}, {})  # type: ignore[arg-type]


def test_sliced_rows_equal_masked_logits() -> None:
    logits = torch.randn(10, 30, generator=torch.Generator().manual_seed(1))
    classes = (1, 4, 9, 16, 25, 28)
    masked = torch.full_like(logits, float("-inf"))
    masked[:, list(classes)] = logits[:, list(classes)]
    top1, top5 = predicted(logits, classes)
    np.testing.assert_array_equal(np.asarray(classes)[top1], masked.argmax(1).numpy())
    np.testing.assert_array_equal(np.asarray(classes)[top5], masked.topk(5).indices.numpy())


def test_equal_logits_rank_the_lower_class_first() -> None:
    top1, top5 = predicted(torch.zeros(3, 7), None)
    assert top1.tolist() == [0, 0, 0]
    assert top5[0].tolist() == [0, 1, 2, 3, 4]


def test_fewer_than_five_classes() -> None:
    top1, top5 = predicted(torch.tensor([[0.0, 2.0, 1.0]]), None)
    assert top1.tolist() == [1]
    assert top5.shape == (1, 5)
    assert set(top5[0].tolist()) == {0, 1, 2}


def test_diverged_logits_are_an_error() -> None:
    with pytest.raises(BenchError, match="not finite"):
        predicted(torch.tensor([[0.0, float("nan"), 1.0]]), None)


def test_published_subsets_are_ascending() -> None:
    """ImageNet-A and -R: 200 strictly increasing rows of ImageNet's class list, by WordNet id."""
    for name in ("imagenet_a", "imagenet_r"):
        spec: DatasetSpec = catalog.spec(name)
        wnids = spec.extra["wnids"]
        assert len(wnids) == len(set(wnids)) == 200
        assert list(wnids) == sorted(wnids)
