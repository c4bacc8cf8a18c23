"""Random streams: fixed by (seed, purpose), and by nothing else."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch

from bench.train import rng


def test_same_purpose_same_numbers_other_purpose_others() -> None:
    draws = {
        purpose: torch.rand(4, generator=rng.generator(1, *purpose)).tolist()
        for purpose in [("init",), ("noise",), ("init", "image"), ("i", "nit")]
    }
    assert len({tuple(values) for values in draws.values()}) == len(draws)
    assert torch.rand(4, generator=rng.generator(1, "init")).tolist() == draws[("init",)]
    assert torch.rand(4, generator=rng.generator(2, "init")).tolist() != draws[("init",)]


def test_parts_of_a_purpose_stay_apart() -> None:
    purposes: list[tuple[str | int, ...]] = [("a", "bc"), ("ab", "c"), ("abc",), (1,), ("1",), ()]
    keys = [rng.key(1, *purpose) for purpose in purposes] + [rng.key(11)]
    assert len(set(keys)) == len(keys)


def test_global_generators_are_untouched() -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    torch.rand(3, generator=rng.generator(1, "x"))
    rng.numpy_generator(1, "x").random(3)
    assert torch.equal(torch_before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # type: ignore[index]


def test_keys_are_pinned() -> None:
    """A change here changes every order and every initialisation, hence every trained number."""
    assert rng.key(1, "batches", "image") == 67263813791767337677195672389539807178
    assert rng.numpy_generator(1, "batches").bit_generator.random_raw(1)[0] == 17833587697204820947


def test_importing_the_parts_leaves_torch_alone() -> None:
    code = (
        "import sys, bench.train.rng, bench.train.batches, bench.train.schedule, bench.train.optim as o; "
        "import bench.interface as i; o.bytes_per_parameter(i.OptimSpec('sgd')); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
