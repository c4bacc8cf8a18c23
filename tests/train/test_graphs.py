"""Recorded steps over fixed tensors equal a plain loop; a step that cannot be recorded is called plainly."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.interface import Batch, Consts, Params, Values
from bench.train import graphs, loop, rng, waves
from bench.train.capture import Recording
from tests.train.engine_cases import case, on
from tests.train.recorder import LONG, Noisy, Recorder, plain, replace_recipe, same, train


class Counting(Noisy):
    """Reads the step number."""

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, torch.Tensor]:
        return {"loss": self.inner.losses(params, consts, batch, values)["loss"] / (1.0 + batch.step)}


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr(graphs, "capturer", lambda device: made)
    return made


@pytest.mark.parametrize("wrap", [None, Noisy, Counting])
@pytest.mark.parametrize("name", ["cross-modal-linear", "tip-adapter-f"])
def test_blocks_equal_a_plain_loop(name: str, wrap: type[Noisy] | None) -> None:
    c = case(name)
    if wrap:
        c.method = wrap(c)
    c.recipe = replace(c.recipe, select="last", check_every=None)
    trained, (params, losses) = train(c), plain(c)
    assert len({tuple(row) for row in losses}) > 5
    assert all(torch.equal(p.detach(), trained.params[name]) for name, p in params.items())
    checked = train(replace_recipe(c, select="best", check_every=5))
    assert checked.losses and all(losses[step] == row for step, row in checked.losses)


@pytest.mark.parametrize("name", sorted(LONG))
def test_recorded_steps_equal_called_ones(
    name: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = case(name, **LONG[name])
    trained = train(c)
    shapes = 2 if name == "tip-adapter-f" else 1
    assert (trained.graphs, trained.eager) == (shapes, "")
    assert (
        recorder.warmed == shapes * graphs.WARM and sum(recorder.replays) == trained.steps - recorder.warmed
    )
    monkeypatch.setattr(graphs, "capturer", lambda device: None)
    called = train(c)
    assert (called.graphs, called.eager) == (0, "")
    same(trained, called)


def test_patience_ends_recorded_runs_at_the_same_step(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = case("safe", steps=60, check_every=1, patience=8, lr=(1e-2, 1e-7))
    trained = train(c)
    assert trained.graphs == 1 and trained.steps < 60
    monkeypatch.setattr(graphs, "capturer", lambda device: None)
    same(trained, train(c))


@pytest.mark.parametrize(
    ("wrap", "says"), [(Noisy, "the losses read batch.noise"), (Counting, "the losses read batch.step")]
)
def test_losses_that_read_the_host_are_not_recorded(wrap: type[Noisy], says: str, recorder: Recorder) -> None:
    c = case("cross-modal-linear", **LONG["cross-modal-linear"])
    c.method = wrap(c)
    trained = train(replace_recipe(c, select="last"))
    assert (trained.graphs, trained.eager, recorder.warmed, recorder.replays) == (0, says, 1, [])
    assert all(torch.equal(p.detach(), trained.params[name]) for name, p in plain(c)[0].items())


def test_losses_that_read_the_host_late_are_found_while_recorded(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(1000))

    class Late(Noisy):
        def losses(
            self, params: Params, consts: Consts, batch: Batch, values: Values
        ) -> dict[str, torch.Tensor]:
            return {
                "loss": self.inner.losses(params, consts, batch, values)["loss"]
                * (1 if next(calls) < 3 else batch.step)
            }

    def capture(step: Callable[[], torch.Tensor]) -> Recording:
        step()
        raise AssertionError("the step read its number")

    monkeypatch.setattr(recorder, "capture", capture)
    c = case("cross-modal-linear", **LONG["cross-modal-linear"])
    c.method = Late(c)
    trained = train(c)
    assert (trained.graphs, trained.steps) == (
        0,
        40,
    ) and trained.eager == "recording failed: the losses read batch.step"


def test_a_failed_recording_costs_nothing_and_is_reported(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.fail = RuntimeError("operation not permitted when stream is capturing\nCompile with ...")
    c = case("tip-adapter-f", **LONG["tip-adapter-f"])
    fitted = c.fit()
    why = "recording failed: operation not permitted when stream is capturing"
    assert (fitted.budget["graphs"], fitted.budget["eager"]) == (0, [why])
    monkeypatch.setattr(graphs, "capturer", lambda device: None)
    called = c.fit()
    assert "graphs" not in called.budget and "eager" not in called.budget
    assert fitted.values == called.values and fitted.curve == called.curve
    assert all(torch.equal(p, called.params[name]) for name, p in fitted.params.items())


class Ended:
    """The end of a broken recording, which raises an error on top, as that of ``torch.cuda.graph`` does."""

    def __init__(self, says: str = "the recording was invalidated") -> None:
        self.says = says

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        raise RuntimeError(self.says)


def recorded_once(step: Callable[[], None], says: str) -> str:
    """Why one replica's step is not recorded, where ending the recording says so."""

    def capture(made: Callable[[], torch.Tensor]) -> Recording:
        with Ended(says):
            made()
        raise AssertionError

    def whole(*given: object) -> torch.Tensor:
        step()
        return torch.zeros(1)

    recorder = Recorder()
    recorder.capture = capture  # type: ignore[method-assign]
    launch = graphs.Launcher(whole, graphs.Host(), recorder)
    launch._record(torch.zeros(3), torch.zeros(1), (3,), 0)
    return launch.eager.removeprefix("recording failed: ")


