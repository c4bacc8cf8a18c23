"""Shell completion through its own protocol: what bash would offer, quickly and without a word besides."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from bench.cli import complete, main
from bench.cli.app import app
from bench.cli.asked import EXECUTORS
from bench.data import catalog
from bench.errors import BenchError
from bench.explain import parts
from bench.names import KEEP_STATES
from bench.prompts import SETS
from bench.records.keys import PRECISIONS
from bench.registry import builtin
from bench.report import render
from bench.report.gate import view
from bench.report.gate.check import RULES

BETA = str(builtin().get("safe").settings["beta"])
MAIN = "import sys; sys.argv[0] = 'bench'; from bench.cli import main; main()"


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """What bash offers after the words of an unfinished command, the last of which may be empty."""

    def ask(*words: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["bench"])
        monkeypatch.setenv("_BENCH_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(["bench", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert end.value.code == 0 and said.err == ""
        return said.out.split()

    return ask


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["tab"], ["table"]),
        (["data", "ver"], ["verify"]),
        (["run", "--shot"], ["--shots"]),
        (
            ["run", "--methods", "zero-shot,sa"],
            ["zero-shot,safe", "zero-shot,safe-a", "zero-shot,safe-layer4"],
        ),
        (["run", "--methods", "safe-a,safe-"], ["safe-a,safe-layer4"]),  # none twice
        (["run", "--methods", ""], builtin().names()),
        (["run", "--datasets", "digits,emoji-s"], ["digits,emoji-sketch"]),
        (["run", "--datasets", "./pho"], []),  # the shell offers files
        (["run", "--backbone", "pocket-rn,pocket"], ["pocket-rn,pocket-vit"]),
        (["run", "--prompts", "hand,mi"], ["hand,mined", "hand,mined-val"]),
        (["run", "--prompts", ""], list(SETS)),
        (["run", "--suite", "pocket-s"], ["pocket-slow"]),
        (["run", "--protocol", "eq"], ["equal-budget"]),
        (["run", "--preset", "q"], ["quick"]),
        # Two words that begin alike: with one alone, the shell would put a blank behind the "=".
        (["run", "--set", "safe.bet"], ["safe.beta=", f"safe.beta={BETA}"]),
        (["run", "--sweep", "safe.bet"], ["safe.beta=", f"safe.beta={BETA}"]),
        (["run", "--set", "gda.nope"], []),
        (["run", "--shots", "1", "--shots", "2", "--preset", "q"], ["quick"]),  # a usage error, were it run
        (["plot", "c"], ["cd", "confusion"]),
        (["plot", "sweep", "--setting", "safe.bet"], ["safe.beta"]),
        (["table", "--against", "x", "--methods", "gd"], ["gda"]),
        (["compare", "safe", "tip-adapter-"], ["tip-adapter-f"]),
        (["new", "method", "x", "--kind", "so"], ["solved"]),
        (["records", "--remove", "stale,"], ["stale,orphaned"]),
        (["run", "--keep-states", ""], list(KEEP_STATES)),
        (["run", "--precision", ""], ["auto", *PRECISIONS]),
        (["run", "--executor", ""], list(EXECUTORS)),
        (["check", "--precision", ""], list(PRECISIONS)),
        (["check", "--rule", ""], list(RULES)),
        (["check", "--format", ""], list(view.FORMATS)),
        (["list", "settings", "safe", "--format", ""], ["text", "json"]),
        (["cache", "list", "--format", "j"], ["json"]),
        (["table", "--format", ""], list(render.FORMATS)),
        (["table", "--against", "p"], ["paper"]),
        (["table", "--against", "gda"], ["gda-log"]),
        (["explain", "shapley", "--value", ""], list(parts.VALUES)),
        (["explain", "shapley", "--fill", ""], list(parts.FILLS)),
        (["check-method", "tip-adapter-"], ["tip-adapter-f"]),
        (["data", "status", "digits", "emoji-s"], ["emoji-sketch"]),
        (["nope", "tab"], ["table"]),  # as if the misspelt word were not there
        (["run", "--nope", ""], []),
    ],
    ids=lambda value: " ".join(value[:4]),
)
def test_what_bash_offers(words: list[str], names: list[str], offered: Any) -> None:
    assert sorted(offered(*words)) == sorted(names)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("run --methods = saf", ["safe", "safe-a", "safe-layer4"]),
        ("run --methods = safe-a,safe-", ["safe-a,safe-layer4"]),
        ("run --methods = safe --datasets = digi", ["digits"]),
        ("run --methods =", builtin().names()),
        ("run --set safe.beta =", [BETA]),
        ("run --set = safe.beta = 9", []),
        ("compare safe : be", ["beta=", f"beta={BETA}"]),
        ("compare safe @ ha", ["@hand"]),
        ("compare safe@ha", ["safe@hand"]),  # where COMP_WORDBREAKS has no "@"
    ],
)
def test_words_that_bash_splits(words: str, names: list[str], offered: Any) -> None:
    """Bash makes words of their own of ``=``, ``:`` and ``@``, and replaces what stands behind them."""
    assert sorted(offered(*words.split())) == sorted(names)


def test_the_words_of_fixed_choices_are_those_that_the_verbs_take() -> None:
    from bench.contract.starter import KINDS
    from bench.metrics import METRICS
    from bench.report.compare import OVER
    from bench.report.survey import REMOVABLE

    assert complete.kinds("") == list(KINDS) and complete.removable("") == list(REMOVABLE)
    assert complete.over("") == list(OVER)
    assert complete.metrics("") == list(METRICS)


def test_whatever_is_broken_offers_nothing_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], offered: Any
) -> None:
    def broken() -> Any:
        print("a plugin that speaks")
        print("and complains", file=sys.stderr)
        raise RuntimeError("a plugin that fails")

    monkeypatch.setattr("bench.registry.builtin", broken)
    monkeypatch.setattr(catalog, "names", broken)
    for completer in (complete.methods, complete.method, complete.datasets, complete.settings):
        assert completer("") == []
    assert capsys.readouterr() == ("", "")
    assert offered("run", "--methods", "sa") == []
    monkeypatch.setenv("BENCH_WEIGHTS", "/nowhere/at/all")
    assert complete.backbones("pocket-r") == ["pocket-rn"]


def test_what_cannot_even_begin_is_silent(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def broken(**_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("bench.cli.app.app", broken)
    monkeypatch.setenv("_BENCH_COMPLETE", "complete_bash")
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0 and capsys.readouterr() == ("", "")


def test_completion_loads_no_torch_and_reads_no_results(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("no folder")
    show = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
    env = {**os.environ, "_BENCH_COMPLETE": "complete_bash", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-c", show + MAIN],
        env={**env, "COMP_WORDS": "bench\ncompare\nsafe\nzero-", "PYTHONPATH": os.getcwd()},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("zero-shot\n", "False\n")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_itself(tmp_path: Path) -> None:
    """The script that --show-completion prints, as bash runs it."""
    command = tmp_path / "bench"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{MAIN}" "$@"\n')
    command.chmod(0o755)
    script = (
        "export _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION=1\n"
        'eval "$(bench --show-completion bash)" && COMP_WORDS=(bench run --methods gda,zero) COMP_CWORD=3\n'
        '_bench_completion bench && echo "${COMPREPLY[@]}"'
    )
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("gda,zero-shot\n", "")


@pytest.mark.parametrize("option", ["--show-completion", "--install-completion"])
def test_a_named_shell_is_refused_with_the_way_to_its_script(option: str) -> None:
    for word, shell in (("fish", "fish"), ("csh", "zsh")):
        with pytest.raises(BenchError, match=re.escape(f"{option} takes no value ({word})")) as said:
            typer.main.get_command(app).main([option, word], prog_name="bench")
        assert f"`_BENCH_COMPLETE=source_{shell} bench` prints" in str(said.value)


@pytest.mark.parametrize(
    ("shell", "begins"), [("zsh", "#compdef bench"), ("fish", "complete --command bench ")]
)
def test_other_shells(
    shell: str, begins: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their scripts name the protocol, and it answers."""

    def answer(instruction: str, words: str = "") -> str:
        monkeypatch.setattr(sys, "argv", ["bench"])
        monkeypatch.setenv("_BENCH_COMPLETE", f"{instruction}_{shell}")
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", words)
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert end.value.code == 0 and said.err == ""
        return said.out.strip()

    script = answer("source")
    assert script.startswith(begins) and f"_BENCH_COMPLETE=complete_{shell}" in script
    assert "gda,zero-shot" in answer("complete", "bench run --methods gda,zero")
