"""The cost model against torch's own count of operations, and its sums."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.cli import plan_view
from bench.clip import packed_text, packing
from bench.clip.backbone import load, resolve
from bench.plan import cost, planner
from bench.plan.cells import Planned
from bench.plan.request import Request
from bench.registry import builtin
from bench.run import devices, limits
from tests.run.conftest import Bench


def counted(fn: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        fn()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ["pocket-rn", "pocket-vit"])
def test_operations_of_a_backbone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = resolve(name)
    tower, s = load(spec), cost.shapes(spec)
    x_BCHW = torch.randn(2, 3, spec.image_size, spec.image_size)
    head = tower.head.params
    assert sum(p.numel() for p in head.values()) == pytest.approx(cost.head_parameters(s), rel=0.02)
    dense = tower.encode_images(x_BCHW, ["dense"])["dense"]
    # The fused attention of inference is not counted by torch; written out it is.
    monkeypatch.setattr(torch.backends.mha, "get_fastpath_enabled", lambda: False)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        found = counted(lambda: tower.encode_images(x_BCHW, ["dense"]))
    last = 0.0 if s.family == "rn" else cost._block(s.tokens, s.width)  # belongs to the head of a ViT
    whole = s.tower - last
    assert found / 2 == pytest.approx(whole, rel=0.1)
    params = {n: p.clone().requires_grad_() for n, p in head.items()}
    assert counted(lambda: tower.head(head, dense)) / 2 == pytest.approx(cost.head_forward(s), rel=0.1)
    both = counted(
        lambda: torch.autograd.grad(tower.head(params, dense).sum(), list(params.values()), allow_unused=True)
    )
    assert both / 2 == pytest.approx(3 * cost.head_forward(s), rel=0.25)
    ids = tower.text.tokenize(["a photo of a thing."])
    L = int(ids.argmax(-1)) + 1
    text = counted(lambda: tower.text.encode_ids(ids))
    assert text == pytest.approx(cost.text_forward(s, L), rel=0.1)
    eot_K = torch.full((20,), 11)
    x_KLD = tower.text.embed(tower.text.tokenize(["a photo"] * 20))
    for common in (1, 9):
        pack = packing.pack_of(eot_K, x_KLD.shape[1], common, x_KLD)
        found = counted(lambda pack=pack: packed_text.encode(tower.text, x_KLD, pack))
        assert found == pytest.approx(cost.prompts_forward(s, 20, common, 12 - common), rel=0.1)


def fits(images: Any, tmp_path: Any, **overrides: Any) -> dict[str, Planned]:
    request = Request(
        ("zero-shot", "tip-adapter", "safe", "cross-modal-linear", "coop"),
        (str(images),),
        (2,),
        (1,),
        ("pocket-rn",),
        results=tmp_path,
        overrides=overrides,
    )
    return {f.cell.method: f for f in planner.make(request, builtin()).fits}


def test_a_fit_is_its_steps_and_checks(images: Any, tmp_path: Any) -> None:
    found = fits(images, tmp_path)
    costs = {name: cost.whole(f) for name, f in found.items()}
    assert costs["zero-shot"].flops == 0 < costs["tip-adapter"].flops
    assert costs["safe"].flops > costs["cross-modal-linear"].flops
    assert cost.step(found["coop"]).flops > cost.step(found["cross-modal-linear"]).flops, (
        "a text tower costs more than rows"
    )
    twice = fits(images, tmp_path, safe={"steps": 600})["safe"]
    assert cost.whole(twice).flops == pytest.approx(2 * costs["safe"].flops, rel=0.02)
    one = fits(images, tmp_path, safe={"lr": (1e-3,)})["safe"]
    assert costs["safe"].bytes == pytest.approx(3 * cost.whole(one).bytes)


def test_roofline() -> None:
    device = cost.Device("toy", 100.0, 10.0)
    assert device.seconds(cost.Cost(200.0, 5.0)) == 2.0
    assert device.seconds(cost.Cost(200.0, 50.0)) == 5.0
    here = cost.this_processor(256)
    assert 1e8 < here.flops < 1e15 and 1e8 < here.bytes < 1e14


def test_a_device_is_measured_when_its_work_is_done() -> None:
    """By the clock between two waits; the processor here, which has nothing to wait for."""
    waits = []
    here = limits.measured("toy", "cpu", lambda: waits.append(1), 64, 1 << 16)
    assert here.name == "toy" and 1e6 < here.flops < 1e15 and 1e6 < here.bytes < 1e15
    assert len(waits) == 2 * 2 * 7


def test_a_plan_speaks_of_the_device_of_the_run(
    bench: Bench, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU by a stand-in: the first that ``auto`` means, or the one that is named."""
    asked = []

    def gpu(device: str) -> cost.Device:
        asked.append(device)
        return cost.Device("a large GPU", 5e13, 4e12)

    monkeypatch.setattr(limits, "of", gpu)
    monkeypatch.setattr(devices, "kind", lambda name: "cuda")
    monkeypatch.setattr(devices, "check", lambda name: None)
    for device, meant in (("auto", "cuda"), ("cuda:1", "cuda:1")):
        words = ("--methods", "safe", "--results", tmp_path, "--dry-run", "--device", device)
        said = bench("run", *words).output
        assert "measured speed of a large GPU (50,000 GFLOP/s, 4,000 GB/s)" in said, said
        assert asked.pop() == meant and "processor" not in said


