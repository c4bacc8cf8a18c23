"""An edited plugin never gets old records: the source that runs is the one that its key names, helpers
included.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import registry
from bench.errors import BenchError
from bench.executors import processes
from bench.executors.worker import check_plan
from bench.plan.cells import Plan
from bench.plan.planner import make
from bench.plan.request import Request
from bench.records import store
from bench.records.types import EvaluationRecord, Failure, FitRecord
from tests.run.conftest import Bench, of_type

ALONE = """
from bench.interface import Method

CHOSEN = {chosen}


class {cls}(Method):
    name = "{name}"
    title = "Always one class"

    def logits(self, params, consts, features, values):
        logits = features["pooled"] @ consts["W_KC"].T
        logits[:, CHOSEN] = logits.max() + 1
        return logits
"""

# Reads what it says from a module beside it.
WITH_HELPER = """
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))

from bench.interface import Method

import {helper}


class {cls}(Method):
    name = "{name}"
    title = "One class, by a helper"

    def logits(self, params, consts, features, values):
        return {helper}.favour(features["pooled"] @ consts["W_KC"].T)
"""

HELPER = """
def favour(logits):
    logits[:, {chosen}] = logits.max() + 1
    return logits
"""

# The same, but the import runs with the first logits.
LATE_HELPER = WITH_HELPER.replace("\nimport {helper}\n", "").replace(
    "      return", "      import {helper}\n\n        return"
)


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the plugins here put into the module search path goes with the test, and so do their modules."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("helper_", "bench.methods.plugin_")):
            del sys.modules[name]


def chosen(results: Path) -> list[int]:
    """The one class that every recorded evaluation predicted, in the order in which they were made."""
    found = {}
    for path, record in store.every(results):
        if isinstance(record, EvaluationRecord):
            top1 = np.unique(store.predictions(path)["top1"])
            assert len(top1) == 1
            found[record.provenance.order] = int(top1[0])
    return [found[order] for order in sorted(found)]


def test_an_edited_plugin_is_measured_anew(bench: Bench, tmp_path: Path) -> None:
    """Under the same version and in the same process; with the old source back there is nothing to run."""
    plugin, results = tmp_path / "plugin_edited.py", tmp_path / "r"
    arguments = ("--methods", "edited", "--plugin", plugin, "--results", results, "--jobs", "1")
    first = ALONE.format(cls="Edited", name="edited", chosen=0)
    plugin.write_text(first)
    assert "1 fit, 1 evaluation," in bench("run", *arguments).output
    assert "1 cell was recorded before" in bench("run", *arguments).output

    plugin.write_text(first.replace("CHOSEN = 0", "CHOSEN = 2  # edited"))
    why = bench("run", *arguments, "--dry-run", "--why").output
    line = next(line for line in why.splitlines() if "stale" in line)
    assert re.search(r"edited shapes .*: stale: source \w{21}\.\.\. -> \w{21}\.\.\.$", line), (
        "nothing else has changed"
    )
    edited = bench("run", *arguments)
    assert "1 fit, 1 evaluation," in edited.output and "recorded before" in edited.output
    assert "1 cell was recorded before" not in edited.output
    assert "1 cell was recorded before" in bench("run", *arguments).output
    assert chosen(results) == [0, 2]
    fits = of_type(results, FitRecord)
    assert len({f.parts.source for f in fits}) == 2 and {f.parts.version for f in fits} == {1}

    plugin.write_text(first)
    assert "1 cell was recorded before" in bench("run", *arguments).output


def test_the_table_shows_the_edited_plugin(bench: Bench, tmp_path: Path) -> None:
    plugin, results = tmp_path / "plugin_tabled.py", tmp_path / "r"
    text = (
        "from bench.interface import Method\n\n\n"
        "class Tabled(Method):\n    name = 'tabled'\n    title = 'Tabled'\n\n"
        "    def logits(self, params, consts, features, values):\n"
        "        return SIGN * features['pooled'] @ consts['W_KC'].T\n"
    )

    def accuracy(sign: int) -> float:
        plugin.write_text(text.replace("SIGN", str(sign)))
        assert (
            bench(
                "run", "--methods", "tabled", "--plugin", plugin, "--results", results, "--jobs", "1"
            ).exit_code
            == 0
        )
        table = bench("table", "--results", results, "--format", "csv").output
        return float(re.findall(r"^tabled,2,([\d.]+)", table, re.MULTILINE)[0])

    right, wrong = accuracy(1), accuracy(-1)
    recorded = sorted(of_type(results, EvaluationRecord), key=lambda r: r.provenance.order)
    assert [round(100 * r.top1, 1) for r in recorded] == [round(right, 1), round(wrong, 1)]
    assert right != wrong


@pytest.mark.parametrize("text", [WITH_HELPER, LATE_HELPER], ids=["at the top", "in a function"])
def test_an_edited_helper_is_what_runs(bench: Bench, tmp_path: Path, text: str) -> None:
    name = "helper_early" if text is WITH_HELPER else "helper_late"
    plugin, helper, results = tmp_path / f"plugin_of_{name}.py", tmp_path / f"{name}.py", tmp_path / "r"
    plugin.write_text(text.format(cls="Helped", name="helped", helper=name))
    arguments = ("--methods", "helped", "--plugin", plugin, "--results", results, "--jobs", "1")
    helper.write_text(HELPER.format(chosen=0))
    assert "1 fit," in bench("run", *arguments).output
    assert "1 cell was recorded before" in bench("run", *arguments).output

    helper.write_text("# edited\n" + HELPER.format(chosen=1))
    assert re.search(
        r"stale: source \w+\.\.\. -> \w+\.\.\.\n", bench("run", *arguments, "--dry-run", "--why").output
    )
    assert "1 fit," in bench("run", *arguments).output
    assert chosen(results) == [0, 1]

    (tmp_path / "unrelated.py").write_text("x = 1\n")
    assert "1 cell was recorded before" in bench("run", *arguments).output


def test_a_helper_of_a_helper(bench: Bench, tmp_path: Path) -> None:
    """The one between is not edited, and yet is loaded again: it holds what the edited one had given it."""
    plugin, results = tmp_path / "plugin_of_three.py", tmp_path / "r"
    plugin.write_text(WITH_HELPER.format(cls="OfThree", name="of-three", helper="helper_outer"))
    (tmp_path / "helper_outer.py").write_text("from helper_inner import favour\n")
    arguments = ("--methods", "of-three", "--plugin", plugin, "--results", results, "--jobs", "1")
    for i in range(3):
        (tmp_path / "helper_inner.py").write_text("#" * i + HELPER.format(chosen=i))
        assert "1 fit," in bench("run", *arguments).output
    assert chosen(results) == [0, 1, 2]


@pytest.mark.slow
def test_workers_run_the_edited_helper(bench: Bench, tmp_path: Path) -> None:
    plugin, helper, results = (
        tmp_path / "plugin_of_workers.py",
        tmp_path / "helper_workers.py",
        tmp_path / "r",
    )
    plugin.write_text(WITH_HELPER.format(cls="Spread", name="spread", helper="helper_workers"))
    arguments = ("--methods", "spread", "--plugin", plugin, "--results", results)
    helper.write_text(HELPER.format(chosen=0))
    assert bench("run", *arguments, "--jobs", "1").exit_code == 0
    helper.write_text("# edited\n" + HELPER.format(chosen=1))
    done = bench("run", *arguments, "--jobs", "2")
    assert done.exit_code == 0 and "1 fit," in done.output, done.output
    assert chosen(results) == [0, 1]


def test_an_edit_that_leaves_size_and_second_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    plugin, helper = tmp_path / "plugin_of_twin.py", tmp_path / "helper_twin.py"
    plugin.write_text(
        WITH_HELPER.format(cls="Twin", name="twin", helper="helper_twin") + "    held = helper_twin.HELD\n"
    )

    def loaded(value: int) -> tuple[str, int]:
        helper.write_text(f"HELD = {value}\n")
        os.utime(helper, (1_700_000_000, 1_700_000_000))
        found = registry.with_plugins((plugin,))
        held: int = vars(type(found.get("twin")))["held"]
        return found.digests["twin"], held

    (first, one), (second, two) = loaded(1), loaded(2)
    assert first != second
    assert (one, two) == (1, 2)


def test_two_plugins_share_a_helper(tmp_path: Path) -> None:
    """Loading one does not leave the other with a key that is not its source's."""
    helper = tmp_path / "helper_shared.py"
    plugins = []
    for name in ("left", "right"):
        plugins.append(tmp_path / f"plugin_{name}.py")
        plugins[-1].write_text(
            WITH_HELPER.format(cls=name.title(), name=f"shared-{name}", helper="helper_shared")
        )
    digests = []
    for i in range(2):
        helper.write_text("#" * i + HELPER.format(chosen=i))
        found = registry.with_plugins(tuple(plugins))
        digests.append({found.digests[key] for key in found.digests if key.startswith("shared")})
        for name in ("left", "right"):
            module = sys.modules[type(found.get(f"shared-{name}")).__module__]
            favoured = module.helper_shared.favour(np.zeros((1, 3)))
            assert favoured.argmax() == i
    assert len(digests[0]) == len(digests[1]) == 2 and not digests[0] & digests[1]


