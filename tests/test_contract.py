"""Every registered method keeps the contract, and the contract notices methods that do not."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from bench.cli import new
from bench.cli.check_method import check_method
from bench.contract import checks, starter
from bench.contract.lab import Lab, open_lab
from bench.errors import BenchError
from bench.registry import builtin


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_lab() as opened:
        yield opened


@pytest.mark.parametrize("name", builtin().names())
def test_method_keeps_the_contract(name: str, lab: Lab) -> None:
    registry = builtin()
    findings = list(checks.check(registry.get(name), registry, lab))
    assert [f for f in findings if f.problem] == []
    assert {f.tower for f in findings} == set(registry.get(name).towers) & set(lab.towers)


def test_no_method_file_is_broken() -> None:
    assert builtin().broken == []


ROWS = 'cosine_logits(features[POOLED], params["W_KC"], consts["scale"])\n'
LOSS = 'return {"loss": cross_entropy(cosine_logits(rows.x, params["W_KC"], consts["scale"]), rows.y)}'
START = 'return {"W_KC": task.W_KC.clone()}'
# What a careless change to the starter breaks: (the line, its replacement, the rule, a word of the report).
CARELESS = {
    "one column too many": (
        ROWS,
        f"torch.nn.functional.pad({ROWS[:-1]}, (0, 1))\n",
        "runs",
        "shape (9, 4) for 9 images and 3 classes",
    ),
    "not a number": (ROWS, f"float('nan') * {ROWS}", "runs", "diverged at every point"),
    "centred on its batch": (
        ROWS,
        ROWS.replace("features[POOLED]", "features[POOLED] - features[POOLED].mean(0)"),
        "images do not see each other",
        "one by one",
    ),
    "writes into the features": (
        ROWS,
        ROWS.replace("features[POOLED]", "features[POOLED].mul_(2.0)"),
        "runs",
        "logits of careless wrote into features.pooled",
    ),
    "writes into the task": (
        START,
        START.replace("clone()", "add_(0.1).clone()"),
        "runs",
        "init of careless wrote into task.W_KC",
    ),
    "its own dice": (
        START,
        START.replace("clone()", "clone() + torch.rand(1)"),
        "pure functions",
        "init returns another W_KC",
    ),
    "asks a tensor for its value": (
        LOSS,
        f"if float(params['W_KC'].sum()) > 0:\n            pass\n        {LOSS}",
        "runs",
        "vmap",
    ),
    "remembers its calls": (
        ROWS,
        f"self.__dict__.setdefault('n', []).append(1) or {ROWS[:-1]}.roll(len(self.n), 1)\n",
        "pure functions",
        "logits",
    ),
    "forgets a value": (
        'fixed={LR: settings["lr"][0]},',
        "",
        "other protocols",
        "Recipe.fixed has no value for lr",
    ),
    "sums over the rows of a piece": (
        LOSS,
        LOSS.replace("rows.y)}", "rows.y) * len(rows.y)}\n\n    micro = 2"),
        "batches in pieces as whole",
        "losses are means over",
    ),
    "stops": (LOSS, "raise ValueError('not yet')", "runs", "not yet"),
}


@pytest.mark.parametrize("kind", CARELESS)
def test_a_careless_method_is_noticed(kind: str, lab: Lab, tmp_path: Path) -> None:
    line, other, rule, word = CARELESS[kind]
    file, _ = starter.write("careless", tmp_path)
    text = file.read_text()
    assert text.count(line) == 1
    file.write_text(text.replace(line, other))
    registry, (method,) = checks.find(str(file))
    findings = [f for f in checks.check(method, registry, lab) if f.problem]
    assert {f.tower for f in findings} == {"rn", "vit"}
    assert all(
        any(f.rule == rule and word in f.problem for f in findings if f.tower == tower)
        for tower in ("rn", "vit")
    ), findings


def test_a_sweep_that_disagrees_is_noticed(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "sweeper.py"
    file.write_text(
        "from bench.methods.calip import Calip\n\n\n"
        "class Sweeper(Calip):\n    name = 'sweeper'\n    title = 'Sweeper'\n\n"
        "    def sweep(self, params, consts, features, values, grid):\n"
        "        for positions, logits in super().sweep(params, consts, features, values, grid):\n"
        "            yield positions, logits.flip(0)\n"
    )
    registry, (method,) = checks.find(str(file))
    assert {f.rule for f in checks.check(method, registry, lab) if f.problem} == {"sweep as logits"}


def invoke(*arguments: object) -> Result:
    app = typer.Typer()
    app.command("check-method")(check_method)
    app.add_typer(new.app, name="new")
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_new_method_writes_one_that_passes_its_own_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("new", "method", "my-probe")
    assert done.exit_code == 0 and "bench check-method my_probe.py" in done.output, done.output
    written = importlib.util.spec_from_file_location("test_my_probe", tmp_path / "test_my_probe.py")
    assert written is not None and written.loader is not None
    module = importlib.util.module_from_spec(written)
    written.loader.exec_module(module)
    module.test_the_contract()
    again = invoke("new", "method", "my-probe")
    assert isinstance(again.exception, BenchError) and "exists" in str(again.exception)


def test_in_a_checkout_the_two_files_go_where_methods_and_tests_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "tests").mkdir()
    monkeypatch.setattr(starter, "methods_dir", lambda: tmp_path / "methods")
    file, test = starter.write("My_Probe", tmp_path)
    assert (file, test) == (
        tmp_path / "methods" / "my_probe.py",
        tmp_path / "tests" / "methods" / "test_my_probe.py",
    )
    assert 'METHOD = "my-probe"' in test.read_text() and "Path" not in test.read_text()
    assert 'name = "my-probe"' in file.read_text() and "@" not in file.read_text()


@pytest.mark.parametrize(("name", "word"), [("zero-shot", "already"), ("2 much", "cannot name a method")])
def test_a_name_that_cannot_be_is_refused(name: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=word):
        starter.write(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_check_method_reports_and_fails(tmp_path: Path) -> None:
    done = invoke("check-method", "zero-shot")
    assert done.exit_code == 0 and "keeps the contract" in done.output and "vit  two classes" in done.output
    line, other, *_ = CARELESS["one column too many"]
    file, _ = starter.write("careless", tmp_path)
    file.write_text(file.read_text().replace(line, other))
    broken = invoke("check-method", file)
    assert broken.exit_code == 1 and "FAIL rn   runs" in broken.output
    missing = invoke("check-method", "zero-shoot")
    assert isinstance(missing.exception, BenchError) and "did you mean 'zero-shot'" in str(missing.exception)
