"""Tests of the text tower, of cutting prompts at their end token, and of classifier rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.clip import backbone, text, vocabulary
from bench.errors import BenchError
from tests.fixtures.references import parity

Tiny = Callable[..., tuple[str, Any]]
PROMPTS = [
    "a photo of a cat.",
    "dog",
    "a centered satellite photo of a very long winding river in the mountains.",
]


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_truncated_text_equals_77_tokens(tiny: Tiny, quick_gelu: bool) -> None:
    name, model = tiny("rn", quick_gelu=quick_gelu)
    loaded = backbone.load(backbone.resolve(name))
    ids_PL = loaded.text.tokenize(PROMPTS)
    want = model.double().encode_text(ids_PL).detach()
    torch.testing.assert_close(loaded.encode_text(PROMPTS), want.float(), rtol=1e-4, atol=1e-6)
    tower = loaded.text.to(torch.float64)
    eot_P = text.end_of_text(ids_PL)
    assert int(eot_P.max()) < 76
    torch.testing.assert_close(tower.encode(tower.embed(ids_PL), eot_P), want, rtol=1e-10, atol=1e-10)
    for chunk in (1, 2, 5):
        torch.testing.assert_close(tower.encode_ids(ids_PL, chunk), want, rtol=1e-10, atol=1e-10)


def test_gradient_reaches_the_embeddings_only(tiny: Tiny) -> None:
    name, model = tiny("rn")
    tower, model = backbone.load(backbone.resolve(name)).text.to(torch.float64), model.double()
    ids_PL = tower.tokenize(PROMPTS)
    eot_P = text.end_of_text(ids_PL)
    leaf = tower.embed(ids_PL).requires_grad_()
    tower.encode(leaf, eot_P).square().sum().backward()
    assert leaf.grad is not None and not any(p.requires_grad for p in tower.params.values())
    full = tower.embed(ids_PL).requires_grad_()
    x = model.transformer(full + model.positional_embedding, attn_mask=model.attn_mask)
    want = model.ln_final(x)[torch.arange(len(PROMPTS)), eot_P] @ model.text_projection
    want.square().sum().backward()
    torch.testing.assert_close(leaf.grad, full.grad, rtol=1e-10, atol=1e-10)
    assert leaf.grad[1, int(eot_P[1]) + 1 :].abs().max() == 0, "tokens after the end cannot matter"


def test_replicas_of_learned_prompts_run_under_vmap(tiny: Tiny) -> None:
    tower = backbone.load(backbone.resolve(tiny("rn")[0])).text.to(torch.float64)
    ids_PL = tower.tokenize(PROMPTS)
    eot_P = text.end_of_text(ids_PL)
    x_RPLD = torch.stack([tower.embed(ids_PL) + r for r in range(3)])
    weight_PC = torch.randn(len(PROMPTS), 16, dtype=torch.float64)

    def loss(x_PLD: torch.Tensor) -> torch.Tensor:
        return (tower.encode(x_PLD, eot_P) * weight_PC).sum() ** 2

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns where it would run the replicas one by one
        grads = torch.func.vmap(torch.func.grad(loss))(x_RPLD)
    for r in range(3):
        torch.testing.assert_close(grads[r], torch.func.grad(loss)(x_RPLD[r]), rtol=1e-10, atol=1e-10)


def placed(tower: text.TextTower, ids_PL: torch.Tensor, context: np.ndarray) -> torch.Tensor:
    """Embedded prompts whose tokens after the first are a learned context."""
    x_PLD = tower.embed(ids_PL)
    x_PLD[:, 1 : 1 + len(context)] = torch.from_numpy(context).double()
    return x_PLD


def test_coop_text_features_match_the_reference() -> None:
    data = parity("coop_end")
    tower, ids_PL = text.of_arrays(data), torch.from_numpy(data["token_ids"]).long()
    x_PLD = placed(tower, ids_PL, data["ctx_init"])
    assert torch.equal(x_PLD, torch.from_numpy(data["prompts"]).double())
    features, want = tower.encode(x_PLD, text.end_of_text(ids_PL)), torch.from_numpy(data["text_features"])
    assert (features - want).abs().max() <= 1e-9 * want.abs().max()


def test_prograd_logits_match_the_reference() -> None:
    data = parity("prograd_conflict")
    tower, ids_PL = text.of_arrays(data), torch.from_numpy(data["token_ids"]).long()
    images_BC = F.normalize(torch.from_numpy(data["image_features"]).double(), dim=-1)
    trained = tower.encode(placed(tower, ids_PL, data["ctx_start"]), text.end_of_text(ids_PL))
    teacher = tower.encode_ids(torch.from_numpy(data["teacher_token_ids"]).long())
    for raw_KC, want in ((trained, data["logits_step0"]), (teacher, data["teacher_logits"][0])):
        logits = float(data["logit_scale"]) * images_BC[0] @ F.normalize(raw_KC, dim=-1).T
        assert (logits - torch.from_numpy(want)).abs().max() <= 1e-9 * np.abs(want).max()


def test_cut_prompts_give_one_warning(tiny: Tiny) -> None:
    loaded = backbone.load(backbone.resolve(tiny("rn")[0]))
    with pytest.warns(UserWarning, match="2 of 3 prompts are longer than 77 tokens") as caught:
        loaded.encode_text(["word " * 76, "a dog", "word " * 90])
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded.encode_text(["word " * 75])  # 75 words and the two marks fill the sequence exactly
    with pytest.raises(BenchError, match="no prompts"):
        loaded.encode_text([])


def test_untrained_words_are_named() -> None:
    loaded = backbone.load(backbone.resolve("pocket-rn"))
    assert vocabulary.untrained_tokens(loaded, ["cat", "dog"]) == ""
    line = vocabulary.untrained_tokens(loaded, ["cat", "xylograph", "dog"])
    assert vocabulary.untrained_tokens(loaded, ["sea_lion"]) == "", "prompts have a blank there"
    assert "xylo graph" in vocabulary.untrained_tokens(loaded, ["xylo_graph"]), "what the model reads"
    assert "xylograph" in line and "1 of 3" in line and "\n" not in line and "dog" not in line


def test_why_two_texts_have_equal_features(tiny: Tiny) -> None:
    loaded = backbone.load(backbone.resolve(tiny("rn")[0]))
    long = "word " * 80
    cut = vocabulary.why_equal(loaded, [f"{long}cat"], [f"{long}dog"])
    assert cut.startswith("they do not differ in the 77 tokens that ")
    assert vocabulary.why_equal(loaded, ["Sea lion"], ["sea  lion"]) == "they have equal tokens"
    assert vocabulary.why_equal(loaded, ["cat", f"{long}cat"], ["dog", f"{long}dog"]) == ""
    with torch.no_grad():
        loaded.text.params["token_embedding.weight"][loaded.text.tokenize.encode("cat dog")] = 0
    assert vocabulary.why_equal(loaded, ["cat"], ["dog"]).endswith("never saw the words that tell them apart")


def test_classifier_follows_the_ensembling_order() -> None:
    raw_PC = torch.randn(6, 8, dtype=torch.float64) * torch.arange(1, 7)[:, None]
    class_of = [0, 0, 1, 1, 1, 2]
    rows = {"raw-mean": raw_PC, "normalise-then-mean": F.normalize(raw_PC, dim=-1)}
    for reduce, source in rows.items():
        W_KC = text.classifier(raw_PC, class_of, 3, reduce)
        want = torch.stack([source[:2].mean(0), source[2:5].mean(0), source[5]])
        torch.testing.assert_close(W_KC, F.normalize(want, dim=-1))
    a, b = (text.classifier(raw_PC, class_of, 3, reduce) for reduce in rows)
    assert (a[0] - b[0]).abs().max() > 1e-3
    torch.testing.assert_close(a[2], b[2])


def test_identical_rows_are_an_error_unless_the_names_are_equal() -> None:
    raw_PC = torch.randn(3, 8)
    raw_PC[2] = 2 * raw_PC[0]
    with pytest.raises(BenchError, match="'owl' and 'eagle'"):
        text.classifier(raw_PC, [0, 1, 2], 3, "raw-mean", ["owl", "cat", "eagle"])
    assert text.classifier(raw_PC, [0, 1, 2], 3, "raw-mean", ["missile", "cat", "missile"]).shape == (3, 8)
    raw_PC[2] = raw_PC[0] + 1e-3
    text.classifier(raw_PC, [0, 1, 2], 3, "raw-mean", ["owl", "cat", "eagle"])
    with pytest.raises(BenchError, match="no prompt for class 'eagle'"):
        text.classifier(raw_PC, [0, 1, 1], 3, "raw-mean", ["owl", "cat", "eagle"])
    with pytest.raises(BenchError, match="unknown prompt reduction"):
        text.classifier(raw_PC, [0, 1, 2], 3, "mean")