def test_helpers_of_one_name_in_two_folders(tmp_path: Path) -> None:
    """Python has one module of a name: either each plugin gets its own, or the second is refused; never the
    other's.
    """
    plugins = []
    for i, name in enumerate(("east", "west")):
        (tmp_path / name).mkdir()
        plugins.append(tmp_path / name / f"plugin_{name}.py")
        plugins[-1].write_text(WITH_HELPER.format(cls=name.title(), name=name, helper="helper_namesake"))
        (tmp_path / name / "helper_namesake.py").write_text(HELPER.format(chosen=i))
    try:
        found = registry.with_plugins(tuple(plugins))
    except BenchError as error:
        assert "helper_namesake" in str(error)
        return
    for i, name in enumerate(("east", "west")):
        module = sys.modules[type(found.get(name)).__module__]
        assert module.helper_namesake.favour(np.zeros((1, 3))).argmax() == i


def test_an_unchanged_plugin_is_loaded_once(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin_once.py"
    plugin.write_text(ALONE.format(cls="Once", name="once", chosen=0))
    first = registry.with_plugins((plugin,)).get("once")
    assert type(registry.with_plugins((plugin,)).get("once")) is type(first)
    plugin.write_text(ALONE.format(cls="Once", name="once", chosen=1))
    assert type(registry.with_plugins((plugin,)).get("once")) is not type(first)


def test_a_plugin_that_is_mended_loads(tmp_path: Path) -> None:
    """One that did not import leaves nothing behind that keeps the mended one from loading."""
    plugin = tmp_path / "plugin_mended.py"
    plugin.write_text("import no_such_module_anywhere\n")
    with pytest.raises(BenchError, match=r"cannot be imported: ModuleNotFoundError"):
        registry.with_plugins((plugin,))
    plugin.write_text(ALONE.format(cls="Mended", name="mended", chosen=0))
    assert registry.with_plugins((plugin,)).get("mended").title == "Always one class"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"# caf\xe9\n", r"not UTF-8 text \(byte 5 is 0xe9\): save it as UTF-8"),
        ("name = 'x'".encode("utf-16"), r"not UTF-8 text \(byte 0 is 0xff\): save it as UTF-8"),
        ("name = 'x'".encode("utf-16-le"), "holds zero bytes, as UTF-16 text does"),
        (b"# coding: nope\n", "SyntaxError: unknown encoding: nope"),
        (b"class X(:\n", r"SyntaxError: invalid syntax \(plugin_bytes.py, line 1\)"),
        (b"# coding: latin-1\n# caf\xe9\n", "no method in it"),
    ],
)
def test_bytes_that_are_no_text_are_said(data: bytes, says: str, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin_bytes.py"
    plugin.write_bytes(data)
    with pytest.raises(BenchError, match=says):
        registry.with_plugins((plugin,))


def test_a_module_of_a_plugin_is_named_where_it_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "helper_bytes.py").write_bytes(b"# caf\xe9\n")
    (tmp_path / "plugin_helped.py").write_text("import helper_bytes\n")
    with pytest.raises(BenchError, match=r"helper_bytes.py: not UTF-8 text"):
        registry.with_plugins((tmp_path / "plugin_helped.py",))


