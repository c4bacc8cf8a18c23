"""An error of a plugin's recipe, and what it changes, is that plugin's failure alone; NumPy's numbers count
as numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.errors import BenchError, MissingData
from bench.interface import Facts, LearnedText, Method, Recipe
from bench.plan import asking, cost, planner
from bench.plan.request import Request
from bench.registry import with_plugins
from tests.contract import toys

FACTS = Facts(1, 2, 2, 4, "default", "rn", "quick")


def asked(recipe: Recipe | Exception, plugin: bool = True) -> Recipe:
    class Probe(Method):
        name = "probe"
        title = "Probe"

        def recipe(self, settings: Mapping[str, Any], facts: Facts) -> Recipe:
            if isinstance(recipe, Recipe):
                return recipe
            os.environ["BENCH_CACHE"] = "changed"
            raise recipe

    return asking.recipe(Probe(), {}, FACTS, "standard", plugin)[0]


def test_numpy_numbers_in_a_recipe() -> None:
    made = Recipe(fixed={"a": np.float32(0.5)}, search={"a": (np.float32(0.5), np.int64(2))})
    assert asked(made) == made


def test_what_has_no_json_in_a_recipe() -> None:
    with pytest.raises(asking.Unplanned, match=r"recipe of probe fails: .*object"):
        asked(Recipe(fixed={"a": object()}))


def test_a_bench_error_of_a_plugin_blocks_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", "before")
    with pytest.raises(asking.Unplanned, match=r"^recipe of probe fails: no such thing$"):
        asked(BenchError("no such thing"))
    assert os.environ["BENCH_CACHE"] == "before"


@pytest.mark.parametrize(("error", "plugin"), [(MissingData("none here"), True), (BenchError("odd"), False)])
def test_what_is_no_failure_of_the_method_stays(error: BenchError, plugin: bool) -> None:
    with pytest.raises(type(error)) as raised:
        asked(error, plugin)
    assert raised.value is error


def test_the_price_of_a_fit_leaves_its_settings(images: Path, tmp_path: Path) -> None:
    lines = "settings['a'] = 2.0\nfrom bench.interface import LearnedText\nreturn LearnedText(4, 0)"
    plugin = toys.write(tmp_path / "toy.py", "toy", {"learned_text": lines}, trained=True)
    request = Request(("toy",), (str(images),), (2,), (1,), ("pocket-rn",), results=tmp_path)
    (fit,) = planner.make(request, with_plugins((plugin,))).fits
    before = deepcopy(dict(fit.settings))
    assert cost.whole(fit).flops > 0 and fit.learned == LearnedText(4, 0)
    assert fit.settings == before and before["a"] == 1.0
