"""Prompt sets that use labels: what they choose, what they depend on, and what records say of it (protocol
15.4).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench import prompts
from bench.data import catalog
from bench.errors import MissingData
from bench.executors import serial
from bench.plan import planner
from bench.plan.cells import TUNED
from bench.plan.request import Request
from bench.plan.todo import remaining
from bench.records.types import FitRecord
from bench.registry import builtin
from bench.run import task as tasks
from bench.run import tuned_prompts
from bench.run.desk import Desk
from bench.run.session import Session
from tests.run.conftest import Bench, of_type

HEAD = "linear-probe-sgd-zs"


def request(images: Path, tmp_path: Path, **more: Any) -> Request:
    asked: dict[str, Any] = {
        "methods": ("zero-shot",),
        "datasets": (str(images),),
        "shots": (1, 2),
        "seeds": (1, 2),
        "backbones": ("pocket-rn",),
        "results": tmp_path,
        "overrides": {HEAD: {"steps": 6, "check_every": 2}},
    }
    return Request(**{**asked, **more})


def test_a_label_free_method_gets_shots_and_seed_from_its_prompts(images: Path, tmp_path: Path) -> None:
    made = planner.make(request(images, tmp_path, prompts=("hand", "mined-val", "linear")), builtin())
    asked = [f for f in made.fits if f.asked]
    found = sorted((f.cell.prompts, f.cell.shots, f.cell.seed) for f in asked)
    draws = [(n, s) for n in (1, 2) for s in (1, 2)]
    assert found == [("hand", 0, 0), *(("linear", *d) for d in draws), *(("mined-val", *d) for d in draws)]
    assert len({f.key for f in made.fits}) == len(made.fits)
    heads = [f for f in made.fits if not f.asked]
    assert {f.cell.method for f in heads} == {HEAD} and {f.cell.prompts for f in heads} == {"hand"}
    assert all(f.facts.n_prompts == 3 for f in asked if f.cell.prompts == "linear")
    assert all(f.facts.n_prompts == 3 * prompts.MINED for f in asked if f.cell.prompts == "mined-val")


def test_equal_texts_are_one_cell_and_said(bench: Bench, images: Path, tmp_path: Path) -> None:
    made = planner.make(request(images, tmp_path, prompts=("hand", "class-name", "coop")), builtin())
    assert [f.cell.prompts for f in made.fits] == ["hand", "class-name"]
    assert made.equal == {(made.fits[0].dataset.name, "hand", "coop")}
    shown = bench(
        "run", "--methods", "zero-shot", "--prompts", "hand,coop", "--results", tmp_path, "--dry-run"
    )
    line = "prompt sets hand and coop have the same texts; a method that uses both is recorded once, as hand"
    assert line in shown.output


def test_without_validation_nothing_is_mined(images: Path, tmp_path: Path) -> None:
    made = planner.make(request(images, tmp_path, prompts=("mined-val",), protocol="no-val"), builtin())
    assert made.fits == []
    (reason,) = {b.reason for b in made.blocked}
    assert reason == "mined-val chooses templates on validation images, which protocol no-val never scores"


def test_missing_sentences_and_lists_block() -> None:
    with pytest.raises(MissingData, match="--prompt-dir"):
        prompts.build("linear", catalog.spec("dtd"), ("banded",))
    with pytest.raises(MissingData, match="mined-val"):
        prompts.build("mined", catalog.spec("emoji"), ("dog",))
    start = prompts.build("linear", catalog.spec("emoji"), ("dog",))
    assert (start.tuned_from, start.prompts) == (
        "cupl",
        prompts.build("cupl", catalog.spec("emoji"), ("dog",)).prompts,
    )


def test_labelled_is_what_sets_say_of_themselves() -> None:
    spec = catalog.spec("oxford_pets")
    folder = None
    for name in prompts.SETS:
        if name in ("cupl", "linear"):
            spec, folder = catalog.spec("emoji"), None
        built = prompts.build(name, spec, ("dog",), folder)
        assert built.uses_labels == prompts.labelled(name)
    plain = prompts.build("hand", spec, ("dog",))
    # records of plain sets keep their keys
    assert plain.digest == prompts.json_digest([plain.prompts, plain.reduce])


def test_the_best_templates_come_first_and_ties_keep_the_pools_order() -> None:
    right = torch.eye(2)
    # the second and the fourth are right
    raw_KMC = torch.stack([right.flip(0), right, right.flip(0), 3 * right], dim=1)
    f_nC, y_n = torch.tensor([[2.0, 0.1], [0.2, 1.0]]), torch.tensor([0, 1])
    assert tuned_prompts.ranking(raw_KMC, f_nC, y_n) == [1, 3, 0, 2]


@pytest.fixture
def fitted(images: Path, cache: Path, tmp_path: Path) -> Any:
    """A run over the session's own objects: (session, the asked-for fits, the desk)."""
    session = Session("cpu", cache, lambda line: None, workers=0)
    made = planner.make(
        request(images, tmp_path, prompts=("mined-val", "linear"), shots=(2,), seeds=(1,)), builtin()
    )
    todo, _ = remaining(made)
    desk = Desk(session, builtin(), tmp_path)
    outcome = serial.run(desk, made, todo, lambda *_: None)
    assert outcome.failures == [] and outcome.evaluations == 2
    return session, {f.cell.prompts: f for f in made.fits if f.asked}, desk


def test_what_a_draw_makes_of_the_texts(fitted: Any) -> None:
    session, fits, desk = fitted
    W_KC, side = tasks.text(session, fits["mined-val"], {})
    assert len(side.templates) == prompts.MINED and side.raw_PC.shape[0] == 3 * prompts.MINED
    assert set(side.templates) <= set(fits["mined-val"].prompts.templates)
    torch.testing.assert_close(W_KC.norm(dim=-1), torch.ones(3))
    head = desk.states.of(fits["linear"].after[TUNED])
    W_KC, side = tasks.text(session, fits["linear"], {TUNED: head})
    rows_KC = head.params["W_KC"]
    torch.testing.assert_close(W_KC.norm(dim=-1).mean(), torch.tensor(1.0))
    # zero-shot predicts what the head predicts
    torch.testing.assert_close(W_KC / W_KC[0, 0], rows_KC / rows_KC[0, 0])
    _, start = session.encoded_text(fits["linear"].backbone, fits["linear"].prompts, side.classnames)
    # one template: its own length
    torch.testing.assert_close(side.raw_PC.norm(dim=-1), start.raw_PC.norm(dim=-1))
    assert float((side.raw_PC - start.raw_PC).abs().max()) > 1e-5  # and another direction


def test_records_say_that_labels_chose_the_texts_and_a_second_run_does_nothing(
    bench: Bench, tmp_path: Path
) -> None:
    run = (
        "--methods",
        "zero-shot",
        "--prompts",
        "hand,linear",
        "--results",
        tmp_path,
        "--set",
        f"{HEAD}.steps=6",
    )
    done = bench("run", *run)
    assert done.exit_code == 0, done.output
    found = of_type(tmp_path, FitRecord)
    marks = {(r.cell.method, r.cell.prompts): r.prompts_use_labels for r in found}
    assert marks == {("zero-shot", "hand"): False, ("zero-shot", "linear"): True, (HEAD, "hand"): False}
    names = {r.cell.prompts: r.prompts_also for r in found if r.cell.method == "zero-shot"}
    # without templates of its own a folder has CLIP's alone
    assert names == {
        "hand": ["vanilla", "coop"],
        "linear": [],
    }
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.*")}
    assert bench("run", *run).exit_code == 0
    assert times == {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.*")}