def planned(images: Path, results: Path, method: str, *plugins: Path) -> Plan:
    """The plan of one method on the tiny images."""
    request = Request((method,), (str(images),), (2,), (1,), ("pocket-rn",), results=results)
    return make(request, registry.with_plugins(plugins))


def test_the_key_of_a_built_in_method_has_no_source(images: Path, tmp_path: Path) -> None:
    """Its version stands for it; the digest of a plugin is in its own key only."""
    plugin = tmp_path / "plugin_keyed.py"
    plugin.write_text(ALONE.format(cls="Keyed", name="keyed", chosen=0))
    built_in = planned(images, tmp_path, "safe-a", plugin)
    assert {fit.cell.method for fit in built_in.fits} == {"safe", "safe-a"}
    assert {fit.parts.source for fit in built_in.fits} == {""}
    assert {fit.parts.source for fit in planned(images, tmp_path, "keyed", plugin).fits} == {
        registry.with_plugins((plugin,)).digests["keyed"]
    }
    assert set(registry.builtin().digests.values()) == {""}


def test_a_plugin_elsewhere_has_the_same_key(images: Path, tmp_path: Path) -> None:
    keys = set()
    for folder in ("here", "there"):
        plugin = tmp_path / folder / "plugin_moved.py"
        plugin.parent.mkdir()
        plugin.write_text(ALONE.format(cls="Moved", name="moved", chosen=0))
        keys |= {fit.key for fit in planned(images, tmp_path, "moved", plugin).fits}
    assert len(keys) == 1