def test_the_steps_own_error_is_the_one_reported() -> None:
    def waits() -> None:
        raise RuntimeError("a step waited for the device")

    def handles(more: str) -> None:
        try:
            {}["absent"]
        except KeyError:
            raise RuntimeError(more) from None

    invalid = "the recording was invalidated"
    assert recorded_once(waits, invalid) == "a step waited for the device"
    assert recorded_once(lambda: None, invalid) == invalid
    assert recorded_once(lambda: handles("CUDA out of memory"), invalid) == "CUDA out of memory"
    assert recorded_once(lambda: handles("it waited"), invalid) == "it waited"
    assert recorded_once(waits, "CUDA error: out of memory") == "CUDA error: out of memory"
    try:
        raise RuntimeError("met before")
    except RuntimeError:  # whoever calls may be handling an error
        assert recorded_once(lambda: None, invalid) == invalid
        assert recorded_once(waits, invalid) == "a step waited for the device"


def test_what_a_failed_recording_held_is_free_for_the_next_wave(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, not when Python looks for circles of objects."""
    c, held, alive = case("cross-modal-linear", **LONG["cross-modal-linear"]), list[Any](), list[int]()
    recording: list[bool] = []

    class Short(type(c.method)):  # type: ignore[misc]
        def losses(self, *given: Any) -> Any:
            alive.append(sum(x() is not None for x in held))
            if recording:
                large = torch.ones(5)
                held.append(weakref.ref(large))
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().losses(*given)

    def capture(step: Callable[[], torch.Tensor]) -> Recording:
        recording.append(True)
        try:
            with Ended():
                step()
        finally:
            recording.clear()
        raise AssertionError

    monkeypatch.setattr(recorder, "capture", capture)
    c.method = Short()
    gc.collect()
    gc.disable()
    try:
        fitted = c.fit()
    finally:
        gc.enable()
    assert fitted.budget["halvings"] and fitted.budget["eager"] == ["recording failed: CUDA out of memory"]
    assert len(held) >= 3 and not any(alive)


def test_other_errors_of_a_recording_pass(recorder: Recorder) -> None:
    recorder.fail = TypeError("a mistake in the method")
    with pytest.raises(TypeError, match="a mistake"):
        train(case("safe", **LONG["safe"]))


def test_what_is_never_recorded(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    c = case("cross-modal-linear", **LONG["cross-modal-linear"])
    assert train(replace_recipe(c, steps=graphs.WORTH - 1)).eager == f"fewer than {graphs.WORTH} steps"
    monkeypatch.setattr(loop, "resident", lambda pools, device: False)
    trained = train(c)
    assert (trained.graphs, trained.eager) == (0, "features are gathered from another device")
    assert recorder.warmed == 0


def test_fits_say_what_was_recorded(recorder: Recorder) -> None:
    c = case("cross-modal-linear", **{**LONG["cross-modal-linear"], "batch": (4, 6)})
    assert c.fit().budget["graphs"] == 2 and c.fit().budget["eager"] == []


def test_pools_move_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.zeros(10, 4), torch.zeros(10, dtype=torch.long)
    pools, there = {"image": loop.Pool(x, y)}, torch.device("meta")
    assert waves.settled(pools, torch.device("cpu"))["image"] is pools["image"]
    monkeypatch.setattr(waves, "free_bytes", lambda device: int(160 / waves.SHARE))
    moved = waves.settled(pools, there)
    assert loop.resident(moved, there) and not loop.resident(pools, there)
    monkeypatch.setattr(waves, "free_bytes", lambda device: int(159 / waves.SHARE))
    assert waves.settled(pools, there)["image"] is pools["image"]


def test_noise_is_made_when_asked_for_and_met_again_from_its_start() -> None:
    made: list[int] = []

    def make(step: int) -> torch.Generator:
        made.append(1)
        return rng.generator(1, "noise", step)

    host = graphs.Host(make)
    batch = graphs.WatchedBatch({}, 5, host)
    assert not made and not host.asked
    first = torch.rand(2, generator=batch.noise), torch.rand(2, generator=batch.noise)
    again = batch.again()
    assert torch.equal(torch.rand(2, generator=again.noise), first[0]) and not torch.equal(*first)
    assert len(made) == 2 and host.asked == {"noise"} and batch.step == 5 and host.asked == {"noise", "step"}
    given = Batch({}, 0, rng.generator(1, "x"))
    torch.rand(3, generator=given.noise)
    expected = torch.rand(2, generator=given.noise.clone_state())
    assert torch.equal(torch.rand(2, generator=graphs.watched(given).again().noise), expected)


def test_a_moved_case_is_the_same_case() -> None:
    c = case("safe")
    same(train(on(c, "cpu")), train(c))


NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def repeatable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.cuda
@NEEDS_CUDA
@pytest.mark.parametrize("name", sorted(LONG))
def test_cuda_recorded_equals_launched(name: str, repeatable: None, monkeypatch: pytest.MonkeyPatch) -> None:
    c = on(case(name, **LONG[name]), "cuda")
    recorded = train(c)
    assert recorded.graphs == (2 if name == "tip-adapter-f" else 1), recorded.eager
    monkeypatch.setattr(graphs, "capturer", lambda device: None)
    launched, there = train(c), train(on(c, "cpu"))
    assert (recorded.step, recorded.score, recorded.curve) == (launched.step, launched.score, launched.curve)
    for key, p in recorded.params.items():
        torch.testing.assert_close(p, launched.params[key], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(p.cpu(), there.params[key], rtol=1e-7, atol=1e-9)


@pytest.mark.cuda
@NEEDS_CUDA
def test_cuda_a_step_that_waits_for_the_device_goes_on_unrecorded(
    repeatable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waiting(Noisy):
        def losses(
            self, params: Params, consts: Consts, batch: Batch, values: Values
        ) -> dict[str, torch.Tensor]:
            loss = self.inner.losses(params, consts, batch, values)["loss"]
            return {"loss": loss if float(batch["image"].x.sum()) < 1e9 else -loss}

    c = on(case("cross-modal-linear", **{**LONG["cross-modal-linear"], "lr": (1e-2,), "wd": (0.0,)}), "cuda")
    expected: Mapping[str, torch.Tensor] = train(c).params
    c.method = Waiting(c)
    trained = train(c)
    assert (trained.graphs, trained.steps, trained.eager) == (0, 40, "the step waits for the device")
    for key, p in trained.params.items():
        torch.testing.assert_close(p, expected[key], rtol=1e-12, atol=1e-14)
