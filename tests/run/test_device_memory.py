"""The memory of a fit on its device: tensors filled in place, a peak of its own, a share among processes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.errors import BenchError
from bench.interface import TEXT, Recipe, Stream
from bench.plan import needs
from bench.run import evaluate, session, task
from bench.run import fit as fitting
from bench.train import select, slices, waves
from bench.train.loop import Pool

ROWS, WIDTH, PIECE = 1000, 64, 100


class Meter(TorchDispatchMode):
    """Counts the bytes of all tensors made while it is entered, and how many there were at most."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, int] = {}
        self.most = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and asking imports the compiler

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for x in made if isinstance(made, tuple | list) else (made,):
            if isinstance(x, Tensor) and (key := x.untyped_storage()._cdata) not in self.known:
                self.known[key] = x.untyped_storage().nbytes()
                weakref.finalize(x.untyped_storage(), self.known.pop, key, None)
        self.most = max(self.most, sum(self.known.values()))
        return made


def pieces(rows: int) -> Iterator[tuple[int, Tensor]]:
    """Rows in single precision, made piece by piece; each number fits into half precision."""
    for start in range(0, rows, PIECE):
        yield start, (torch.arange(start, start + PIECE)[:, None] % 97 + torch.zeros(WIDTH)).float()


def fake(**more: Any) -> Any:
    """A session whose features are the pieces."""
    return SimpleNamespace(slices=lambda *_: pieces(ROWS), device="cpu", sharers=1, **more)


def planned() -> Any:
    return SimpleNamespace(
        backbone=None,
        dataset=SimpleNamespace(name="birds", classnames=["wren", "owl"]),
        method=SimpleNamespace(name="mine"),
        draw=SimpleNamespace(train=SimpleNamespace(paths=["x"] * ROWS)),
    )


def test_support_features_take_their_own_size_and_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.cat([torch.cat([x for _, x in pieces(ROWS)])] * 2)
    monkeypatch.setattr(torch, "cat", lambda *_: pytest.fail("joins pieces"))
    stream, labels = Stream(views=("eval", "flip")), torch.zeros(ROWS)
    with Meter() as meter:
        made = task.pools(
            fake(),
            planned(),
            SimpleNamespace(labels_N=labels),
            Recipe({"image": stream}),
            {},  # type: ignore[arg-type]
        )
    pool = made["image"]
    assert isinstance(pool, Pool) and (pool.x.dtype, pool.views, pool.y) == (torch.half, 2, labels)
    assert torch.equal(pool.x.float(), whole) and len(whole.unique()) == 97
    size = 2 * ROWS * WIDTH * 2
    assert size <= meter.most < 1.5 * size
    assert torch.equal(made["image"].x.float(), whole)


@pytest.mark.parametrize("wrong", [-1, 2])
def test_labels_that_name_no_class_are_refused_before_training(wrong: int) -> None:
    """Of images and of texts: a loss would take them as a class of logit 0."""
    labels = torch.ones(ROWS, dtype=torch.long)
    text = SimpleNamespace(raw_PC=torch.zeros(ROWS, 2), class_of_P=labels)
    given: Any = SimpleNamespace(labels_N=labels.clone(), text=text)
    recipes = [Recipe({"words": Stream(source=TEXT)}), Recipe({"image": Stream()})]
    for recipe, y in zip(recipes, (text.class_of_P, given.labels_N), strict=True):
        task.pools(fake(), planned(), given, recipe, {})
        y[3] = wrong
        with pytest.raises(BenchError, match=r"mine: labels of stream '(words|image)' .* classes 0 to 1"):
            task.pools(fake(), planned(), given, recipe, {})


def test_features_take_their_own_size_and_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.cat([x for _, x in pieces(ROWS)])
    monkeypatch.setattr(torch, "cat", lambda *_: pytest.fail("joins pieces"))
    with Meter() as meter:
        made = session.Session.features(fake(), None, None, ["x"] * ROWS, "eval", "pooled")  # type: ignore[arg-type]
    assert torch.equal(made, whole) and made.dtype == torch.float32
    assert ROWS * WIDTH * 4 <= meter.most < 1.5 * ROWS * WIDTH * 4


def test_the_meter_sees_what_joining_takes() -> None:
    with Meter() as meter:
        torch.cat([x for _, x in pieces(ROWS)])
    gc.collect()
    assert meter.most >= 2 * ROWS * WIDTH * 4 and not meter.known


def test_rows_that_are_missing_are_an_error() -> None:
    for given in ([], [(0, torch.ones(2, 3))], [(0, torch.ones(2, 3)), (3, torch.ones(1, 3))]):
        with pytest.raises(AssertionError):
            session.filled(4, iter(given))
    with pytest.raises(AssertionError, match="one after the other"):
        session.filled(3, [(0, torch.ones(2, 3)), (1, torch.ones(1, 3))])


