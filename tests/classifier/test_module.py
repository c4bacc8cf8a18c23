"""One module of tower and method says what an evaluation says, up to the rounding of stored features."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.classifier.module import Whole
from bench.errors import BenchError
from tests.classifier.embedded import Fitted, pixels_of, whole_of

ALL = [(name, family) for name in ("zero-shot", "tip-adapter-f", "gda", "safe") for family in ("rn", "vit")]


@pytest.mark.parametrize(("name", "family"), ALL)
def test_the_module_repeats_the_evaluation(fitted: Fitted, name: str, family: str) -> None:
    m = fitted(name, family)
    whole = whole_of(m, temperature=2.0)
    with torch.inference_mode():
        logits, probabilities = whole(pixels_of(m))
    wanted = m.logits(m.test(), m.method.prepare(m.task())) / 2.0
    # Features are stored in half precision (an error of 2^-11); those of the module are not.
    assert (logits - wanted).abs().max() <= 2e-3 * wanted.abs().max()
    torch.testing.assert_close(probabilities, logits.softmax(-1))
    sure = wanted.topk(2).values.diff().abs().squeeze(1) > 4e-3 * wanted.abs().max()
    assert sure.any()
    assert (logits.argmax(1).numpy() == m.top1)[sure.numpy()].all()


def test_the_module_keeps_copies(fitted: Fitted) -> None:
    """What happens to the state afterwards changes no answer of the module."""
    m = fitted("safe", "rn")
    params = {name: p.clone() for name, p in m.state.params.items()}
    backbone = m.lab.session.backbone(m.fit.backbone)
    whole = Whole(backbone, m.method, params, m.method.prepare(m.task()), m.values())
    with torch.inference_mode():
        before = whole(pixels_of(m))[0]
        for p in params.values():
            p.zero_()
        assert torch.equal(whole(pixels_of(m))[0], before)


def _tower(**changes: Any) -> Any:
    spec = SimpleNamespace(name="tower")
    known: dict[str, Any] = {"spec": spec, "taps": frozenset({"pooled"}), "dtype": torch.float32}
    return SimpleNamespace(**{**known, **changes})


def test_a_tower_without_the_tap_is_refused(fitted: Fitted) -> None:
    method = fitted("safe", "rn").method
    with pytest.raises(BenchError, match="tower has no tap dense, which safe reads"):
        Whole(_tower(), method, {}, {}, {})


def test_another_precision_is_refused(fitted: Fitted) -> None:
    with pytest.raises(BenchError, match="--precision fp32"):
        Whole(_tower(dtype=torch.float16), fitted("zero-shot", "rn").method, {}, {}, {})
