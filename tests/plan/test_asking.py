"""What a method is asked while planning cannot change what it is fitted with."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from bench.interface import LearnedText
from bench.plan import cost, planner
from bench.plan.request import Request
from bench.registry import with_plugins
from tests.contract import toys


def test_the_price_of_a_fit_leaves_its_settings(images: Path, tmp_path: Path) -> None:
    lines = "settings['a'] = 2.0\nfrom bench.interface import LearnedText\nreturn LearnedText(4, 0)"
    plugin = toys.write(tmp_path / "toy.py", "toy", {"learned_text": lines}, trained=True)
    request = Request(("toy",), (str(images),), (2,), (1,), ("pocket-rn",), results=tmp_path)
    (fit,) = planner.make(request, with_plugins((plugin,))).fits
    before = deepcopy(dict(fit.settings))
    assert cost.whole(fit).flops > 0 and fit.learned == LearnedText(4, 0)
    assert fit.settings == before and before["a"] == 1.0
