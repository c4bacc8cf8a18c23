"""LP++ agrees with the reference's run and chooses the latest of the best epochs (protocol 18.3)."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.interface import POOLED, Task
from bench.train import select
from bench.train.select import Labelled
from tests.methods.support import close, fixture, make_task, method, score

VIEW = "rrc(0.5)#0"
LP: Any = method("lp++")
step_sizes = sys.modules[type(LP).__module__].step_sizes


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    return fixture("lp_plus_plus")


@pytest.fixture(scope="module")
def given(data: dict[str, Any]) -> tuple[Any, Task]:
    """The method with the reference's random bias, and the task of its data."""

    class Given(type(LP)):  # type: ignore[misc]
        name = "lp++"

        def first_bias(self, task: Task) -> Tensor:
            return data["b_init"]

    x = {(POOLED, VIEW): data["image_features"]}
    task = make_task(Given(), data["labels"], data["text_features"], features=x, overrides={"steps": 20})
    return Given(), task


def test_path_equals_the_reference(data: dict[str, Any], given: tuple[Any, Task]) -> None:
    lp, task = given
    unit_NC = data["image_features"] / data["image_features"].norm(dim=1, keepdim=True)
    lr_w, lr_a = step_sizes(unit_NC, task.W_KC)
    close(lr_w, data["lr_w"])
    close(lr_a, data["lr_a"])
    params = lp.solve(task, lp.prepare(task), task.settings)
    close(params["V_SKC"], data["V_steps"])
    close(params["b_SK"], data["b_steps"])
    close(params["a_SK"], data["a_steps"])
    assert torch.equal(params["a_SK"][0], params["a_SK"][8]) and not torch.equal(
        params["a_SK"][8], params["a_SK"][9]
    )
    for i, accuracy in enumerate(data["val_acc"].tolist()):
        classes = score(lp, task, params, data["val_features"], epoch=i).argmax(1)
        assert 100.0 * float((classes == data["val_labels"]).double().mean()) == pytest.approx(accuracy)


def test_the_latest_of_the_best_epochs_is_kept(data: dict[str, Any], given: tuple[Any, Task]) -> None:
    lp, task = given
    assert (data["val_acc"] == data["val_acc"].max()).sum() > 1  # there is a tie to break
    recipe = lp.recipe(task.settings, task.facts)
    val = Labelled({POOLED: data["val_features"]}, data["val_labels"])
    fitted = select.fit(lp, recipe, task, lp.prepare(task), {}, val)
    assert fitted.values["epoch"] == int(data["best_epoch"])
    classes = score(lp, task, fitted.params, data["test_features"], **fitted.values).argmax(1)
    assert 100.0 * float((classes == data["test_labels"]).double().mean()) == pytest.approx(
        float(data["test_acc"])
    )


def test_first_bias_depends_on_the_seed_alone(data: dict[str, Any]) -> None:
    task = make_task(LP, data["labels"], data["text_features"])
    other = Task(**{**vars(task), "seed": 2})
    assert torch.equal(LP.first_bias(task), LP.first_bias(task))
    assert not torch.equal(LP.first_bias(task), LP.first_bias(other))
    assert float(LP.first_bias(task).abs().max()) <= data["text_features"].shape[1] ** -0.5
