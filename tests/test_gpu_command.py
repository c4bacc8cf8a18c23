"""The command that measures a GPU: limits, order, steps that fail, hang or die; tables; a tiny run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
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
    "worker.main(lambda out, work, device, seconds: SimpleNamespace(out=out, work=work, seconds=seconds))"
)
OF = {"device": "light", "sizes": "tiny", "commit": "abc"}


def good(place: Any) -> Iterator[tuple[str, Any]]:
    yield "process", os.getpid()
    yield "seconds", place.seconds


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
    return watch.run(listed, out, "light", seconds, OF, (sys.executable, "-c", LIGHT))


def gone(pid: int) -> bool:
    """Return whether the process has ended; one that nobody has waited for yet counts."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
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
    assert known["lacks"]["error"] == "not here" and known["late"]["seconds"] > 0
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


@pytest.mark.slow
def test_the_time_left_is_kept_to(tmp_path: Path) -> None:
    """A limit is cut to the time left, less what is kept for closing steps; the rest is left out and said."""
    listed = [made("late", 600), made("good-1"), made("good-2", closing=True)]
    ended = run(tmp_path, listed, watch.KEPT + watch.LEAST + 1)
    assert ended == {"late": "too long", "good-1": "left out", "good-2": "ok"}
    assert 0 < watch.read(tmp_path, "good-2")["found"]["seconds"] <= 60, "a step knows how long it may take"


def test_what_runs_beside_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "KEPT", 0.0)
    listed = [made("good-b", beside=True), made("late-b", 3, beside=True), made("good-1")]
    ended = run(tmp_path, [*listed, made("good-2", closing=True)])
    assert ended == {"good-1": "ok", "good-b": "ok", "late-b": "too long", "good-2": "ok"}
    assert next(iter(ended)) == "good-1", "others run meanwhile"
    assert watch.read(tmp_path, "good-1")["beside"] == ["good-b", "late-b"], "and the file says so"
    assert {watch.read(tmp_path, s.name)["of"] == OF for s in listed} == {True}


def test_what_needs_every_core_runs_alone(tmp_path: Path) -> None:
    ended = run(tmp_path, [made("good-b", beside=True), made("good-1"), made("good-2", alone=True)])
    assert list(ended) == ["good-1", "good-b", "good-2"]
    assert [bool(watch.read(tmp_path, n).get("beside")) for n in ended] == [True, False, False]


@pytest.mark.parametrize("what", list(OF))
def test_a_folder_holds_one_device_commit_and_size(what: str, tmp_path: Path) -> None:
    """Else tables would show figures of one under the name of another."""
    watch.check(tmp_path, OF)
    for name, known in (("safe", {"of": OF}), ("machine", {"found": OF})):
        out = tmp_path / name
        out.mkdir()
        watch.write(out, name, known)
        watch.check(out, OF)
        with pytest.raises(BenchError, match=f"{what} {OF[what]} are there, not other: name another folder"):
            watch.check(out, {**OF, what: "other"})


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


def test_other_measurements_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.benchmarks.gpu.__main__ import main

    monkeypatch.setenv("COMMIT", "def")
    watch.write(tmp_path, "safe", {"of": {**watch.origin("cpu"), "commit": "abc"}})
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path), "--device", "cpu", "--only", "machine"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "commit abc are there, not def" in capsys.readouterr().err
    assert [f.name for f in tmp_path.iterdir()] == ["safe.json"]


def test_tables_of_a_measurement() -> None:
    text = digest.tables(H200)
    assert text.startswith("Measured on NVIDIA H200, 16 cores, torch 2.11.0+cu130, commit b813ab4")
    assert "| RN50 R=12 | 3,749 |" in text and "| 55 % | 6.22 |" in text
    assert (
        "| safe-layer4 | 3 | 0.497 | 10.908 | 3 | 12120 | replicas are trained one after the other |" in text
    )
    assert "| tests | 30 passed, 0 failed, 0 skipped |" in text
    assert "| RN50 from 1,200 JPEG files, 8 decoding threads of 16 cores: fp32, pooled | 1,116 |" in text
    assert "freed memory is given back: no" in text
    assert "3.81 GB allocated before 40 fits, 5.15 after" in text


