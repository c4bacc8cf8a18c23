"""The mini-batch linear probe agrees with a plain PyTorch loop; its batches are legal (protocol 6.2)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError
from bench.interface import Facts, Recipe
from bench.train import rng
from tests.methods.support import batch_of, close, drive, make_task, method

K, C, N = 4, 6, 20


def facts(shots: int, n_classes: int, n_prompts: int) -> Facts:
    return Facts(shots, n_classes, shots * n_classes, n_prompts, "default", "rn", "paper")


def recipe(name: str, at: Facts, **changes: object) -> Recipe:
    probe = method(name)
    return probe.recipe({**probe.settings, **changes}, at)


def toy() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Raw image features, labels, and raw features of two prompts per class, of unequal length."""
    g = rng.generator(0, "linear probe test")
    x_NC = 3.0 * torch.randn(N, C, generator=g, dtype=torch.float64)
    raw_PC = torch.randn(2 * K, C, generator=g, dtype=torch.float64) * torch.linspace(0.5, 4, 2 * K)[:, None]
    return x_NC, torch.arange(N) % K, raw_PC.double()


@pytest.mark.parametrize("init", ["random", "zeroshot"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_steps_equal_a_plain_loop(init: str, replicas: int) -> None:
    x_NC, y_N, raw_PC = toy()
    probe = method("linear-probe-sgd")
    overrides = {"init": init, "lr": (3e-3,), "wd": (0.01,), "batch": (8,)}
    class_of = [k for k in range(K) for _ in range(2)]
    task = make_task(probe, y_N, raw_PC, class_of=class_of, scale=30.0, overrides=overrides)
    consts = probe.prepare(task)
    start = probe.init(task, consts, task.settings, rng.generator(1, "init"))
    rows = [torch.arange(8) + 3 * i for i in range(4)]
    trace = drive(
        probe,
        task,
        [batch_of(x_NC[r], y_N[r], i) for i, r in enumerate(rows)],
        start,
        epochs=12800,
        replicas=replicas,
    )

    W_KC = start["W_KC"].clone().requires_grad_()
    optimiser = torch.optim.AdamW([W_KC], lr=1.0, weight_decay=0.01)
    for i, r in enumerate(rows):
        optimiser.param_groups[0]["lr"] = 1e-5 if i == 0 else 3e-3 * i / 50
        loss = F.cross_entropy(30.0 * F.linear(F.normalize(x_NC[r]), W_KC), y_N[r])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert trace.losses[i]["loss"] == pytest.approx(loss.item(), rel=1e-12)
        close(trace.params[i]["W_KC"], W_KC.detach(), rtol=1e-12)


def test_starts() -> None:
    _, y_N, raw_PC = toy()
    class_of = [k for k in range(K) for _ in range(2)]
    random, zero_shot = method("linear-probe-sgd"), method("linear-probe-sgd-zs")
    task = make_task(random, y_N, raw_PC, class_of=class_of)
    consts = random.prepare(task)
    rows_KC = random.init(task, consts, random.settings, rng.generator(1, "init"))["W_KC"]
    assert float(rows_KC.abs().max()) <= C**-0.5
    assert not torch.equal(
        rows_KC, random.init(task, consts, random.settings, rng.generator(2, "init"))["W_KC"]
    )
    # Averaged raw, normalised once: not the classifier that averages unit rows.
    mean_KC = F.normalize(raw_PC.view(K, 2, C).mean(1))
    close(
        zero_shot.init(task, consts, zero_shot.settings, rng.generator(1, "init"))["W_KC"],
        mean_KC,
        rtol=1e-12,
    )
    assert float((mean_KC - task.W_KC).abs().max()) > 1e-2


def test_batch_sizes_must_be_smaller_than_the_set() -> None:
    # EuroSAT: 20 rows with their mirrors
    assert recipe("linear-probe-sgd", facts(1, 10, 10)).static == {"batch": (8,)}
    assert recipe("linear-probe-sgd", facts(1, 10, 10), augment="none").static == {"batch": (8,)}  # 8 < 10
    # 32 rows: a batch of 32 is refused
    assert recipe("linear-probe-sgd", facts(1, 16, 16)).static == {"batch": (8,)}
    assert recipe("linear-probe-sgd", facts(1, 17, 17)).static == {"batch": (8, 32)}
    # no published size is legal here
    assert recipe("linear-probe-sgd", facts(1, 2, 2)).static == {"batch": (3,)}


def test_published_budget() -> None:
    published = recipe("linear-probe-sgd", facts(16, 100, 100))
    assert (
        published.steps,
        published.check_every,
        len(published.grid["lr"]) * len(published.grid["wd"]),
    ) == (12800, 100, 6)
    assert len(published.static["batch"]) == 2 and published.select == "best"


def test_an_unknown_start_is_refused() -> None:
    with pytest.raises(BenchError, match="did you mean 'zeroshot'"):
        recipe("linear-probe-sgd", facts(1, 10, 10), init="zero-shot")
