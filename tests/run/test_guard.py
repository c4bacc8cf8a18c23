"""An impure or violent method fails alone, and its neighbours keep their numbers to the bit."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.records.types import Failure
from tests.contract import toys
from tests.run.conftest import Bench, of_type, records

# By name: the function, what it does first, and what its failure says; None: it is harmless to others.
ROGUES = {
    "w-by-copy": ("solve", "task.W_KC.copy_(torch.zeros(()))", "solve of w-by-copy wrote into task.W_KC"),
    "w-by-data": ("solve", "task.W_KC.data.zero_()", None),
    "w-by-numpy": ("prepare", "task.W_KC.numpy()[:] = 0.5", None),
    "texts": ("prepare", "task.text.raw_PC.zero_()", "prepare of texts wrote into task.text.raw_PC"),
    "labels": ("init", "task.labels_N.zero_()", "init of labels wrote into task.labels_N"),
    "features": (
        "logits",
        "features[POOLED].zero_()",
        "logits of features wrote into features.pooled",
    ),
    "constants": (
        "losses",
        "consts['W_KC'].zero_()",
        "losses or combine of constants wrote into constants.W_KC",
    ),
    "the-head": (
        "solve",
        "for p in task.head.params.values(): p.data.add_(1.0)",
        "changed task.head (head.",
    ),
    "the-tower": (
        "prepare",
        "for p in task.backbone.model.parameters(): p.data.mul_(0.5)",
        "changed task.backbone (",
    ),
    "dtype": ("solve", "torch.set_default_dtype(torch.float64)", "changed torch's default dtype in its fit"),
    "seed": ("init", "torch.manual_seed(3)", "changed torch's global random generator in its fit"),
    "dice": ("prepare", "np.random.rand()", "changed NumPy's global random generator in prepare"),
    "threads": ("logits", "torch.set_num_threads(2)", "changed torch's number of threads in its evaluation"),
    "loose": (
        "prepare",
        "torch.use_deterministic_algorithms(False)",
        "changed torch's deterministic and TF32 modes",
    ),
    "flush": ("solve", "torch.set_flush_denormal(False)", "changed how the processor rounds tiny numbers"),
    "environment": ("solve", "os.environ['HOME'] = '/nowhere'", "changed the environment"),
    "errors": ("solve", "np.seterr(all='raise')", "changed NumPy's handling of errors"),
    "filters": ("solve", "warnings.simplefilter('error')", None),
    "patch": (
        "solve",
        "torch.Tensor.relu = lambda self: self",
        "changed torch.Tensor.relu in its fit",
    ),
    "leaves": ("solve", "raise SystemExit(0)", "raised SystemExit in its fit, which would end the whole run"),
    "memory": ("prepare", "raise MemoryError", "not enough memory"),
    "deep": ("solve", "return self.solve(task, consts, values)", "RecursionError: maximum recursion depth"),
    "generator": ("logits", "raise GeneratorExit", "raised GeneratorExit in its evaluation"),
    "several": (
        "solve",
        "raise ExceptionGroup('two', [ValueError('one thing'), KeyError('another')])",
        "ExceptionGroup: two (2 sub-exceptions); ValueError: one thing",
    ),
    "mute": (
        "solve",
        "raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0, '__slots__': ()})",
        "Mute: (its text fails with ZeroDivisionError)",
    ),
    "wordless": ("solve", "raise ValueError", "ValueError"),
    "endless": ("solve", "raise ValueError('x' * 3_000_000)", "ValueError: xxx"),
    "shape": ("logits", "return torch.zeros(3, 2)", "has shape (3, 2) for 15 images and 3 classes"),
    "kind": ("logits", "return torch.zeros(15, 3).long()", "logits of kind gives torch.int64, not"),
    "nothing": ("solve", "return None", "solve of nothing gives NoneType, not tensors by name"),
    "words": ("solve", "return {'bias_K': 'none'}", "solve of words: 'bias_K' is str, not a tensor"),
}
JOINED = {
    "exits-in-init": ("init", "raise SystemExit(0)", "raised SystemExit in its fit"),
    "exits-in-losses": ("losses", "raise SystemExit(0)", "raised SystemExit in its fit"),
    "threads-in-init": ("init", "torch.set_num_threads(2)", "changed torch's number of threads in its fit"),
}
TRAINED = ("init", "losses", "combine")
HEALTHY = "tip-adapter,zero-shot,safe"
PLAN = {  # what goes wrong while planning: those cells are blocked
    "exits-in-recipe": ("recipe", "raise SystemExit(0)", "recipe of exits-in-recipe fails: SystemExit: 0"),
    "no-recipe": ("recipe", "return None", "recipe of no-recipe gives NoneType, not a Recipe"),
    "odd-recipe": ("recipe", "return Recipe(grid={LR: object()})", "recipe of odd-recipe fails"),
    "seeds-in-recipe": ("recipe", "random.seed(1)", "changed Python's global random generator"),
    "patch-in-recipe": ("recipe", "torch.Tensor.relu = None", "changed torch.Tensor.relu; it was put back"),
    "odd-text": ("learned_text", "return 3", "learned_text of odd-text gives int"),
}


def everybodys() -> list[object]:
    """Some of what the rogues change for the whole process."""
    modes = [torch.get_default_dtype(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()]
    return [
        *modes,
        os.environ["HOME"],
        np.geterr(),
        warnings.filters[0],
        torch.Tensor.relu,
        sys.float_info.min * 0.5 > 0,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("join", [False, True])
def test_a_rogue_spoils_only_itself(join: bool, bench: Bench, tmp_path: Path) -> None:
    """One by one, and where those that train are fitted with the other seed."""
    common: tuple[object, ...] = ("run", "--jobs", "1", "--keep-states", "all")
    rogues = dict(ROGUES)
    if join:
        common = (*common, "--join", "--seeds", "1,2")
        rogues = {name: rogue for name, rogue in ROGUES.items() if rogue[0] in TRAINED} | JOINED
    healthy = "safe" if join else HEALTHY
    whole = bench(*common, "--methods", healthy, "--results", tmp_path / "healthy")
    assert whole.exit_code == 0, whole.output
    plugins: list[object] = []
    planned = {} if join else PLAN
    for name, (function, line, _) in {**rogues, **planned}.items():
        # without a search, logits are first asked for at the evaluation
        lines = {function: line} | ({"recipe": "return Recipe()"} if function == "logits" else {})
        plugins += ["--plugin", toys.write(tmp_path / f"{name.replace('-', '_')}.py", name, lines)]
    process = everybodys()
    names = [*rogues, *planned]
    results = tmp_path / "mixed"
    # a rogue before every healthy method, and many in between
    order = ",".join([*names[:20], "safe", *names[20:], *healthy.split(",")])
    run = bench(*common, "--methods", order, "--results", results, *plugins)
    assert run.exit_code == 1, run.output
    assert everybodys() == process
    failed = of_type(results, Failure)
    assert {f.cell.method for f in failed} == {name for name, (*_, said) in rogues.items() if said}
    assert len(failed) == len({(f.cell.method, f.cell.seed) for f in failed})
    for failure in failed:
        name = failure.cell.method
        said = rogues[name][2]
        assert said is not None and said in failure.error, (name, failure.error)
        assert ("random generator" in failure.error) == ("random generator" in said), failure.error
        assert failure.stage == ("evaluate" if rogues[name][0] == "logits" else failure.stage)
        assert len(failure.error) <= 2_000 and len(failure.traceback) <= 21_000
    for name, (*_, said) in planned.items():
        assert f"blocked: {name} on shapes" in run.output and said in run.output, run.output
    before, after = records(tmp_path / "healthy"), records(results)
    assert before.keys() <= after.keys()
    assert [name for name in before if before[name] != after[name]] == []


@pytest.mark.parametrize("reads", ["state", "batch"])
def test_what_a_neighbour_reads_next(reads: str, bench: Bench, tmp_path: Path) -> None:
    """A state that a method builds on, and a batch of streamed features, are what they were."""
    line = {
        "state": "params['bias_K'].data.add_(torch.tensor([9.0, 0.0, 0.0]))",
        "batch": "features[DENSE].zero_()",
    }
    plugin, lines = tmp_path / "below.py", {"recipe": "return Recipe()", "logits": line["state"]}
    toys.write(plugin, "below", lines if reads == "state" else {})
    text = plugin.read_text()
    if reads == "state":
        text += (
            "\n\nclass Above(Toy):\n    name = 'above'\n    after = ('below',)\n\n"
            "    def solve(self, task, consts, values):\n"
            "        return dict(task.states['below'].params)\n\n"
            "    def logits(self, params, consts, features, values):\n"
            "        assert not params['bias_K'].any(), 'spoilt'\n"
            "        return params['bias_K'] + features[POOLED] @ consts['W_KC'].T\n"
        )
        plugin.write_text(text)
        run = bench(
            "run", "--methods", "below,above", "--plugin", plugin, "--results", tmp_path / "r", "--jobs", "1"
        )
        assert run.exit_code == 0, run.output
        return
    text = text.replace("    name = 'below'", "    name = 'below'\n    taps = ('dense', 'pooled')")
    text = text.replace(
        "        return params['bias_K']",
        f"        {line['batch'].replace('DENSE', repr('dense'))}\n        return params['bias_K']",
    )
    plugin.write_text(text)
    streamed = ("run", "--no-dense-cache", "--jobs", "1")
    assert bench(*streamed, "--methods", "safe", "--results", tmp_path / "a").exit_code == 0
    run = bench(*streamed, "--methods", "below,safe", "--plugin", plugin, "--results", tmp_path / "b")
    assert run.exit_code == 1
    assert [f.cell.method for f in of_type(tmp_path / "b", Failure)] == ["below"]
    before, after = records(tmp_path / "a"), records(tmp_path / "b")
    assert [name for name in before if before[name] != after[name]] == []