def test_tables_of_little(tmp_path: Path) -> None:
    """Nothing, and steps that were stopped before they knew everything."""
    assert digest.write(tmp_path).strip() == "Nothing is known of the machine."
    watch.write(tmp_path, "tests", {"outcome": "ok", "beside": ["processor"], "found": {}})
    for name, found in {"capped": {"free": {}}, "safe": {"RN50 plain": {}}, "jobs": {"jobs 1": {}}}.items():
        watch.write(tmp_path, name, {"step": name, "outcome": "too long", "seconds": 9.0, "found": found})
    parts = [{"part": "interpreter", "seconds": 0.31}, {"part": "plan", "seconds": 2.0}]
    found = {"parts": {"parts": parts, "seconds": 2.31}}
    watch.write(tmp_path, "start", {"step": "start", "outcome": "ok", "seconds": 5.0, "found": found})
    text = digest.write(tmp_path)
    assert "| start | 2.3 s to the end of the second cell: interpreter 0.3 s, plan 2.0 s |" in text
    assert "| ok |  | ran beside processor |" in text
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


def test_whole_runs_find_the_card_free_and_end_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from tests.benchmarks.gpu import cells, place

    here = place.Place(tmp_path, tmp_path, torch.device("cpu"), False, time.monotonic() + 105.9)
    tower = here.tower("rn")
    assert here.tower("rn") is tower, "kept for the next step"
    ran: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        assert not place._tower.cache_info().currsize and not place._steps.cache_info().currsize
        ran.append(command)
        return SimpleNamespace(returncode=cells.INCOMPLETE)

    monkeypatch.setattr(subprocess, "run", run)
    cells.bench(replace(here, full=True), "x", budget=True)
    minutes = float(ran[0][ran[0].index("--time-budget") + 1])
    assert 0 < 60 * minutes <= 105.9 - 30, "the grace of a time budget ends before the step is stopped"


def test_rows_are_read_where_the_run_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.benchmarks.gpu import hours, records

    here: Any = SimpleNamespace(out=tmp_path, work=tmp_path / "work", pick=lambda full, tiny: full)
    with pytest.raises(Missing):
        dict(hours.hours(here))
    (here.work / "methods-rn").mkdir(parents=True)
    row = {**dict.fromkeys(records.COSTS, ""), "method": "safe", "us_a_step": 400, "prepare_s": 0, "fit_s": 1}
    monkeypatch.setattr(records, "costs", lambda folder: [row])
    assert dict(hours.hours(here))["methods"]["safe"] > 0
    assert (tmp_path / "methods.csv").read_text().splitlines()[1].startswith("RN50 emoji 16 shots,safe,")


def test_methods_are_checked_as_often_as_published() -> None:
    from bench.plan import settings
    from bench.registry import builtin
    from tests.benchmarks.gpu import cells

    flags = cells.published_checks(["zero-shot", "safe", "coop"])
    assert flags == ["--set", "safe.check_every=100"]
    assert settings.resolve(builtin().get("safe"), "paper", "emoji", {})["check_every"] == 100


def test_encoding_is_measured_on_its_own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from bench.clip.backbone import Backbone, load, resolve
    from tests.benchmarks.gpu import seams

    tower, encode, seen = load(resolve("pocket-rn")), Backbone.encode_images, []

    def passed(self: Backbone, x_BCHW: Any, taps: Any) -> Any:
        seen.append(float(x_BCHW.std()))
        return encode(self, x_BCHW, taps)

    monkeypatch.setattr(Backbone, "encode_images", passed)
    pixels = np.random.default_rng(0).integers(0, 256, (4, tower.image_size, tower.image_size, 3), np.uint8)
    seams.encoded(tower, pixels, ["pooled"], 3)
    assert len(seen) == 3 and len(set(seen)) == 1 and seen[0] > 0


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
