"""CuPL has sentences for every embedded class and averages them, never templates (protocol 5)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import suite
from bench.data import catalog
from bench.errors import MissingData
from bench.interface import POOLED, unit
from bench.prompts import build
from tests.methods import support

CUPL = support.method("cupl")
POCKET = suite.load("pocket").datasets


@pytest.mark.parametrize("name", POCKET)
def test_every_embedded_class_has_sentences_of_its_own(name: str) -> None:
    dataset = catalog.find(name, None, images=False)
    prompt_set = build("cupl", dataset.spec, dataset.classnames)
    assert len(prompt_set.prompts) == len(dataset.classnames) and prompt_set.templates == ()
    for classname, sentences in zip(dataset.classnames, prompt_set.prompts, strict=True):
        assert 2 <= len(sentences) <= 3 and len(set(sentences)) == len(sentences)
        for sentence in sentences:
            assert (
                classname.lower() in sentence.lower()
                and sentence.endswith(".")
                and len(sentence.split()) >= 4
            ), sentence
    whole = [s for sentences in prompt_set.prompts for s in sentences]
    assert len(set(whole)) == len(whole)


def test_a_folder_without_the_file_blocks(tmp_path: Path) -> None:
    spec = catalog.spec(POCKET[0])
    with pytest.raises(MissingData, match=rf"holds no {POCKET[0]}\.json"):
        build("cupl", spec, ("dog",), tmp_path)
    (tmp_path / f"{POCKET[0]}.json").write_text('{"dog": ["A dog barks."]}')
    assert build("cupl", spec, ("dog",), tmp_path).prompts == (("A dog barks.",),)
    with pytest.raises(MissingData, match="--prompt-dir"):
        build("cupl", catalog.spec("dtd"), ("banded",))


def test_each_sentence_counts_once() -> None:
    g = torch.Generator().manual_seed(0)
    raw_PC = (
        torch.randn(5, 6, generator=g, dtype=torch.float64)
        * torch.tensor([[1.0], [9.0], [1.0], [2.0], [3.0]]).double()
    )
    x_BC = torch.randn(4, 6, generator=g, dtype=torch.float64)
    task = support.make_task(CUPL, torch.tensor([0, 1]), raw_PC, class_of=[0, 0, 1, 1, 1])
    rows = torch.stack([unit(unit(raw_PC[:2]).mean(0)), unit(unit(raw_PC[2:]).mean(0))])
    support.close(support.score(CUPL, task, {}, x_BC, POOLED), 100.0 * unit(x_BC) @ rows.T, 1e-12)
