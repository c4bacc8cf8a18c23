"""The main job on real images: run, resume, fail, table."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.records.types import EvaluationRecord
from tests.run.conftest import Bench, draw_images, of_type, quick, records

FOUR = "zero-shot,tip-adapter-f,safe,safe-a"


def command(images: Path, results: Path, *more: str) -> list[str]:
    """``bench run`` as a process of its own."""
    return [
        sys.executable,
        "-m",
        "bench",
        "run",
        "--datasets",
        str(images),
        "--backbone",
        "pocket-rn",
        "--shots",
        "2",
        "--results",
        str(results),
        *quick(more),
        *more,
    ]


def test_run_then_table(bench: Bench, tmp_path: Path) -> None:
    done = bench("run", "--methods", FOUR, "--results", tmp_path, "--cache", tmp_path / "cache")
    assert done.exit_code == 0, done.output
    assert "4 cells" in done.output  # one template here, so zero-shot's two prompt sets are one cell
    # 15 test and 6 validation images as they are; 6 support images as eval, flip and one bank of 4 crops.
    # 3 learning rates of SAFE x 6 steps, 2 epochs of Tip-Adapter-F of one batch.
    assert "57 encodes, 20 steps" in done.output
    table = bench("table", "--results", tmp_path, "--format", "csv")
    rows = list(csv.DictReader(table.output.splitlines()))
    assert list(rows[0]) == ["method", "shots", "shapes"]
    assert [row["method"].split(" ")[0] for row in rows] == ["zero-shot", "safe", "safe-a", "tip-adapter-f"]
    assert all(0.0 <= float(row["shapes"]) <= 100.0 for row in rows)


def test_second_run_does_nothing_and_imports_no_torch(
    bench: Bench, tmp_path: Path, images: Path, cache: Path
) -> None:
    assert bench("run", "--methods", FOUR, "--results", tmp_path).exit_code == 0
    code = (
        "import sys; from bench.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules and 'open_clip' not in sys.modules"
    )
    arguments = command(images, tmp_path, "--methods", FOUR, "--seeds", "1")[3:]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "BENCH_CACHE": str(cache)},
    )
    assert done.returncode == 0, done.stderr
    assert "0 encodes, 0 steps" in done.stdout


@pytest.mark.slow
def test_killed_then_resumed_equals_uninterrupted(
    bench: Bench, tmp_path: Path, images: Path, cache: Path
) -> None:
    whole = tmp_path / "whole"
    seeds = ("--seeds", "1,2,3,4,5,6", "--methods", FOUR)
    assert bench("run", *seeds, "--results", whole).exit_code == 0
    cut = tmp_path / "cut"
    process = subprocess.Popen(
        command(images, cut, *seeds),
        env={**os.environ, "BENCH_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and len(list(cut.rglob("*.npz"))) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    part = len(records(cut))
    assert part < len(records(whole)), "the kill came too late to test anything"
    assert bench("run", *seeds, "--results", cut).exit_code == 0
    assert records(cut) == records(whole)


def test_no_socket_is_opened(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("bench run opened a network connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    done = bench("run", "--methods", "zero-shot", "--results", tmp_path, "--workers", "0")
    assert done.exit_code == 0, done.output


def test_missing_weights_name_the_command(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {**os.environ, "BENCH_WEIGHTS": str(tmp_path / "none")}
    arguments = ["run", "--datasets", str(images), "--methods", "zero-shot", "--results", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments], capture_output=True, text=True, env=env
    )
    assert done.returncode == 2
    assert "bench weights get RN50" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failing_cell_costs_only_itself(bench: Bench, tmp_path: Path) -> None:
    plugin = tmp_path / "broken_one.py"
    plugin.write_text(
        "from bench.interface import Method\n\n\n"
        "class BrokenOne(Method):\n    name = 'broken-one'\n    title = 'Broken'\n\n"
        "    def logits(self, params, consts, features, values):\n        raise RuntimeError('wrong on "
        "purpose')\n"
    )
    done = bench("run", "--methods", "broken-one,zero-shot", "--plugin", plugin, "--results", tmp_path / "r")
    assert done.exit_code == 1
    assert "wrong on purpose" in done.output
    table = bench("table", "--results", tmp_path / "r", "--format", "csv").output
    assert "broken-one,2,ERR" in table
    assert re.search(r"zero-shot,0,\d", table)


def test_a_plugin_appears_in_the_table(bench: Bench, tmp_path: Path) -> None:
    plugin = tmp_path / "nearest_mean.py"
    plugin.write_text(
        '"""Nearest class mean of the support set."""\n\n'
        "from bench.interface import POOLED, Method, Recipe, cosine_logits, unit\n"
        "from bench.lazy import torch\n\n\n"
        "class NearestMean(Method):\n"
        '    name = "nearest-mean"\n    title = "Nearest class mean"\n\n'
        "    def recipe(self, settings, facts):\n"
        '        return Recipe(support={POOLED: ("eval",)})\n\n'
        "    def prepare(self, task):\n"
        "        onehot_KN = torch.nn.functional.one_hot(task.labels_N, task.facts.n_classes).T.float()\n"
        '        return {"M_KC": unit(onehot_KN @ unit(task.features(POOLED, "eval"))), "scale": '
        "task.scale}\n\n"
        "    def logits(self, params, consts, features, values):\n"
        '        return cosine_logits(features[POOLED], consts["M_KC"], consts["scale"])\n'
    )
    assert (
        bench("run", "--methods", "nearest-mean", "--plugin", plugin, "--results", tmp_path / "r").exit_code
        == 0
    )
    assert "nearest-mean,2," in bench("table", "--results", tmp_path / "r", "--format", "csv").output


def _hears_interrupts() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so do its children unless told otherwise."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_interruption_keeps_what_is_done(
    bench: Bench, tmp_path: Path, images: Path, cache: Path, jobs: str
) -> None:
    results = tmp_path / "r"
    # seconds of cells, so that the interruption does not come too late
    many = ",".join(map(str, range(1, 31)))
    process = subprocess.Popen(
        command(images, results, "--methods", "zero-shot,safe", "--seeds", many, "--jobs", jobs),
        env={**os.environ, "BENCH_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hears_interrupts,
    )
    while process.poll() is None and not list(results.rglob("*.npz")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "goes on from here" in error
    assert list(results.rglob("*.npz"))


def test_inference_values_need_no_refit(bench: Bench, tmp_path: Path) -> None:
    assert bench("run", "--methods", "safe", "--results", tmp_path).exit_code == 0
    swept = bench("run", "--methods", "safe", "--sweep", "safe.beta=0:2:0.5", "--results", tmp_path)
    assert swept.exit_code == 0, swept.output
    assert "0 fits, 4 evaluations, 0 encodes, 0 steps" in swept.output  # 0.5 was there already
    assert sorted(r.values["beta"] for r in of_type(tmp_path, EvaluationRecord)) == [0.0, 0.5, 1.0, 1.5, 2.0]


@pytest.mark.slow
def test_two_processes_share_a_store(tmp_path: Path, images: Path) -> None:
    env = {**os.environ, "BENCH_CACHE": str(tmp_path / "cache")}
    both = [
        subprocess.Popen(
            command(images, tmp_path / f"r{i}", "--methods", "zero-shot,tip-adapter", "--seeds", "1"),
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for process in both:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
    assert records(tmp_path / "r0") == records(tmp_path / "r1")


def test_too_few_images_of_a_class(bench: Bench, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    source = draw_images(tmp_path / "more", {"all": 2}) / "all"
    source.rename(flat)
    from bench.errors import BenchError

    done = bench("run", "--methods", "zero-shot", "--results", tmp_path / "r", data=flat)
    assert isinstance(done.exception, BenchError)
    assert "3" in str(done.exception)


@pytest.mark.slow
def test_several_processes_give_the_same_records(bench: Bench, tmp_path: Path) -> None:
    """One and two workers: identical records. A worker that dies loses its round only, which another takes
    up.
    """
    seeds = ("--seeds", "1,2", "--methods", "zero-shot,tip-adapter-f,safe-a")
    assert bench("run", *seeds, "--results", tmp_path / "one", "--jobs", "1").exit_code == 0
    two = bench("run", *seeds, "--results", tmp_path / "two", "--jobs", "2")
    assert two.exit_code == 0, two.output
    assert records(tmp_path / "one") == records(tmp_path / "two")


@pytest.mark.slow
def test_a_dying_worker_costs_only_its_round(bench: Bench, tmp_path: Path) -> None:
    plugin = tmp_path / "deadly.py"
    plugin.write_text(
        "import os\n\nfrom bench.interface import Method\n\n\n"
        "class Deadly(Method):\n    name = 'deadly'\n    title = 'Deadly'\n\n"
        "    def prepare(self, task):\n        os._exit(9) if task.seed == 2 else None\n        return {'W': "
        "task.W_KC}\n\n"
        "    def logits(self, params, consts, features, values):\n        return features['pooled'] @ "
        "consts['W'].T\n"
    )
    arguments = (
        "--methods",
        "deadly",
        "--plugin",
        plugin,
        "--seeds",
        "1,2,3",
        "--jobs",
        "2",
        "--results",
        tmp_path / "r",
    )
    done = bench("run", *arguments)
    assert done.exit_code == 1
    assert "died twice" in done.output
    assert len(of_type(tmp_path / "r", EvaluationRecord)) == 2


def test_why_a_cell_is_stale_or_drifted(bench: Bench, tmp_path: Path) -> None:
    plugin = tmp_path / "moving.py"
    text = (
        "from bench.interface import Method\n\n\n"
        "class Moving(Method):\n    name = 'moving'\n    title = 'Moving'\n    settings = {'scale': 1.0}\n\n"
        "    def logits(self, params, consts, features, values):\n"
        "        return values['scale'] * features['pooled'] @ consts['W_KC'].T\n"
    )
    plugin.write_text(text)
    arguments = ("--methods", "moving", "--plugin", plugin, "--results", tmp_path / "r")

    def why(*more: str) -> str:
        sys.modules.pop("bench.methods.moving", None)
        return bench("run", *arguments, "--dry-run", "--why", *more).output

    assert "never run" in why()
    assert bench("run", *arguments).exit_code == 0
    assert "moving" not in why().split("runs\n")[1]
    assert "stale: settings.scale 1.0 -> 2.0" in why("--set", "moving.scale=2")
    plugin.write_text(text + "\n# edited\n")
    assert re.search(r"stale: source \w+\.\.\. -> \w+\.\.\.", why()), "a plugin's source is in its key"


def test_a_changed_built_in_method_is_said(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version stands for its source, so its records still count; that they may not be its own any more is
    said.
    """
    from bench.plan import why

    arguments = ("--methods", "zero-shot", "--results", tmp_path)
    assert "drifted" not in bench("run", *arguments).output
    assert "drifted" not in bench("run", *arguments, "--dry-run", "--why").output
    monkeypatch.setattr(why, "code_of", lambda method: "another")
    assert (
        "drifted since they were recorded: the code of zero-shot changed, the version did not"
        in bench("run", *arguments).output
    )
    assert "zero-shot: drifted: its source changed" in bench("run", *arguments, "--dry-run", "--why").output


