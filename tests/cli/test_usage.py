"""What cannot be parsed is one line that names the nearest name and the help; -h and --version."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import pytest
import typer

from bench.cli import main
from tests.docs.cli_page import leaves


def ended(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    """The exit code of ``bench`` with these words."""
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("run --shotz", "bench run has no option --shotz (did you mean '--shots'?); `bench run --help` ..."),
        ("run --shots=1 -x", "bench run has no option -x; `bench run --help` shows all"),
        ("--versio", "bench has no option --versio (did you mean '--version'?); `bench --help` shows all"),
        ("tabel", "there is no `bench tabel` (did you mean 'table'?); `bench --help` shows all"),
        ("data statsu", "there is no `bench data statsu` (did you mean 'status'?); `bench data --help` ..."),
        ("-V", "bench has no option -V (did you mean '--version'?); `bench --help` shows all"),
        ("-v", "bench has no option -v (did you mean '--version'?); `bench --help` shows all"),
        ("version", "there is no `bench version` (did you mean `bench --version`?); `bench --help` ..."),
        (
            "run --version",
            "bench run has no option --version (did you mean `bench --version`?); `bench run --help` ...",
        ),
        # What is far-fetched, deletes, or repeats work is never suggested.
        ("bnech", "there is no `bench bnech`; `bench --help` ..."),
        ("cite --out x", "bench cite has no option --out; `bench cite --help` shows all"),
        ("records --format json", "bench records has no option --format; `bench records --help` ..."),
        ("records --remov x", "bench records has no option --remov; `bench records --help` shows all"),
        ("run --fresj", "bench run has no option --fresj; `bench run --help` shows all"),
        ("check -u", "bench check has no option -u; `bench check --help` shows all"),
        ("compare safe", "missing argument 'second'; see `bench compare --help`"),
        ("convert now", "got unexpected extra argument (now); see `bench convert --help`"),
        ("run --shots", "option '--shots' requires an argument; see `bench run --help`"),
        ("data draw digits --seed", "option '--seed' requires an argument; see `bench data draw --help`"),
    ],
)  # fmt: skip
def test_usage_errors_are_one_line(
    words: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, *words.split()) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.replace("(s)", "") == f"bench: {line.replace('...', 'shows all')}\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("run --jobs two", "--jobs two: write a whole number"),
        ("run --jobs=2.5", "--jobs 2.5: write a whole number"),
        ("run --workers -1", "--workers -1: write a number from 0 on"),
        ("run --time-budget long", "--time-budget long: write a number"),
        ("data draw digits --shots x", "--shots x: write a whole number"),
    ],
)
def test_a_value_that_is_no_number_is_one_line(
    words: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, *words.split()) == 2
    said, path = capsys.readouterr().err, words.partition(" --")[0].removesuffix(" digits")
    assert said == f"bench: {line}; see `bench {path} --help`\n"


def test_a_folder_without_its_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "laptop").mkdir()
    assert ended(monkeypatch, "records", "laptop") == 2
    assert capsys.readouterr().err == "bench: bench records takes no folder by itself: use --results laptop\n"
    assert ended(monkeypatch, "data", "status", "--format", "yaml") == 2
    assert capsys.readouterr().err.startswith("bench: invalid value for '--format'")


def test_names_in_usage_errors_do_not_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["\x1b[31mx"], ["run", "--\x1b[31mx"], ["convert", "a\nb\x1b[31m"]):
        assert ended(monkeypatch, *words) == 2
        said = capsys.readouterr().err
        assert "\x1b[31mx" not in said and said.count("\n") == 1


def test_h_is_short_for_help_everywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.cli.app import app

    every = [words.split()[1:] for words, _ in leaves(typer.main.get_command(app))]
    for words in ([], ["data"], every[0]):
        assert ended(monkeypatch, *words, "-h") == 0
        short = capsys.readouterr().out
        assert ended(monkeypatch, *words, "--help") == 0
        assert capsys.readouterr().out == short and "Usage: bench" in short


@pytest.mark.parametrize("words", ["merge", "records", "check", "data verify"])
def test_help_is_wrapped_once(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    assert ended(monkeypatch, *words.split(), "-h") == 0
    said = capsys.readouterr().out
    lines = [line.strip() for line in said.partition(chr(0x256D))[0].splitlines()]
    assert max(map(len, lines)) > 60, "the description stands before the first box"
    for line, after in pairwise(lines):
        assert not line or not after or len(line) + 1 + len(after.split()[0]) > 78, line


def test_the_version_loads_no_torch() -> None:
    code = "import sys; from bench.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    ours, others = done.stdout.splitlines()
    assert ours == f"bench {metadata.version('fewshot-clip-bench')}"
    assert others == f"Python {sys.version.split()[0]}, torch {metadata.version('torch')}"
