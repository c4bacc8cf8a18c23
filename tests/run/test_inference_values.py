"""A fit reads nothing that acts at inference only: such values are not in its key."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from bench.contract import checks
from bench.contract.lab import Lab, open_lab
from bench.errors import BenchError
from bench.interface import Facts, FitFacts, FitValues, Method, fit_values, scored_values
from bench.run import evaluate, fit
from tests.run.conftest import Bench

SOLVED = """
from bench.interface import POOLED, Facts, Method, Recipe, cosine_logits


class Late(Method):
    name = "late"
    title = "Late"
    settings = {"beta": 0.5, "warm": (0.0,)}
    inference = ("beta",)

    def recipe(self, settings, facts):
        return Recipe(grid={"warm": settings["warm"]}, fixed={"warm": 0.0})

    def prepare(self, task):
        return {"W_KC": task.W_KC, "scale": task.scale}

    def solve(self, task, consts, values):
        return {"W_KC": task.W_KC + values["warm"]}

    def logits(self, params, consts, features, values):
        return cosine_logits(features[POOLED], params["W_KC"], consts["scale"] * (1.0 + values["beta"]))
"""
TRAINED = """
from bench.interface import LR, POOLED, Method, OptimSpec, Recipe, Schedule, Stream
from bench.interface import cosine_logits, cross_entropy


class Late(Method):
    name = "late"
    title = "Late"
    settings = {"beta": 0.5, "lr": (0.01, 0.001)}
    inference = ("beta",)

    def recipe(self, settings, facts):
        return Recipe(
            streams={"image": Stream(tap=POOLED, batch=3)},
            optim=OptimSpec("adamw"), schedule=Schedule("cosine"), steps=4,
            grid={LR: settings["lr"]}, fixed={LR: settings["lr"][0]}, check_every=2,
        )

    def init(self, task, consts, values, generator):
        return {"W_KC": task.W_KC.clone(), "b_K": task.W_KC.new_zeros(len(task.W_KC))}

    def losses(self, params, consts, batch, values):
        rows = batch["image"]
        logits_BK = cosine_logits(rows.x, params["W_KC"], consts["scale"]) + params["b_K"]
        return {"loss": cross_entropy(logits_BK, rows.y)}

    def combine(self, grads, values):
        return grads["loss"]

    def logits(self, params, consts, features, values):
        late_K = values["beta"] * 100 * params["b_K"]
        return cosine_logits(features[POOLED], params["W_KC"], consts["scale"]) + late_K
