"""Why a step is not recorded, what a failed recording leaves behind, and the bytes of recorded steps."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.errors import BenchError
from bench.interface import Batch, Consts, Method, Params, Rows, Values, random_bytes
from bench.train import graphs, join, loop, rng
from tests.train.engine_cases import Case, case, on
from tests.train.recorder import LONG, Noisy, Recorder, plain, replace_recipe, same, train
from tests.train.test_join import cases, together


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr(graphs, "capturer", lambda device: made)
    return made


def test_a_step_that_waits_is_launched(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder.waits = "the step waits for the device"
    c = case("cross-modal-linear", **LONG["cross-modal-linear"])
    trained = train(c)
    assert (trained.graphs, trained.eager) == (0, "the step waits for the device")
    assert (recorder.warmed, recorder.replays) == (2, []), "the first step may wait for what is set up once"
    monkeypatch.setattr(graphs, "capturer", lambda device: None)
    same(trained, train(c))


def test_replicas_trained_one_after_the_other_are_recorded(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = case("cross-modal-linear", **LONG["cross-modal-linear"])
    monkeypatch.setattr(type(c.method), "fuse", False)
    trained = train(c)
    assert len(trained.score) > 1 and (trained.graphs, trained.eager) == (1, "")
    monkeypatch.setattr(graphs, "capturer", lambda device: None)
    same(trained, train(c))


def test_recordings_are_released_when_a_run_ends_or_breaks(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = case("tip-adapter-f", **LONG["tip-adapter-f"])
    train(c)
    assert recorder.released == [0, 1] and sum(recorder.replays) > 10
    monkeypatch.setattr(loop.Track, "check", lambda *given: 1 / 0 if recorder.replays[2:] else None)
    with pytest.raises(ZeroDivisionError):
        train(c)
    assert len(recorder.replays) > 2
    assert recorder.released == list(range(len(recorder.replays)))


def test_memory_that_runs_out_in_a_recording_halves_the_wave(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.fail = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    c = case("cross-modal-linear", **{**LONG["cross-modal-linear"], "lr": (1e-2, 1e-3), "wd": (0.0,)})
    fitted = c.fit()
    assert (fitted.budget["waves"], fitted.budget["halvings"]) == (2, 1)
    # A single replica cannot be halved, and the steps before it show that it fits without a recording.
    why = "recording failed: CUDA out of memory. Tried to allocate 2.00 GiB"
    assert (fitted.budget["graphs"], fitted.budget["eager"]) == (0, [why])
    monkeypatch.setattr(graphs, "capturer", lambda device: None)
    called = c.fit()
    assert (fitted.values, fitted.step) == (called.values, called.step)


def test_memory_that_runs_out_is_found_below_what_ended_the_recording(recorder: Recorder) -> None:
    fail = RuntimeError("the recording was invalidated")
    fail.__context__ = torch.OutOfMemoryError("CUDA out of memory")
    recorder.fail = fail
    with pytest.raises(torch.OutOfMemoryError):
        train(case("cross-modal-linear", **LONG["cross-modal-linear"]))


class Dropping(Noisy):
    """Dropout on the rows by bytes, twice, in batches of two sizes; notes the bytes that every call got."""

    def __init__(self, inner: Case) -> None:
        super().__init__(inner)
        self.got: list[list[int]] = []

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, torch.Tensor]:
        (name, rows), *others = batch.rows.items()
        x = rows.x
        for p in (0.1, 0.3):
            made = batch.bytes(*x.shape)
            if made.device.type == "cpu":  # reading them would wait for another one
                self.got.append(made.flatten()[:40].tolist())
            x = x.masked_fill(made < round(256 * p), 0.0) / (1.0 - p)
        thinned = Batch({name: Rows(x, rows.y, rows.index), **dict(others)}, 0, rng.generator(0))
        return self.inner.losses(params, consts, thinned, values)


def dropping(name: str) -> Case:
    c = case(name, **LONG[name])
    return replace_recipe(replace(c, method=Dropping(c)), select="last")


@pytest.mark.parametrize(
    ("name", "fuse"), [("linear-probe-sgd", True), ("linear-probe-sgd", False), ("tip-adapter-f", True)]
)
def test_steps_that_read_bytes_are_recorded(
    name: str, fuse: bool, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dropping, "fuse", fuse)
    c, before = dropping(name), set(threading.enumerate())
    trained = train(c)
    shapes = 2 if name == "tip-adapter-f" else 1
    assert (trained.graphs, trained.eager) == (shapes, "")
    assert sum(recorder.replays) == trained.steps - shapes * graphs.WARM > 20
    assert set(threading.enumerate()) <= before, "no thread is left"
    recorded = c.method.got
    monkeypatch.setattr(graphs, "capturer", lambda device: None)
    c = dropping(name)
    same(trained, train(c))
    # of plain steps: each of them has its own, and its replicas the same
    calls = 2 * (1 if fuse else len(trained.score))
    steps = [c.method.got[i : i + calls] for i in range(0, len(c.method.got), calls)]
    assert recorded == c.method.got and len(steps) == trained.steps
    assert len({str(step) for step in steps}) == trained.steps
    for number, step in enumerate(steps):
        assert step == step[:2] * (calls // 2)
        assert random_bytes(1000, rng.generator(1, "noise", number))[:40].tolist() == step[0]
    params, _ = plain(dropping(name))
    assert all(torch.equal(p.detach(), trained.params[key]) for key, p in params.items())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fuse", [True, False])
def test_cuda_steps_that_read_bytes_are_recorded(fuse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dropping, "fuse", fuse)
    here, moved = (
        dropping("linear-probe-sgd"),
        on(case("linear-probe-sgd", **LONG["linear-probe-sgd"]), "cuda"),
    )
    there = replace_recipe(replace(moved, method=Dropping(moved)), select="last")
    recorded = train(there)
    assert (recorded.graphs, recorded.eager) == (1, "")
    monkeypatch.setattr(graphs, "capturer", lambda device: None)
    launched, on_processor = train(there), train(here)
    for name, p in recorded.params.items():
        torch.testing.assert_close(p, launched.params[name], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(p.cpu(), on_processor.params[name], rtol=1e-7, atol=1e-9)


def test_bytes_are_those_of_the_step_in_its_order() -> None:
    host = graphs.Host(lambda step: rng.generator(1, "noise", step))
    rows = {"image": Rows(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), torch.arange(2))}
    batch = graphs.WatchedBatch(rows, 5, host)
    first, second = batch.bytes(3, 5), batch.bytes(11)
    words = torch.empty(2, dtype=torch.int64)
    noise = rng.generator(1, "noise", 5)
    for made in (first, second):
        wanted = words.random_(-(2**63), None, generator=noise).view(torch.uint8)[: made.numel()]
        assert torch.equal(made.flatten(), wanted) and made.dtype == torch.uint8
    again = batch.again()
    assert torch.equal(again.bytes(3, 5), first) and torch.equal(again.bytes(11), second)
    by_hand = Batch(rows, 5, rng.generator(1, "noise", 5))
    assert torch.equal(by_hand.bytes(3, 5), first) and torch.equal(by_hand.bytes(11), second)
    assert not host.asked, "steps that read bytes can be recorded"
    with pytest.raises(BenchError, match="16 bytes at request 1 of a step, 15 before"):
        batch.again().bytes(16)


def test_bytes_that_a_step_did_not_ask_for_before_are_not_recorded() -> None:
    host = graphs.Host(lambda step: rng.generator(1, "noise", step))
    batch = graphs.WatchedBatch({}, 0, host)
    batch.bytes(4)
    host.closed = True
    again = batch.again()
    again.bytes(4)
    with pytest.raises(graphs.Uncapturable, match="more bytes"):
        again.bytes(4)


def test_bytes_drawn_for_another_step_or_shape_are_drawn_anew() -> None:
    host, device = graphs.Host(lambda step: rng.generator(1, "noise", step)), torch.device("cpu")
    one, other = graphs.Drawn(host, 0, device), graphs.Drawn(host, 0, device)
    one.at(0, 40), other.at(0, 24)
    place = one.at(0, 40)
    wanted = random_bytes(40, rng.generator(1, "noise", 7))
    for ready in (None, one.ahead(7), one.ahead(6), other.ahead(7)):
        place.zero_()
        one.begin(7, ready)
        assert one.at(0, 40) is place and torch.equal(place, wanted)


def test_tasks_whose_losses_read_bytes_train_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    group = cases("linear-probe-sgd", n=2)
    method = type(group[0].method)
    original = method.losses

    def losses(self: Method, params: Params, consts: Consts, batch: Batch, values: Values) -> Any:
        batch.bytes(3)
        return original(self, params, consts, batch, values)

    monkeypatch.setattr(method, "losses", losses)
    with pytest.raises(join.Apart, match="noise of their own"):
        together(group)
