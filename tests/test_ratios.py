"""The script that measures ratios counts steps, waits for the device and compares equal work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.clip.backbone import Backbone, load, resolve
from tests.benchmarks import (
    main_job,
    page,
    ratios,
    ratios_device,
    ratios_encode,
    ratios_fits,
    ratios_online,
    ratios_parts,
    ratios_steps,
    ratios_timing,
)

CPU = torch.device("cpu")
FILES = sorted(set(main_job.FILE.parent.glob("*.json")) - {main_job.FILE})


@pytest.fixture(scope="module", params=["pocket-rn", "pocket-vit"])
def tower(request: pytest.FixtureRequest) -> Backbone:
    return load(resolve(request.param))


def test_the_clock_waits_for_a_gpu_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: told.append("waited"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert ratios_timing.clock(lambda: told.append("ran")) > 0.0 and told == ["ran"]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    ratios_timing.clock(lambda: told.append("ran"))
    assert told == ["ran", "waited", "ran", "waited"]


def test_steps_are_those_counted(tower: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that counts updates: n of the engine, all replicas at once, and n of the plain loop."""
    case, n, made = ratios_fits.CASES[0], 2, {"ours": 0.0, "plain": 0.0}
    fit = ratios_fits.make(case, tower, 3, 4, ratios_fits.shrink(case, 2 * n + 1))
    steps = ratios_steps.of_fit(fit, fit.features()[0])

    def counted(kind: str, original: Any) -> Any:
        def step(*arguments: Any) -> Any:
            made[kind] += 1.0
            return original(*arguments)

        return step

    from bench.train import optim

    monkeypatch.setattr(optim.Optimiser, "step", counted("ours", optim.Optimiser.step))
    monkeypatch.setattr(torch.optim.AdamW, "step", counted("plain", torch.optim.AdamW.step))
    monkeypatch.setattr(ratios_steps, "now", lambda: made["ours"])
    assert steps.seconds(steps.values(3), n) == n
    monkeypatch.setattr(ratios_steps, "now", lambda: made["plain"])
    assert ratios_steps.plain_seconds(fit, case, n) == n
    assert ratios_steps.batch(fit) == 8


def test_a_plain_loop_has_as_many_steps_as_are_timed() -> None:
    """Tip-Adapter-F's published schedule has 20 steps here, and a GPU's measurement times more."""
    case = next(size.case for size in ratios_steps.sizes(wide=True) if size.case.method == "tip-adapter-f")
    fit = ratios_fits.make(case, load(resolve("pocket-rn")), 2, 1, ratios_fits.shrink(case, 3))
    run = next(fit.runs())
    n = ratios_device.CUDA.plain_steps
    assert len(run.rates) == len(run.positions) < n + 1
    assert ratios_steps.plain_seconds(fit, case, n) > 0


def test_a_part_is_recorded_on_a_gpu_only() -> None:
    fn = lambda: None  # noqa: E731
    assert ratios_timing.recorded(fn, CPU) is fn
    times, launched = ratios_parts.timed({"ours": fn, "plain": fn}, CPU, 3)
    assert len(times["ours"]) == 3 and not launched and not ratios_parts.beside(launched, "plain")
    slow = {"ours": [1.0, 1.0], "plain": [3.0, 3.0]}
    assert ratios_parts.beside(slow, "plain") == {"launched_ratio": 3.0}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_recorded_part_computes_what_a_call_does() -> None:
    device = torch.device("cuda")
    x = torch.arange(4.0, device=device, requires_grad=True)
    out: list[Any] = []
    again = ratios_timing.recorded(lambda: out.append(torch.autograd.grad(x.square().sum(), x)[0]), device)
    with torch.no_grad():
        x.add_(1.0)
    again()
    assert out[-1].tolist() == [2.0, 4.0, 6.0, 8.0]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_heads_and_text_towers_can_be_recorded() -> None:
    device = torch.device("cuda")
    tower = load(resolve("pocket-rn"), device)
    rows = [
        *ratios_parts.head_rows(device, 1),
        *ratios_parts.text_rows(tower.model, tower.text, "text", 3, 2, 1),
    ]
    assert len(rows) == 4 and all(r.more and r.more["launched_ratio"] > 0 and r.ratio > 0 for r in rows)