def test_old_records_that_newer_ones_hide_are_said(bench: Bench, tmp_path: Path) -> None:
    """A plugin that is edited and put back is recorded, but tables show what was written last."""
    plugin = tmp_path / "back_and_forth.py"
    text = (
        "from bench.interface import Method\n\n\n"
        "class BackAndForth(Method):\n    name = 'back-and-forth'\n    title = 'Back and forth'\n\n"
        "    def logits(self, params, consts, features, values):\n        return {sign}features['pooled'] @ "
        "consts['W_KC'].T\n"
    )
    arguments = (
        "--methods",
        "back-and-forth",
        "--plugin",
        plugin,
        "--results",
        tmp_path / "r",
        "--jobs",
        "1",
    )
    for sign in ("", "-"):
        plugin.write_text(text.replace("{sign}", sign))
        done = bench("run", *arguments)
        assert done.exit_code == 0 and "1 fit," in done.output and "tables hide" not in done.output
    plugin.write_text(text.replace("{sign}", ""))
    done = bench("run", *arguments)
    assert "0 cells to do, 1 done" in done.output and "tables hide 1 of these cells" in done.output
    assert "tables hide" not in bench("run", *arguments, "--fresh").output.split("done:")[1]
    assert "tables hide" not in bench("run", *arguments).output


