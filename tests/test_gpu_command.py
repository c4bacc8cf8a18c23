"""The command that measures a GPU: limits, order, steps that fail, hang or die; tables; a tiny run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError
from tests.benchmarks.gpu import digest, steps, watch
from tests.benchmarks.gpu.steps import STEPS, Step, chosen
from tests.benchmarks.gpu.worker import Missing

ROOT = Path(__file__).resolve().parents[1]
H200 = ROOT / "results" / "benchmarks" / "h200-b813ab4"
# A worker without torch, whose steps are the functions below.
LIGHT = (
    "from types import SimpleNamespace; from tests.benchmarks.gpu import worker; "
    "worker.main(lambda out, work, device: SimpleNamespace(out=out, work=work, device=device))"
)


def good(place: Any) -> Iterator[tuple[str, Any]]:
    yield "process", os.getpid()


def late(place: Any) -> Iterator[tuple[str, Any]]:
    """Waits for ever in a process of its own, as a library does."""
    asleep = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield "asleep", asleep.pid
    asleep.wait()


def fails(place: Any) -> Iterator[tuple[str, Any]]:
    yield "half", 1.5
    raise RuntimeError("CUDA error: an illegal memory access\nand more")


def dies(place: Any) -> Iterator[tuple[str, Any]]:
    yield "half", 1
    os._exit(9)


def lacks(place: Any) -> Iterator[tuple[str, Any]]:
    yield from ()
    raise Missing("not here")


def made(name: str, limit: int = 60, **more: bool) -> Step:
    return Step(name, limit, f"{__name__}:{name.partition('-')[0]}", name, **more)


def run(out: Path, listed: list[Step], seconds: float = 100) -> dict[str, str]:
    return watch.run(listed, out, "light", seconds, (sys.executable, "-c", LIGHT))


def gone(pid: int) -> bool:
    """Has the process ended? (One that nobody has waited for yet counts.)"""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_step_costs_itself_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a step found before it failed, hung or died is kept, and those behind it run."""
    listed = [made("good-1"), made("fails"), made("good-2"), made("dies"), made("late", 2), made("lacks")]
    assert run(tmp_path, [*listed, made("good-3")]) == {
        "good-1": "ok",
        "fails": "failed",
        "good-2": "ok",
        "dies": "died",
        "late": "too long",
        "lacks": "missing",
        "good-3": "ok",
    }
    known = {step.name: watch.read(tmp_path, step.name) for step in listed}
    assert known["fails"]["found"] == {"half": 1.5}
    assert known["fails"]["error"] == "RuntimeError: CUDA error: an illegal memory access"
    assert known["dies"]["found"] == {"half": 1} and "ended with 9" in known["dies"]["error"]
    assert known["lacks"]["error"] == "not here" and 2 <= known["late"]["seconds"] < 20
    assert gone(known["late"]["found"]["asleep"]), "what the step had started ends with it"
    first, second = (known[n]["found"]["process"] for n in ("good-1", "good-2"))
    assert first != second and gone(first) and gone(second), "a failed step gets rid of its process"
    third = watch.read(tmp_path, "good-3")["found"]["process"]
    assert gone(third)
    assert "illegal memory access" in (tmp_path / "log.txt").read_text()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        *(s.name for s in listed),
        "good-3",
    ]
    assert set(json.loads((tmp_path / "summary.json").read_text())["steps"]) == {*known, "good-3"}


def test_the_time_left_is_kept_to(tmp_path: Path) -> None:
    """A limit is cut to the time left, less what is kept for closing steps; the rest is left out and said."""
    began = time.monotonic()
    listed = [made("late", 600), made("good-1"), made("good-2", closing=True)]
    ended = run(tmp_path, listed, watch.KEPT + watch.LEAST + 1)
    assert ended == {"late": "too long", "good-1": "left out", "good-2": "ok"}
    assert time.monotonic() - began < watch.KEPT + watch.LEAST, "the kept time is not waited for"


def test_what_runs_beside_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "KEPT", 0.0)
    listed = [made("good-b", beside=True), made("late-b", 3, beside=True), made("good-1")]
    ended = run(tmp_path, [*listed, made("good-2", closing=True)])
    assert ended == {"good-1": "ok", "good-b": "ok", "late-b": "too long", "good-2": "ok"}
    assert next(iter(ended)) == "good-1", "others run meanwhile"