@pytest.mark.slow
def test_files_are_encoded_on_both_sides() -> None:
    """Features that differ would be an error; three are enough to see that both sides still run."""
    pocket = load(resolve("pocket-rn"))
    plain = load(resolve("pocket-rn")).model
    made = ratios_encode.encode_row(pocket, plain, "encode", 3, ("eval", "flip"), 1, "")
    assert made.ratio > 0 and made.more and made.more["images_per_second"] > 0


@pytest.mark.slow
def test_both_sides_do_the_same(tower: Backbone) -> None:
    """A whole fit of SAFE, validated on what it learns from.

    The engine gets as far as a plain loop of open_clip's modules.
    """
    case = ratios_fits.CASES[0]
    fit = ratios_fits.make(case, tower, 3, 4, {"steps": 37, "check_every": 12, "warmup": 1, "lr": (1e-3,)})
    fit = replace(fit, val=ratios_online.Images({"eval": fit.train.views["eval"]}, fit.train.y_N))
    (curve,) = [[a for _, a in entry["checks"]] for entry in fit.run(fit.recipe, fit.features()).curve]
    (plain,) = case.plain(fit, fit.runs())
    assert curve == pytest.approx(plain, abs=1.01 / len(fit.val.y_N))
    assert curve[-1] > curve[0] + 0.2, curve


def test_the_plain_loops_head_is_the_towers(tower: Backbone) -> None:
    x = torch.randn(2, 3, tower.image_size, tower.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        head = ratios_online.pooling(tower.model.visual)
        torch.testing.assert_close(
            head(ratios_online.trunk(tower.model.visual, x)), tower.model.encode_image(x)
        )


def test_working_set_is_weights_gradients_and_moments(tower: Backbone) -> None:
    case = ratios_fits.CASES[0]
    fit = ratios_fits.make(case, tower, 3, 4, ratios_fits.shrink(case, 3))
    steps = ratios_steps.of_fit(fit, fit.features()[0])
    numbers = sum(p.numel() for p in steps.start(steps.values(1)[0]).values())
    assert steps.working_set(5) == 5 * 4 * 4 * numbers


def test_goals_and_names_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    assert ratios_device.goals(CPU, 12) == (1.0, 5.0) and ratios_device.goals(CPU, 1)[0] is None
    assert [ratios_device.goals(gpu, R)[0] for R in (1, 3, 12)] == [None, 1.0, 5.0] and ratios_device.goals(
        gpu, 1
    )[1] == 30.0
    assert ratios_device.slug(CPU) == "cpu" and "cores" in ratios_device.label(CPU)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert ratios_device.slug(gpu) == "nvidia-h100-80gb-hbm3"
    assert ratios_device.effort(gpu, False).engine_steps > 32, "long enough for recorded steps"


def test_a_folder_takes_a_file_named_by_commit_and_device(tmp_path: Path) -> None:
    assert ratios.destination(tmp_path, CPU) == tmp_path / f"{ratios.commit()}-cpu.json"
    assert ratios.destination(tmp_path / "mine.json", CPU) == tmp_path / "mine.json"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_every_committed_file_makes_a_table(file: Path) -> None:
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert len(page.block(file).splitlines()) == 4 + len(rows)


def test_a_missed_goal_is_named(tmp_path: Path) -> None:
    found = {"commit": "c", "device": "d", "versions": {"torch": "t"}}
    rows = [{"name": f"r{x}", "baseline": "b", "ratio": x, "least": 5.0} for x in (4.2, 4.999, 123.4)]
    file = tmp_path / "f.json"
    file.write_text(json.dumps({**found, "rows": rows}), encoding="utf-8")
    assert [line.split(" | ")[2] for line in page.block(file).splitlines()[4:]] == [
        "4.20x, goal 5x",
        "5.00x",
        "123x",
    ]
