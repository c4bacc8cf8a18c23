"""Functions that somebody replaces for everybody are noticed and put back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import bench.interface
from bench import replaced
from bench.errors import BenchError
from bench.registry import builtin, with_plugins

TOY = """
import numpy as np
import torch
import bench.interface as I
import bench.data.fewshot as fewshot
from bench.methods.tip_adapter import TipAdapter


class Toy(I.Method):
    name = "toy"
    title = "Toy"


"""
# What a plugin does when it is imported, one for each kind of owner.
PATCHES = {
    "torch.sign = torch.abs": "torch.sign",
    "torch.Tensor.norm = lambda self, *a, **k: self": "torch.Tensor.norm",
    "torch.Tensor.relu = None": "torch.Tensor.relu",
    "torch.nn.functional.normalize = lambda x, **k: x": "torch.nn.functional.normalize",
    "np.random.default_rng = lambda seed: None": "numpy.random.default_rng",
    "I.unit = lambda x: x.sign()": "bench.interface.unit",
    "fewshot.draw = lambda *a: None": "bench.data.fewshot.draw",
    "I.Method.sweep = Toy.logits": "bench.interface.Method.sweep",
    "TipAdapter.logits = lambda self, *a: None": "bench.methods.tip_adapter.TipAdapter.logits",
    "TipAdapter.recipe = TipAdapter.prepare": "bench.methods.tip_adapter.TipAdapter.recipe",
    "del I.unit": "bench.interface.unit",
}


def test_classes_of_equal_names_are_all_looked_at() -> None:
    """A file that is loaded again makes its classes anew, and both are there."""
    first, second = (type("Twin", (), {"act": lambda self: None}) for _ in range(2))
    names = replaced.Names()
    names.add([("Twin", first), ("Twin", second)])
    for cls in (first, second):
        before = names.held()
        cls.act = None  # type: ignore[attr-defined]
        assert replaced.put_back(before) == ["Twin.act"] and cls.act is not None  # type: ignore[attr-defined]


def everybodys() -> list[object]:
    here = (torch.sign, torch.Tensor.norm, torch.Tensor.relu, torch.nn.functional.normalize)
    return [*here, np.random.default_rng, bench.interface.unit, bench.interface.Method.sweep]


@pytest.mark.parametrize("line", PATCHES)
def test_a_patch_at_import(line: str, tmp_path: Path) -> None:
    builtin()
    before = everybodys()
    file = tmp_path / "toy.py"
    file.write_text(TOY + line)
    with pytest.raises(BenchError, match="it was put back: take that out of the file") as error:
        with_plugins((file,))
    assert f"importing it changes {PATCHES[line]} for all methods" in str(error.value)
    assert [x is y for x, y in zip(before, everybodys(), strict=True)] == [True] * len(before)
    file.write_text(TOY)
    assert with_plugins((file,)).get("toy")


FIRST = """
import sys
from pathlib import Path
from bench.registry import with_plugins
assert "torch" not in sys.modules and "bench.data.fewshot" not in sys.modules
for file in sys.argv[1:]:
    try:
        with_plugins((Path(file),))
    except ValueError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_patch_by_the_first_that_imports_a_module(tmp_path: Path) -> None:
    """A library is looked at when it is there, before whoever asked for it can replace anything."""
    lines = [*PATCHES][:7]
    (tmp_path / "toy.py").write_text(TOY + "\n".join(lines))
    run = [sys.executable, "-c", FIRST, str(tmp_path / "toy.py")]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "and 4 more for all methods" in done.stdout and "torch.Tensor.relu" in done.stdout, done.stdout


def test_a_name_that_hides_an_inherited_one() -> None:
    class Base:
        def one(self) -> int:
            return 1

    class Below(Base):
        pass

    names = replaced.Names()
    names.add([("Below", Below)])
    before = names.held()
    Below.new = lambda self: 3  # type: ignore[attr-defined]
    Below.one = lambda self: 2  # type: ignore[method-assign,assignment]
    assert replaced.put_back(before) == ["Below.one"] and Below().one() == 1
    assert replaced.put_back(before) == []


def test_replaced_functions() -> None:
    def one() -> int:
        return 1

    def two() -> int:
        return 2

    owner = SimpleNamespace(one=one, two=two, number=3)
    names = replaced.Names()
    names.add([("owner", owner)])
    before = names.held()
    owner.new, owner.number = one, 4
    assert replaced.put_back(before) == []
    owner.one = two
    del owner.two
    assert replaced.put_back(before) == ["owner.one", "owner.two"]
    assert (owner.one, owner.two) == (one, two) and replaced.put_back(before) == []