def test_steps_by_name() -> None:
    assert chosen("") == list(STEPS)
    assert [s.name for s in chosen("hours, safe")] == ["machine", "safe", "hours"], "in order of value"
    assert {s.name for s in chosen("compare")} == {"machine", "processor", "grid", "compare"}
    with pytest.raises(BenchError, match=r"no step .saef.*safe"):
        chosen("saef")
    assert len({s.name for s in STEPS}) == len(STEPS)
    assert [s.closing for s in STEPS] == sorted(s.closing for s in STEPS), "closing steps come last"
    for step in STEPS:
        module, _, function = step.call.partition(":")
        file = ROOT / (module.replace(".", "/") + ".py")
        assert f"\ndef {function}(place: Place) -> Found:" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--only", "saef"], "no step 'saef'"),
        ([], "--out DIR is needed"),
        (["--device", "cuda"], "sees no CUDA device"),
        (["--seconds", "0"], "--seconds must be above 0"),
        (["--out", __file__], "not a folder"),
    ],
)
def test_what_cannot_be_is_refused_first(
    flags: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import torch

    from tests.benchmarks.gpu.__main__ import main

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = ["--out", str(tmp_path / "out")] if flags else []
    monkeypatch.setattr(sys, "argv", ["gpu", *out, *flags])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_tables_of_a_measurement() -> None:
    text = digest.tables(H200)
    assert text.startswith("Measured on NVIDIA H200, 16 cores, torch 2.11.0+cu130, commit b813ab4")
    assert "| RN50 R=12 | 3,749 |" in text and "| 55 % | 6.22 |" in text
    assert (
        "| safe-layer4 | 3 | 0.497 | 10.908 | 3 | 12120 | replicas are trained one after the other |" in text
    )
    assert "| tests | 30 passed, 0 failed, 0 skipped |" in text
    assert "freed memory is given back: no" in text
    assert "3.81 GB allocated before 40 fits, 5.15 after" in text


def test_tables_of_little(tmp_path: Path) -> None:
    """Nothing, and steps that were stopped before they knew everything."""
    assert digest.write(tmp_path).strip() == "Nothing is known of the machine."
    for name, found in {"capped": {"free": {}}, "safe": {"RN50 plain": {}}, "jobs": {"jobs 1": {}}}.items():
        watch.write(tmp_path, name, {"step": name, "outcome": "too long", "seconds": 9.0, "found": found})
    parts = [{"part": "interpreter", "seconds": 0.31}, {"part": "plan", "seconds": 2.0}]
    found = {"parts": {"parts": parts, "seconds": 2.31}}
    watch.write(tmp_path, "start", {"step": "start", "outcome": "ok", "seconds": 5.0, "found": found})
    text = digest.write(tmp_path)
    assert "| start | 2.3 s to the end of the second cell: interpreter 0.3 s, plan 2.0 s |" in text
    assert "| a capped card | stopped before it knew |" in text and "| too long | 9 s |" in text


def test_methods_csv_keeps_other_sizes(tmp_path: Path) -> None:
    from tests.benchmarks.gpu import cells, records

    file = tmp_path / "methods.csv"
    row = dict.fromkeys(records.COSTS, 1)
    for what, method in (("RN50", "a"), ("ViT", "b"), ("RN50", "c")):
        cells.table(file, [{"what": what, **row, "method": method}])
    head, *rows = file.read_text().splitlines()
    assert head == (H200 / "methods.csv").read_text().splitlines()[0]
    assert [r.split(",")[:2] for r in rows] == [["ViT", "b"], ["RN50", "c"]]


def test_projected_hours_rest_on_what_was_measured(tmp_path: Path) -> None:
    """Twice the microseconds are twice the hours; what was not measured is named, not guessed."""
    from tests.benchmarks.gpu import hours

    head = "what,method,fits,prepare_s,fit_s,configurations,steps,us_a_step,recorded,not recorded because"
    rows = "RN50 x,zero-shot,2,0.0,0.0,0,0,,,\nRN50 x,safe,3,0.0,1.0,3,900,{},1,\n"
    found = []
    for us in (400, 800):
        (tmp_path / "methods.csv").write_text(f"{head}\n{rows.format(us)}", encoding="utf-8")
        found.append(dict(hours.project(tmp_path)))
    # SAFE: 165 cells, 12 points of 12,800 steps; on all eleven datasets a step costs what it costs here
    assert found[0]["methods"]["safe"] == pytest.approx(165 * 12 * 12800 * 400e-6 / 3600, rel=0.1)
    assert found[1]["methods"]["safe"] == pytest.approx(2 * found[0]["methods"]["safe"])
    assert "tip-adapter-f" in found[0]["main"]["without"] and "encoding" in found[0]["main"]["without"]
    (tmp_path / "methods.csv").unlink()
    with pytest.raises(Missing, match="run the step methods"):
        dict(hours.project(tmp_path))


def test_idle_time_is_what_no_kernel_covers() -> None:
    from tests.benchmarks.gpu.training import busy

    ran = [{"name": n, "ts": ts, "dur": d} for n, ts, d in (("a", 0, 4), ("b", 2, 3), ("a", 8, 2))]
    found = busy(ran, 2)
    assert found["idle_share"] == pytest.approx(0.3) and found["kernels_a_step"] == 1.5
    assert found["kernel_us_a_step"] == 4.5 and list(found["most_us_a_step"]) == ["a", "b"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_command_on_a_processor(tmp_path: Path) -> None:
    """Tiny sizes: every step ends well, or says what this checkout lacks.

    It takes about three minutes of a processor's time; the limit is for machines that do other things too.
    """
    words = ["-m", "tests.benchmarks.gpu", "--device", "cpu", "--out", str(tmp_path), "--seconds", "1600"]
    env = {**os.environ, "BENCH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=1700
    )
    ended = {s.name: watch.read(tmp_path, s.name).get("outcome") for s in steps.STEPS}
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")[-5000:]
    lacking = {"start"} if not (ROOT / "tests" / "benchmarks" / "start.py").exists() else set()
    assert {n for n, o in ended.items() if o != "ok"} == lacking, f"{done.stdout}\n{log}"
    assert done.returncode == 0
    found = {s.name: watch.read(tmp_path, s.name)["found"] for s in steps.STEPS}
    assert not found["tests"]["failed"] and found["tests"]["passed"] + found["tests"]["skipped"] > 20
    assert found["compare"]["compared"] == found["compare"]["cells"] >= 3
    assert not found["compare"]["judged_otherwise"], "the same device twice"
    assert found["hours"]["methods"]["zero-shot"] >= 0 and found["recording"]
    assert {"pocket-rn R=1", "pocket-rn R=3", "pocket-vit R=3"} <= set(found["safe"])
    text = (tmp_path / "digest.md").read_text(encoding="utf-8")
    assert text in done.stdout + "\n" and "Sizes are tiny" in text and "stopped before" not in text