def test_equal_datasets_are_said(bench: Bench, tmp_path: Path, images: Path) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(images, twin)
    done = bench(
        "run",
        "--methods",
        "zero-shot",
        "--datasets",
        f"{images},{twin}",
        "--results",
        tmp_path / "r",
        data=None,
    )
    assert "dataset twin is the same as shapes, under another name; recorded once, as shapes" in done.output


def test_time_budget_stops_and_resumes(bench: Bench, tmp_path: Path) -> None:
    spent = bench("run", "--methods", "zero-shot", "--time-budget", "0", "--results", tmp_path)
    assert spent.exit_code == 3
    assert "done: 0 of 1 cell, 1 left" in spent.output and "time budget is spent" in spent.output
    assert not list(tmp_path.rglob("*.npz"))
    assert "1 evaluation," in bench("run", "--methods", "zero-shot", "--results", tmp_path).output


def test_same_command_twice_gives_the_same_predictions(bench: Bench, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert bench("run", "--methods", FOUR, "--results", tmp_path / name).exit_code == 0
    assert records(tmp_path / "a") == records(tmp_path / "b")
    again = bench("run", "--methods", "safe", "--fresh", "--results", tmp_path / "a")
    assert "1 fit," in again.output
    assert records(tmp_path / "a") == records(tmp_path / "b")
