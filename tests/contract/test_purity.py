"""check-method notices whatever a function changes, in whichever way it writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.contract import checks
from bench.contract.lab import Failed, Lab, measure, open_lab
from bench.contract.purity import purity
from tests.contract import toys

# By function: what it does where no counter sees it, and a word of the report.
UNSEEN = {
    "recipe": ("settings['a'] = 2.0", "settings.a"),
    "learned_text": ("settings.pop('b')", "settings.b"),
    "prepare": ("task.text.raw_PC.numpy()[:] += 1", "task.text.raw_PC"),
    "solve": ("task.W_KC.data.add_(1.0)", "task.W_KC"),
    "init": ("consts['W_KC'].data.mul_(2.0)", "W_KC"),
    "losses": ("batch['image'].x.data.add_(1.0)", "batch.image"),
    "combine": ("values['a'] = 2.0", "values.a"),
    "logits": ("features[POOLED].data.mul_(2.0)", "features.pooled"),
    "sweep": ("consts['W_KC'].numpy()[:] += 1", "W_KC"),
}
COUNTED = "self.n = getattr(self, 'n', 0) + 1\nreturn "  # it remembers its calls
TWICE = {
    "solve": f"{COUNTED}{{'bias_K': torch.full((len(task.W_KC),), float(self.n))}}",
    "combine": f"{COUNTED}{{'bias_K': grads['loss']['bias_K'] * float(self.n)}}",
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_lab() as opened:
        yield opened


def impurity(lab: Lab, plugin: Path) -> str:
    """What the rule says of the plugin's method, or why that was not measured."""
    registry, (method,) = checks.find(str(plugin))
    try:
        return purity(measure(lab.fresh(), method, registry, "rn", "uneven"))
    except Failed as error:
        return str(error)


@pytest.mark.parametrize("function", UNSEEN)
def test_a_write_that_no_counter_sees(function: str, lab: Lab, tmp_path: Path) -> None:
    assert set(UNSEEN) == set(toys.FUNCTIONS)
    line, word = UNSEEN[function]
    said = impurity(lab, toys.write(tmp_path / "toy.py", "toy", {function: line}))
    assert said.startswith(f"{function} changed its argument: ") and word in said, said


@pytest.mark.parametrize("function", TWICE)
def test_another_result_the_second_time(function: str, lab: Lab, tmp_path: Path) -> None:
    lines = {function: TWICE[function]}
    said = impurity(lab, toys.write(tmp_path / "toy.py", "toy", lines))
    assert said.startswith(f"{function} returns another ") and "bias_K" in said, said


def test_pure_toys_are_pure(lab: Lab, tmp_path: Path) -> None:
    for trained in (False, True):
        assert impurity(lab, toys.write(tmp_path / "toy.py", f"toy-{trained}", {}, trained)) == ""