def test_auto_is_a_processor_without_torch_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_GPUS", ("/nowhere/nvidiactl",))
    monkeypatch.setattr(devices, "pick", lambda name: pytest.fail("torch is asked"))
    assert devices.kind("auto") == "cpu"
    monkeypatch.setattr(devices, "_GPUS", ("/",))
    monkeypatch.setattr(devices, "pick", lambda name: {"auto": "cuda"}.get(name, name))
    assert devices.kind("auto") == "cuda" and devices.kind("cuda:1") == "cuda"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_roofline_of_a_gpu() -> None:
    """Single precision on any GPU of these years; what it took of the memory is given back."""
    before = torch.cuda.memory_reserved()
    here = limits.of("cuda")
    assert 1e12 < here.flops < 2e14 and 5e10 < here.bytes < 3e13
    assert here.name == torch.cuda.get_device_name() and torch.cuda.memory_reserved() <= before + (64 << 20)
    assert not torch.backends.cuda.matmul.allow_tf32


class FullCard:
    """Stands for torch where a card has so many bytes free, and says what is asked of it."""

    def __init__(self, free: int, error: Exception | None = None) -> None:
        self.free, self.error = free, error
        self.cuda = SimpleNamespace(
            mem_get_info=self.info, get_device_name=lambda device: "a card", empty_cache=lambda: None
        )

    def info(self, device: str) -> tuple[int, int]:
        if self.error:
            raise self.error
        return self.free, 80 << 30


@pytest.mark.parametrize("free", [140 << 30, 1 << 30, 40 << 20])
def test_what_is_measured_fits_a_card_that_is_nearly_full(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def measured(name: str, device: str, wait: Any, side: int, numbers: int) -> cost.Device:
        asked.append((side, numbers))
        return cost.Device(name, 1.0, 1.0)

    monkeypatch.setattr(limits, "torch", FullCard(free))
    monkeypatch.setattr(limits, "measured", measured)
    assert limits.of("cuda").name == "a card"
    ((side, numbers),) = asked
    assert 512 <= side <= 4096 and 8 * (side**2 + numbers) <= free / 8, "two of each, and room for others"


def test_a_plan_goes_on_where_a_card_cannot_be_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(limits, "torch", FullCard(3_000_000))
    assert plan_view._limits("cuda") is None
    monkeypatch.setattr(limits, "torch", FullCard(0, RuntimeError("CUDA error: out of memory\nmore")))
    assert plan_view._limits("cuda:1") is None
    first, second = capsys.readouterr().out.splitlines()
    assert "no estimate" in first and "only 3 MB of its memory are free" in first
    assert second.endswith("cuda:1 cannot be measured: CUDA error: out of memory")


def test_dry_run_without_records_says_so(bench: Bench, tmp_path: Any) -> None:
    done = bench("run", "--methods", "safe", "--results", tmp_path, "--dry-run")
    assert (
        done.exit_code == 0 and "There are no cpu records yet" in done.output and "lower bound" in done.output
    )