def test_the_peak_is_that_of_the_fits_device(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a machine with a GPU
    monkeypatch.setattr(torch.cuda, "init", lambda: asked.append("init"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda at: asked.append(("reset", at)))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda at: asked.append(("most", at)) or 77)
    fitting.forget_peak("cpu")
    assert fitting.peak_memory("cpu") > 1 << 20 and not asked
    fitting.forget_peak("cuda:1")
    assert fitting.peak_memory("cuda:1") == 77
    assert asked == ["init", ("reset", "cuda:1"), ("most", "cuda:1")]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What fits do to their device, in order, with nothing fitted."""
    calls: list[Any] = []
    case = SimpleNamespace(task=None, consts={}, pools={}, val=None)

    def fitted(*given: Any) -> Any:
        calls.append(("fit", given[-1]))
        return [SimpleNamespace(budget={})] * 2

    def own_part(at: torch.device, sharers: int) -> int:
        calls.append(("part", str(at), sharers))
        return 1 << 40

    monkeypatch.setattr(fitting, "forget_peak", lambda at: calls.append(("forget", at)))
    monkeypatch.setattr(fitting, "prepared", lambda *_: (calls.append("prepared"), (case, 0.0))[1])
    monkeypatch.setattr(select, "fit", lambda *given: fitted(*given)[0])
    monkeypatch.setattr(fitting.temperature, "of_fit", lambda *_: (1.0, ""))
    monkeypatch.setattr(needs, "calibrates", lambda fit: False)
    monkeypatch.setattr(select, "fit_joined", fitted)
    monkeypatch.setattr(select, "bytes_per_replica", lambda *_: 1)
    monkeypatch.setattr(fitting, "held", lambda cases: 0)
    monkeypatch.setattr(waves, "own_part", own_part)
    return calls


def lent(sharers: int) -> Any:
    return SimpleNamespace(device="cuda", sharers=sharers, guard=SimpleNamespace(work=lambda *_: _nothing()))


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


def test_a_fit_forgets_the_peak_before_and_knows_how_many_share(heard: list[Any]) -> None:
    fit: Any = SimpleNamespace(method=None, recipe=None, key="a")
    fitting.run_fit(lent(3), fit, {})
    assert heard == [("forget", "cuda"), "prepared", ("fit", 3)]


def test_joined_fits_know_how_many_share_and_have_a_peak_of_their_own(
    heard: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one of them reads a state that is fitted meanwhile, which takes more."""
    fit: Any = SimpleNamespace(method=None, recipe=None, key="a")
    peak, used = [0], select.fit_joined

    def taken(*given: Any) -> Any:
        peak[0] = max(peak[0], 5)
        return used(*given)

    def states_of(fit: Any) -> dict[str, Any]:
        fitting.forget_peak("cuda")  # of the fit below
        peak[0] = 99
        return {}

    monkeypatch.setattr(fitting, "forget_peak", lambda at: peak.__setitem__(0, 0))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda at: peak[0])
    monkeypatch.setattr(select, "fit_joined", taken)
    fitting.run_joined(lent(3), [fit, fit], states_of)
    assert fitting.peak_memory("cuda") == 5
    assert heard == ["prepared", ("part", "cuda", 3), "prepared", ("fit", 3)]


def test_evaluation_slices_by_its_part_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    monkeypatch.setattr(slices, "most", lambda device, free: 40 * (free or 0))
    monkeypatch.setattr(waves, "own_part", lambda device, sharers: 10 // sharers)

    def read(*given: Any) -> Iterator[tuple[int, Tensor]]:
        rows.append(given[-1])
        return iter([])

    spec = SimpleNamespace(config={"vision_cfg": {}, "embed_dim": 8}, family="other", image_size=8)
    fit: Any = SimpleNamespace(backbone=spec, method=SimpleNamespace(taps=("pooled",)))
    test: Any = SimpleNamespace(target=SimpleNamespace(test=SimpleNamespace(paths=[])))
    for sharers in (1, 2):
        evaluate._fill(
            SimpleNamespace(device="cpu", sharers=sharers, slices=read),
            fit,
            test,
            {},
            {},
            {},
            {},
            None,  # type: ignore[arg-type]
        )
    assert rows == [400 // 32, 200 // 32]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_peaks_are_those_of_each_fit() -> None:
    fitting.forget_peak("cuda")
    before = fitting.peak_memory("cuda")
    large = torch.zeros(64 << 20, device="cuda")
    assert fitting.peak_memory("cuda") >= before + 4 * (64 << 20)
    del large
    fitting.forget_peak("cuda")
    assert fitting.peak_memory("cuda") < before + (1 << 20)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_out_of_memory_is_told() -> None:
    from bench.errors import short_of_memory

    with pytest.raises(RuntimeError) as caught:
        torch.zeros(1 << 45, device="cuda")
    assert short_of_memory(caught.value)
    free = waves.own_part(torch.device("cuda"))
    assert free and 0 <= (waves.own_part(torch.device("cuda"), 2) or 0) <= free
