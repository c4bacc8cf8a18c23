"""The start of a run loads nothing that costs seconds and that no cell needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import process

# torch's compiler and what it brings, and what tables, figures, other methods and other towers need
UNWANTED = ("torch._dynamo", "torch._inductor", "triton", "torch.distributed.fsdp")
UNWANTED += (
    "sympy",
    "timm",
    "pandas",
    "scipy.stats",
    "scipy.optimize",
    "sklearn",
    "matplotlib",
    "transformers",
    "ray",
)
RUN = f"""
import sys
from bench.cli.app import app
app({{arguments}}, standalone_mode=False)
loaded = [name for name in {UNWANTED} if name in sys.modules]
import torch
state = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
print("loaded", loaded, "torch" in sys.modules, state)
"""


def _run(code: str, tmp_path: Path) -> str:
    env = os.environ | {"BENCH_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=900, env=env
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("methods", "loaded"), [("zero-shot", []), ("zero-shot,tip-adapter", ["scipy.optimize"])]
)
def test_a_run_loads_neither_the_compiler_nor_other_libraries(
    images: Path, tmp_path: Path, methods: str, loaded: list[str]
) -> None:
    """Only a fit with validation images loads the part of SciPy that finds its temperature."""
    arguments = ["run", "--methods", methods, "--datasets", str(images), "--shots", "1"]
    arguments += ["--backbone", "pocket-rn", "--seeds", "1", "--workers", "0", "--jobs", "1"]
    arguments += ["--results", str(tmp_path)]
    said = _run(RUN.format(arguments=arguments), tmp_path)
    assert said == f"loaded {loaded} True (True, False)"


@pytest.mark.slow
def test_putting_modes_back_loads_no_compiler(tmp_path: Path) -> None:
    code = """
import sys, torch
from bench import process
torch.set_deterministic_debug_mode("error")
torch.utils.deterministic.fill_uninitialized_memory = False
before = process.held()
torch.set_deterministic_debug_mode("default")
torch.utils.deterministic.fill_uninitialized_memory = True
names = process.put_back(before)
print(names, torch.are_deterministic_algorithms_enabled(),
      torch.utils.deterministic.fill_uninitialized_memory, "torch._inductor" in sys.modules)
"""
    assert _run(code, tmp_path) == '["torch\'s deterministic and TF32 modes"] True False False'


def test_every_deterministic_mode_is_put_back() -> None:
    """Off, warning and refusing, as torch itself tells them."""
    with process.kept():
        for mode in (0, 1, 2):
            torch.set_deterministic_debug_mode(mode)
            before = process.held(every=False)
            torch.set_deterministic_debug_mode((mode + 1) % 3)
            process.put_back(before)
            assert torch.get_deterministic_debug_mode() == mode
