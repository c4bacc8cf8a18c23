"""Evaluations of one fit that wait for a pass share what they read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace as Made
from typing import Any

import pytest
import torch

from bench.errors import BenchError
from bench.plan.todo import Todo
from bench.run import onepass
from bench.run.waiting import Waiting
from tests.run.conftest import Bench


def test_one_that_spoils_its_constants_fails_all_that_share_them() -> None:
    def logits(params: Any, consts: Any, features: Any, values: Any) -> Any:
        if values["write"]:
            consts["W"].zero_()
            raise RuntimeError("no logits today")
        if values["fail"]:
            raise RuntimeError("another thing")
        return features["dense"] @ consts["W"]

    def stream(*arguments: Any) -> Iterator[Any]:
        yield from ((start, {"dense": torch.eye(3)}) for start in (0, 3))

    target = six()
    made = Made(taps=("dense",), logits=logits, name="made")
    fit = Made(
        backbone=None, method=made, settings={}, key="0", cell=Made(method="made"),
        dataset=Made(classnames="abc"),
    )  # fmt: skip

    def job(consts: Any, write: bool = False, fail: bool = False) -> onepass.Job:
        values = {"write": write, "fail": fail}
        return onepass.Job(
            fit, Made(target=target, values=values, changed={}, key="1", parts=None), {}, consts, {}, None
        )  # type: ignore[arg-type]

    one, other = {"W": torch.eye(3)}, {"W": torch.eye(3)}
    jobs = [job(one), job(one, write=True), job(one), job(other), job(other, fail=True)]
    session: Any = Made(stream=stream, keep_logits=False, guard=Made(work=lambda fit, doing: nullcontext()))
    results = onepass.run(session, jobs)
    assert [str(result) for result in results if isinstance(result, Exception)] == [
        shared := "another evaluation of the same fit wrote into what this one reads, and failed: "
        "RuntimeError: no logits today",
        "no logits today",
        shared,
        "another thing",
    ]
    assert isinstance(results[0], BenchError)
    healthy: Any = results[3]
    assert healthy[1]["top1"].tolist() == [0, 1, 2] * 2


def six() -> Any:
    return Made(
        name="six", classes=None, classnames="abc", test=Made(paths=[*"123456"], labels=[0] * 6), digest="d",
        covers="", spec=Made(identity=""),
    )  # fmt: skip


def test_the_arrays_of_a_pass_count_as_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """52 bytes an image, and two more for each class if logits are kept; states may be empty."""
    job: Any = Made(params={}, consts={}, evaluation=Made(target=six()))
    for keep, size in ((False, 6 * 52), (True, 6 * (52 + 2 * 3))):
        session: Any = Made(keep_logits=keep)
        waiting = Waiting(session, None)  # type: ignore[arg-type]
        assert not waiting.full()
        waiting.jobs = [(None, job, None)] * 2  # type: ignore[list-item]
        monkeypatch.setattr(onepass, "HELD_BYTES", 2 * size)
        assert not waiting.full()
        monkeypatch.setattr(onepass, "HELD_BYTES", 2 * size - 1)
        assert waiting.full()


def test_one_result_that_cannot_be_recorded_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded, failed = [], []

    def evaluation(fit: Any, evaluation: Any, facts: Any, result: Any) -> None:
        if result == "bad":
            raise BenchError("this result cannot be recorded")
        recorded.append(result)

    recorder: Any = Made(evaluation=evaluation, failure=lambda t, error: failed.append(str(error)))
    session: Any = Made(watch=lambda now: None, report=lambda line: None)
    waiting = Waiting(session, recorder)
    jobs: list[Any] = [Made(evaluation=Made(target=six())) for _ in range(3)]
    cell: Any = Todo(Made(backbone=Made(digest="b")), (), None)  # type: ignore[arg-type]
    for job in jobs:
        waiting.add(cell, job, None)  # type: ignore[arg-type]
    monkeypatch.setattr(onepass, "run", lambda session, jobs: ["one", "bad", ValueError("two")])
    waiting.evaluate()
    assert recorded == ["one"] and failed == ["this result cannot be recorded", "two"]


def test_a_sweep_holds_its_state_once(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "c"))
    held: list[set[int]] = []
    original = Waiting.evaluate

    def seen(self: Waiting) -> None:
        jobs = [job for _, job, _ in self.jobs]
        for part in ("params", "consts"):
            held.append(
                {
                    x.data_ptr()
                    for job in jobs
                    for x in getattr(job, part).values()
                    if isinstance(x, torch.Tensor)
                }
            )
            assert len(jobs) == 3 and len(held[-1]) <= len(getattr(jobs[0], part))
        original(self)

    monkeypatch.setattr(Waiting, "evaluate", seen)
    words = ("--methods", "safe", "--sweep", "safe.beta=0,1,2", "--no-dense-cache", "--results", tmp_path)
    done = bench("run", *words, "--jobs", "1")
    assert done.exit_code == 0 and held, done.output