"""
LINE = "late: 'beta' acts at inference only (Method.inference) and is not in the fit's key"
# (the plugin, what is read and where, what it replaces)
READS = {
    "solve": (SOLVED, 'task.W_KC + values["beta"]', 'task.W_KC + values["warm"]'),
    "solve, get": (SOLVED, 'task.W_KC + values.get("beta", 0.0)', 'task.W_KC + values["warm"]'),
    "solve, in": (SOLVED, 'task.W_KC + ("beta" in values)', 'task.W_KC + values["warm"]'),
    "prepare": (SOLVED, '"scale": task.scale * task.settings["beta"]', '"scale": task.scale'),
    "logits from solve": (
        SOLVED,
        'self.logits({"W_KC": task.W_KC}, consts, {POOLED: task.W_KC}, values)',
        'task.W_KC + values["warm"]',
    ),
    "init": (TRAINED, 'task.W_KC * values["beta"]', "task.W_KC.clone()"),
    "losses": (TRAINED, 'consts["scale"] * values["beta"]) + params', 'consts["scale"]) + params'),
    "combine": (TRAINED, '{k: g * values["beta"] for k, g in grads["loss"].items()}', 'grads["loss"]'),
}


def plugin(folder: Path, text: str, new: str = "", old: str = "") -> Path:
    """A plugin file, with one piece of its text replaced."""
    assert not old or text.count(old) == 1
    file = folder / "late.py"
    file.write_text(text.replace(old, new) if old else text)
    return file


@pytest.fixture(scope="module")
def lab() -> Any:
    with open_lab() as found:
        yield found


def broken(file: Path, lab: Lab) -> dict[str, str]:
    registry, (method,) = checks.find(str(file))
    return {f.rule: f.problem for f in checks.check(method, registry, lab) if f.problem}


@pytest.mark.parametrize("where", READS)
def test_a_fit_that_asks_for_one_is_refused(where: str, bench: Bench, lab: Lab, tmp_path: Path) -> None:
    """By a run, as the failure of that cell, and by the contract of methods."""
    file = plugin(tmp_path, *READS[where])
    done = bench(
        "run", "--plugin", file, "--methods", "late", "--sweep", "late.beta=0,1", "--results", tmp_path / "r"
    )
    assert done.exit_code == 1 and LINE in " ".join(done.output.split()), done.output
    assert LINE in broken(file, lab)["runs"]


@pytest.mark.parametrize("text", [SOLVED, TRAINED])
def test_what_reads_it_in_logits_alone_keeps_the_contract(text: str, lab: Lab, tmp_path: Path) -> None:
    assert broken(plugin(tmp_path, text), lab) == {}


@pytest.mark.parametrize("field", ["preset", "recipe_as"])
def test_facts_that_are_not_in_the_key_are_refused(field: str, bench: Bench, tmp_path: Path) -> None:
    file = plugin(tmp_path, SOLVED, f'"scale": len(task.facts.{field})', '"scale": task.scale')
    done = bench("run", "--plugin", file, "--methods", "late", "--results", tmp_path / "r")
    assert done.exit_code == 1 and f"task.facts.{field} is not in the fit's key" in " ".join(
        done.output.split()
    ), done.output
    (tmp_path / "other").mkdir()
    grid = f'Recipe(grid={{"warm": (float(len(facts.{field})),)}}'
    asked = plugin(tmp_path / "other", SOLVED, grid, 'Recipe(grid={"warm": settings["warm"]}')
    done = bench("run", "--plugin", asked, "--methods", "late", "--results", tmp_path / "s")
    assert done.exit_code == 0, "a recipe may read it: what it makes of it is in the key"


MEMORY = 'self.seen = values["beta"]\n        return cosine_logits'
REMEMBERS = {
    "in logits": (MEMORY, "return cosine_logits", 'task.W_KC + getattr(self, "seen", 0.5)', "params.W_KC"),
    "in logits, read by prepare": (MEMORY, "return cosine_logits", "", "constants.scale"),
    "in recipe": (
        'self.seen = settings["beta"]\n        return Recipe',
        "return Recipe",
        "task.W_KC + self.seen",
        "params.W_KC",
    ),
}


@pytest.mark.parametrize("how", REMEMBERS)
def test_a_value_kept_on_self_is_noticed(how: str, lab: Lab, tmp_path: Path) -> None:
    keep, at, read, what = REMEMBERS[how]
    text = SOLVED.replace(at, keep)
    if read:
        text = text.replace('task.W_KC + values["warm"]', read)
    else:
        text = text.replace('"scale": task.scale', '"scale": task.scale + getattr(self, "seen", 0.5)')
    problem = broken(plugin(tmp_path, text), lab)["inference values leave the fit alone"]
    assert what in problem and "the order in which beta are swept" in problem


def fitted(results: Path) -> Mapping[str, np.ndarray]:
    (file,) = (results / "states").rglob("*.safetensors")
    return load_file(file)


def test_what_the_user_sets_does_not_reach_the_selection(bench: Bench, tmp_path: Path) -> None:
    """Checkpoints and rates are compared at the class's own beta, however large the user's is."""
    file = plugin(tmp_path, TRAINED)
    for name, more in {
        "plain": (),
        "set": ("--set", "late.beta=-9"),
        "swept": ("--sweep", "late.beta=7,0"),
    }.items():
        given = ("--methods", "late", "--keep-states", "all", "--results", tmp_path / name)
        done = bench("run", "--plugin", file, *given, *more)
        assert done.exit_code == 0, done.output
    plain = fitted(tmp_path / "plain")
    for name in ("set", "swept"):
        other = fitted(tmp_path / name)
        assert plain.keys() == other.keys() and all(np.array_equal(x, other[k]) for k, x in plain.items()), (
            name
        )


class Late(Method):
    name, title = "late", "Late"
    settings = {"beta": 0.5, "alpha": None, "depth": 3}
    inference = ("beta", "alpha")


def test_a_state_holds_nothing_that_the_user_set_for_inference() -> None:
    planned = SimpleNamespace(method=Late(), settings={"beta": 0.9, "alpha": 2.0, "depth": 4})
    state = fit.state_of(planned, {}, {"alpha": 1.5, "lr": 0.1})  # type: ignore[arg-type]
    assert dict(state.values) == {"depth": 4, "alpha": 1.5, "lr": 0.1}, "what validation chose stays"
    with pytest.raises(BenchError, match="'beta' acts at inference only"):
        state.values["beta"]


def test_an_evaluation_reads_its_own_values_only() -> None:
    """The plan holds the settings of whichever sweep point came first; they are not those of the others."""
    planned = SimpleNamespace(method=Late(), settings={"beta": 0.9, "alpha": 2.0, "depth": 4})

    def values(chosen: dict[str, Any], **late: Any) -> dict[str, Any]:
        state = fit.state_of(planned, {}, chosen)  # type: ignore[arg-type]
        return evaluate.values_of(planned, SimpleNamespace(values=late), state.values)  # type: ignore[arg-type]

    assert values({}, beta=0.1, alpha=None) == {"depth": 4, "beta": 0.1, "alpha": None}
    assert values({"alpha": 1.5}, beta=0.1, alpha=None) == {"depth": 4, "beta": 0.1, "alpha": 1.5}
    assert values({"alpha": 1.5}, beta=0.1, alpha=3.0) == {"depth": 4, "beta": 0.1, "alpha": 3.0}


def test_the_values_of_a_fit_keep_their_guard() -> None:
    """Through merging and pickling; what the recipe puts under such a name may be read."""
    plain = fit_values(Late(), {"beta": 0.9, "alpha": 2.0, "depth": 4})
    assert fit_values(Late(), plain) is plain
    for values in (plain, plain.with_({"lr": 0.1}), pickle.loads(pickle.dumps(plain))):
        assert isinstance(values, FitValues) and values["depth"] == 4 and values.get("nothing", 5) == 5
        assert "depth" in values and "nothing" not in values
        asks = (
            lambda v: v["beta"],
            lambda v: v.get("beta"),
            lambda v: v.pop("beta", 2.0),
            lambda v: v.setdefault("beta", 2.0),
            lambda v: "beta" in v,
            lambda v: v.with_({"x": 1})["beta"],
        )
        for ask in asks:
            with pytest.raises(BenchError, match="late: 'beta' acts at inference only"):
                ask(values)
        with pytest.raises(KeyError, match="nothing"):
            values["nothing"]
    searched = plain.with_({"beta": 0.25})
    assert searched["beta"] == searched.get("beta") == 0.25 and "beta" in searched
    assert scored_values(Late(), searched) == {"beta": 0.25, "alpha": None, "depth": 4}
    assert scored_values(Late(), plain) == {"beta": 0.5, "alpha": None, "depth": 4}, "the class's own default"


def test_the_facts_of_a_fit() -> None:
    facts = FitFacts.of(Facts(2, 3, 6, 9, "eurosat", "rn", "quick"))
    assert (facts.shots, facts.n_classes, facts.n_support, facts.n_prompts, facts.tower) == (2, 3, 6, 9, "rn")
    assert "eurosat" not in repr(facts) and "quick" not in repr(facts) and "shots=2" in repr(facts)
