"""TaskRes agrees with its reference run and builds text as the released code (protocol 18.1, 1.4, 21.11)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.interface import Facts
from tests.methods import support
from tests.methods.support import StandIn, batch_of, close, drive, make_task, score

TASKRES = support.method("taskres")


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    return support.fixture("taskres")


@pytest.mark.parametrize("replicas", [1, 2])
def test_six_steps_of_the_reference(file: dict[str, Any], replicas: int) -> None:
    f = file
    task = make_task(TASKRES, f["labels"], f["text_features"], scale=float(f["logit_scale"]), shots=2)
    assert task.settings["alpha"] == float(f["alpha"])
    consts = TASKRES.prepare(task)
    start = TASKRES.init(task, consts, task.settings, torch.Generator())
    close(score(TASKRES, task, start, f["val_features"]), f["val_logits_init"])
    batches = [
        batch_of(f["image_features"][rows], f["labels"][rows], i) for i, rows in enumerate(f["batches"])
    ]
    trace = drive(TASKRES, task, batches, start, per_epoch=2, epochs=int(f["max_epoch"]), replicas=replicas)
    close(torch.tensor(trace.rates, dtype=torch.float64), f["lr"])
    close(trace.loss(), f["loss"])
    close(trace.of("residual_KC"), f["residual_steps"])
    close(score(TASKRES, task, trace.params[-1], f["val_features"]), f["val_logits_final"])


def test_unit_rows_would_train_otherwise(file: dict[str, Any]) -> None:
    """The base keeps its raw length (protocol 18.1's trap)."""
    unit_rows = torch.nn.functional.normalize(file["text_features"], dim=1)
    task = make_task(TASKRES, file["labels"], unit_rows, scale=float(file["logit_scale"]), shots=2)
    batches = [
        batch_of(file["image_features"][rows], file["labels"][rows], i)
        for i, rows in enumerate(file["batches"])
    ]
    start = TASKRES.init(task, TASKRES.prepare(task), task.settings, torch.Generator())
    trace = drive(TASKRES, task, batches, start, per_epoch=2, epochs=int(file["max_epoch"]))
    assert float((trace.of("residual_KC") - file["residual_steps"]).abs().max()) > 1e-4


def test_without_residual_is_zero_shot(file: dict[str, Any]) -> None:
    task = make_task(TASKRES, file["labels"], file["text_features"])
    params = TASKRES.init(task, TASKRES.prepare(task), task.settings, torch.Generator())
    want = score(support.method("zero-shot"), task, {}, file["val_features"])
    close(score(TASKRES, task, params, file["val_features"]), want, 1e-12)


NAMES = ("hot_dog", "pizza")
TEMPLATES = ("itap of a {}.", "art of the {}.")


def base(
    templates: tuple[str, ...] = TEMPLATES, names: tuple[str, ...] = NAMES, **overrides: Any
) -> tuple[Any, torch.Tensor]:
    """The tower and the base rows of a task whose prompt set has underscores replaced."""
    tower = support.tiny_tower([*names, "hot dog", "itap of a art of the photo.", "{}"])
    backbone = StandIn(text=tower)
    filled = [t.replace("{}", n.replace("_", " ")) for n in names for t in templates or ("{}", "a {}")]
    each = len(filled) // len(names)
    task = make_task(
        TASKRES,
        torch.tensor([0, 1]),
        backbone.encode_text(filled),
        class_of=[k for k in range(len(names)) for _ in range(each)],
        classnames=names,
        templates=templates,
        backbone=backbone,
        overrides=overrides,
    )
    return backbone, TASKRES.prepare(task)["base_KC"]


def test_base_is_the_raw_mean_with_underscores_kept() -> None:
    backbone, rows = base()
    want = [backbone.encode_text([t.replace("{}", n) for t in TEMPLATES]).mean(0) for n in NAMES]
    close(rows, torch.stack(want), 1e-12)
    replaced = [
        backbone.encode_text([t.replace("{}", n.replace("_", " ")) for t in TEMPLATES]).mean(0) for n in NAMES
    ]
    close(base(underscores=False)[1], torch.stack(replaced), 1e-12)
    assert float((rows[0] - replaced[0]).abs().max()) > 1e-3
    close(rows[1], replaced[1], 1e-12)


def test_imagenet_has_one_template_more() -> None:
    backbone, rows = base(extra_template="a photo of a {}.")
    want = [
        backbone.encode_text([t.replace("{}", n) for t in (*TEMPLATES, "a photo of a {}.")]).mean(0)
        for n in NAMES
    ]
    close(rows, torch.stack(want), 1e-12)


def test_sentences_are_averaged_as_they_are() -> None:
    backbone, rows = base(templates=(), extra_template="a photo of a {}.")
    want = [backbone.encode_text([n.replace("_", " "), f"a {n.replace('_', ' ')}"]).mean(0) for n in NAMES]
    close(rows, torch.stack(want), 1e-12)


def test_published_rows() -> None:
    def recipe(shots: int, row: str) -> Any:
        values = support.resolving.resolve(TASKRES, "paper", row, {})
        return values, TASKRES.recipe(values, Facts(shots, 10, 10 * shots, 10, row, "rn", "paper"))

    assert [recipe(n, "default")[1].epochs for n in (1, 2, 4, 8, 16)] == [100, 100, 100, 200, 200]
    assert recipe(16, "imagenet")[1].grid["lr"] == (2e-4,) and recipe(16, "imagenet")[1].epochs == 200
    assert (
        recipe(16, "imagenet")[0]["extra_template"] == "a photo of a {}."
        and recipe(16, "food101")[0]["extra_template"] == ""
    )
    assert (recipe(4, "oxford_flowers")[0]["alpha"], recipe(4, "dtd")[0]["alpha"]) == (1.0, 0.5)
    assert recipe(4, "dtd")[1].optim.name == "adam" and recipe(4, "dtd")[1].streams["image"].batch == 256
