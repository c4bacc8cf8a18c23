"""Every registered method keeps the contract, and the contract notices methods that do not."""

from __future__ import annotations

import importlib.util
import re
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
from bench.interface import Facts
from bench.registry import builtin
from tests.contract import toys


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
    "reads a view that its recipe does not name": (
        START,
        START.replace("clone()", "clone() + 0.0 * task.features(POOLED, 'rrc(0.5)#0').sum()"),
        "runs",
        "name them in Recipe.support",
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


def test_logits_that_fail_on_validation_images_are_noticed(lab: Lab, tmp_path: Path) -> None:
    """Nothing is chosen on them, so the fit and its evaluation go through."""
    six = "if len(features[POOLED]) == 6:\n    raise RuntimeError('not six')"
    file = toys.write(tmp_path / "fussy.py", "fussy", {"recipe": "return Recipe()", "logits": six})
    registry, (method,) = checks.find(str(file))
    findings = [f for f in checks.check(method, registry, lab) if f.problem]
    assert {f.rule for f in findings} == {"logits of validation images"}
    assert all(f.problem == "no temperature could be fitted: RuntimeError: not six" for f in findings)


def invoke(*arguments: object) -> Result:
    app = typer.Typer()
    app.command("check-method")(check_method)
    app.add_typer(new.app, name="new")
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.mark.parametrize("kind", starter.KINDS)
def test_each_kind_of_starter_keeps_the_contract(kind: str, lab: Lab, tmp_path: Path) -> None:
    file, _ = starter.write(f"my-{kind}", tmp_path, kind)
    registry, (method,) = checks.find(str(file))
    findings = list(checks.check(method, registry, lab))
    assert {f.tower for f in findings} == {"rn", "vit"} and [f for f in findings if f.problem] == []
    recipe = method.recipe(method.settings, Facts(16, 10, 160, 10, "default", "rn", "paper"))
    assert (recipe.optim is None) == (kind == "solved")
    assert method.uses_prompts == (kind != "prompt")


@pytest.mark.parametrize("kind", starter.KINDS)
def test_a_starter_documents_itself(kind: str, tmp_path: Path) -> None:
    """In the form that the pages about methods are made of, and every setting with its meaning."""
    file, _ = starter.write(f"my-{kind}", tmp_path, kind)
    _, (method,) = checks.find(str(file))
    text = type(method).__doc__ or ""
    assert all(re.search(rf"^    {part}:", text, re.M) for part in ("Source", "Deviates", "Settings"))
    assert re.findall(r"^        (\w+): ", text, re.M) == list(method.settings)


@pytest.mark.slow
def test_new_method_writes_a_test_that_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("new", "method", "my-probe", "--kind", "solved")
    assert done.exit_code == 0 and "bench check-method my_probe.py" in done.output, done.output
    assert "the page 'Adding a method' says" in done.output and "papers.bib" in done.output
    written = importlib.util.spec_from_file_location("test_my_probe", tmp_path / "test_my_probe.py")
    assert written is not None and written.loader is not None
    module = importlib.util.module_from_spec(written)
    written.loader.exec_module(module)
    module.test_the_contract()
    again = invoke("new", "method", "my-probe")
    assert isinstance(again.exception, BenchError) and "exists" in str(again.exception)
    odd = invoke("new", "method", "my-cache", "--kind", "sovled")
    assert isinstance(odd.exception, BenchError) and "did you mean 'solved'" in str(odd.exception)
    both = invoke("new", "method", "my-cache", "--kind", "solved,trained")
    assert str(both.exception) == "--kind solved,trained: one kind at a time, as in --kind solved"
    assert sorted(p.name for p in tmp_path.glob("*.py")) == ["my_probe.py", "test_my_probe.py"]


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
    monkeypatch.chdir(tmp_path)
    done = invoke("new", "method", "my-cache", "--kind", "solved")
    steps = (
        "check-method my-cache",
        "methods/papers.bib",
        "docs/protocol",
        "CHANGELOG.md",
        "tests.docs.methods_page",
    )
    assert done.exit_code == 0 and all(step in done.output for step in steps), done.output


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("zero-shot", "already"),
        *((name, "cannot name a method") for name in ("2 much", "-a", "a-", "a--b", "a__b", "é", "a" * 65)),
        ("Class", "nothing could import it"),
        *((name, "hide the module") for name in ("json", "torch", "bench", "open-clip", "test")),
        *((name, "a test by pytest") for name in ("test-mine", "mine-test", "conftest")),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=word):
        starter.write(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_plus_in_a_name_is_spelled_out_in_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("new", "method", "x+y")
    assert done.exit_code == 0 and "--methods zero-shot,x+y" in done.output, done.output
    assert sorted(p.name for p in tmp_path.glob("*.py")) == ["test_x_plus_y.py", "x_plus_y.py"]
    _, (method,) = checks.find("x_plus_y.py")
    assert method.name == "x+y"


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