def test_cells_that_no_plan_has_any_more(images: Path, tmp_path: Path) -> None:
    """A worker makes its plan anew; where a plugin was edited meanwhile, it says so and runs nothing."""
    plugin = tmp_path / "plugin_raced.py"
    plugin.write_text(ALONE.format(cls="Raced", name="raced", chosen=0))
    before = planned(images, tmp_path, "raced", plugin)
    keys = frozenset(fit.key for fit in before.fits)
    check_plan(before, keys)
    check_plan(before, frozenset())
    plugin.write_text(ALONE.format(cls="Raced", name="raced", chosen=1))
    after = planned(images, tmp_path, "raced", plugin)
    with pytest.raises(
        BenchError, match="the keys of 1 cell have changed: a plugin or a dataset was changed during the run"
    ):
        check_plan(after, keys)
    with pytest.raises(BenchError, match="1 cell"):
        check_plan(after, keys | {fit.key for fit in after.fits})


@pytest.mark.slow
def test_a_plugin_that_is_edited_while_workers_start(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cells that the parent asked for fail with the reason, and a second run measures the plugin as it is
    now.
    """
    plugin, results = tmp_path / "plugin_late.py", tmp_path / "r"
    plugin.write_text(ALONE.format(cls="Late", name="late", chosen=0))
    original = processes.Processes.__init__

    def edited(self: processes.Processes, *given: Any, **named: Any) -> None:
        plugin.write_text("# edited\n" + ALONE.format(cls="Late", name="late", chosen=2))
        original(self, *given, **named)

    monkeypatch.setattr(processes.Processes, "__init__", edited)
    arguments = ("--methods", "late", "--plugin", plugin, "--results", results)
    done = bench("run", *arguments, "--jobs", "2")
    assert done.exit_code == 1
    assert "a plugin or a dataset was changed during the run; run the same command again" in done.output
    assert not of_type(results, EvaluationRecord) and [f.stage for f in of_type(results, Failure)] == ["fit"]
    assert bench("run", *arguments, "--jobs", "1").exit_code == 0
    assert chosen(results) == [2]
