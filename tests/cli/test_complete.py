"""Shell completion through its own protocol: what bash would offer, quickly and without a word besides."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.cli import complete, main
from bench.data import catalog
from bench.prompts import SETS
from bench.registry import builtin

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
        (["run", "--set", "safe.bet"], ["safe.beta="]),
        (["run", "--sweep", "safe.bet"], ["safe.beta="]),
        (["run", "--shots", "1", "--shots", "2", "--preset", "q"], ["quick"]),  # a usage error, were it run
        (["plot", "c"], ["cd"]),
        (["plot", "sweep", "--setting", "safe.bet"], ["safe.beta"]),
        (["table", "--against", "x", "--methods", "gd"], ["gda"]),
        (["compare", "safe", "tip-adapter-"], ["tip-adapter-f"]),
        (["check-method", "tip-adapter-"], ["tip-adapter-f"]),
        (["data", "status", "digits", "emoji-s"], ["emoji-sketch"]),
        (["nope", "tab"], ["table"]),  # as if the misspelt word were not there
        (["run", "--nope", ""], []),
    ],
    ids=lambda value: " ".join(value[:4]),
)
def test_what_bash_offers(words: list[str], names: list[str], offered: Any) -> None:
    assert sorted(offered(*words)) == sorted(names)


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
