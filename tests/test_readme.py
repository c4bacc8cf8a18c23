"""Every command that the README or a page of docs/ shows exists; those not marked otherwise are run.

The commands of a page run in order and in one empty folder. A command is a line ``$ ...`` of a ``console``
block. ``<!-- not run: reason -->`` above a block says why its commands are only parsed.

Output that a page shows is what the command prints: to the letter where it reads the records of the checkout,
but for its numbers where it measures. A line ``...`` stands for any lines. ``python -m tests.docs.outputs
PAGE`` writes the output anew.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.benchmarks import main_job, page

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MARK = r"(?:<!-- not run: (?P<reason>[^\n]+?) -->\n+)?"
BLOCK = re.compile(MARK + r"```(?P<kind>console|bash|sh|shell)\n(?P<body>.*?)```", re.S)


@dataclass(frozen=True)
class Command:
    """One ``$`` line: its words without the prompt, why it is not run (empty: it is), the output shown."""

    words: tuple[str, ...]
    reason: str
    shown: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(self.words)


def commands(text: str) -> list[Command]:
    """The commands of a Markdown text, continuation lines joined, comments dropped."""
    found = []
    for block in BLOCK.finditer(text):
        assert block["kind"] == "console", "write commands as ```console blocks with '$ ' before each"
        for line in block["body"].replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                words = shlex.split(line[2:], comments=True)
                found.append(Command(tuple(words), block["reason"] or ""))
            elif found:
                found[-1] = replace(found[-1], shown=(*found[-1].shown, line))
    return found


def same(shown: Sequence[str], printed: Sequence[str]) -> bool:
    """Return whether output is as shown, numbers and widths aside; a line ``...`` stands for any lines."""

    def plain(lines: Iterable[str]) -> str:
        words = (" ".join(re.sub("─+", "─", line).split()) for line in lines)
        return re.sub(r"\d+(?:[.,]\d+)*", "0", "".join(f"{line}\n" for line in words if line))

    pattern = ".*".join(map(re.escape, plain(shown).split("...\n")))
    return re.fullmatch(pattern, plain(printed), re.S) is not None


def files(text: str) -> dict[str, str]:
    """Files a Markdown text shows whole: code blocks whose first line is ``# name.py`` or ``# name.toml``."""
    blocks = re.findall(r"```(?:python|toml)\n(# ([\w.-]+\.(?:py|toml))\n.*?)```", text, re.S)
    return {name: body for body, name in blocks}


def write_photos(folder: Path, seed: int = 0) -> None:
    """Two classes of ten small noisy images: what a reader's own folder looks like."""
    rng = np.random.default_rng(seed)
    for name, colour in (("cat", (200, 120, 40)), ("dog", (40, 120, 200))):
        (folder / name).mkdir(parents=True)
        for i in range(10):
            pixels = rng.normal(colour, 40, (48, 64, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = [command for file in PAGES for command in commands(file.read_text(encoding="utf-8"))]
SCRIPTS = "".join(body for file in PAGES for body in files(file.read_text(encoding="utf-8")).values())
RECORDS = (ROOT / "results" / "pocket" / "README.md").read_text(encoding="utf-8")
DRAWN = [c for c in commands(RECORDS) if c.words[:2] == ("bench", "plot")]


def reads_records(command: Command) -> bool:
    """Return whether a command reads the committed records and its output is shown."""
    return "results/pocket" in command.words and bool(command.shown)


OUTPUTS = [
    *(pytest.param(c, id=str(c)) for c in filter(reads_records, SHOWN)),
    *(pytest.param(c, id=str(c), marks=pytest.mark.slow) for c in filter(reads_records, commands(RECORDS))),
]


def run(command: Command, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ``bench``, or a script that the page shows, as in a terminal of 120 columns."""
    verbs = ["-c", "from bench.cli import main; main()"] if command.words[0] == "bench" else []
    args = [sys.executable, *verbs, *command.words[1:]]
    env = {**os.environ, "COLUMNS": "120", **environment}
    return subprocess.run(args, cwd=folder, env=env, capture_output=True, text=True, check=False)


def prepare(text: str, folder: Path) -> dict[str, str]:
    """Make what a page finds: images and the files that it shows; return the environment of its commands."""
    folder.mkdir()
    write_photos(folder / "pets")
    write_photos(folder / "drawn", seed=1)
    for name, body in files(text).items():
        (folder / name).write_text(body, encoding="utf-8")
    return {"BENCH_CACHE": str(folder.parent / "cache"), "PYTHONPATH": str(ROOT)}


def parse(words: tuple[str, ...]) -> None:
    """Let the command line parse ``bench ...`` without doing anything; its usage errors come through."""
    import typer

    from bench.cli.app import app

    command: Any = typer.main.get_command(app)
    args = list(words[1:])
    while hasattr(command, "commands"):
        assert args and args[0] in command.commands, f"no such verb: {' '.join(words)}"
        command = command.commands[args.pop(0)]
    command.make_context(words[-1], args)


def test_the_parser_of_this_file_sees_commands() -> None:
    text = "<!-- not run: slow -->\n```console\n$ bench run \\\n    --shots 1  # few\noutput\n```\n\n"
    text += "```console\n$ make run\n```\n"
    shown = Command(("bench", "run", "--shots", "1"), "slow", ("output",))
    assert commands(text) == [shown, Command(("make", "run"), "")]
    assert {c.words[0] for c in SHOWN} >= {"make"}


@pytest.mark.parametrize("command", SHOWN, ids=str)
def test_command_exists(command: Command) -> None:
    program, *args = command.words
    if program == "bench":
        parse(command.words)
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in (a for a in args if "=" not in a):
            assert re.search(rf"^{re.escape(target)}:", makefile, re.M), f"no target {target}"
        for variable, _, value in (a.partition("=") for a in args if "=" in a):
            assert re.search(rf"^{variable} \?=", makefile, re.M), f"no variable {variable}"
            if variable == "ARGS":
                parse(("bench", "run", *shlex.split(value)))
    elif not (program == "python" and f"# {args[0]}\n" in SCRIPTS):
        assert command.reason, f"'{command}' is neither bench nor make: say why it is not run"


def test_a_misspelt_option_is_found() -> None:
    with pytest.raises(Exception, match=r"(?i)no such option|--shotz"):
        parse(("bench", "run", "--shotz", "1"))


def test_output_is_compared_but_for_numbers() -> None:
    printed = ["plan: 12 cells", "", "  a  0.51", "────", "done"]
    assert same(["plan: 3 cells", "...", "done"], printed)
    assert same(["plan: 3 cells", " a 12.5", "──", "done"], printed)
    assert not same(["plan: 3 cells", "done"], printed)
    assert not same(["plan: 3 cells", "...", "ended"], printed)


@pytest.mark.slow
@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_commands_run(file: Path, tmp_path: Path) -> None:
    """In order, because later ones read what earlier ones made; the user's cache stays untouched."""
    text = file.read_text(encoding="utf-8")
    env = prepare(text, tmp_path / "work")
    for command in commands(text):
        if command.reason or command.words[0] == "make":
            continue
        done = run(command, tmp_path / "work", **env)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
        if command.shown:
            assert same(command.shown, done.stdout.splitlines()), f"$ {command}\n{done.stdout}"


@pytest.mark.slow
def test_python_of_the_page_on_python_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    env = {**os.environ, **prepare(text, tmp_path / "work")}
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "work",
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "tip-adapter" in done.stdout and (tmp_path / "work" / "shots.svg").is_file()


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_links_lead_somewhere(file: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", file.read_text(encoding="utf-8")):
        assert (file.parent / target).exists(), f"{file.name} links to {target}, which does not exist"


@pytest.mark.parametrize("command", OUTPUTS)
def test_output_is_what_the_command_prints(command: Command) -> None:
    """Commands that read results/pocket print what is shown, line by line."""
    done = run(command, ROOT)
    assert done.returncode == 0, done.stderr
    printed = [line.rstrip() for line in done.stdout.rstrip().splitlines()]
    assert printed == [line.rstrip() for line in "\n".join(command.shown).rstrip().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("command", DRAWN, ids=lambda c: c.words[2])
def test_figures_are_what_the_commands_draw(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.cli.app import app

    *words, out = command.words[1:]
    assert words[-1] == "--out" and f"]({Path(out).relative_to('results/pocket')})" in RECORDS
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(app, [*words, str(tmp_path / "drawn.svg")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "drawn.svg").read_bytes() == (ROOT / out).read_bytes(), f"run: {command}"


def test_every_drawing_has_its_command() -> None:
    shown = re.findall(r"\]\((figures/[\w-]+\.svg)\)", RECORDS)
    assert sorted(shown) == sorted(str(Path(c.words[-1]).relative_to("results/pocket")) for c in DRAWN)


def test_the_readme_shows_a_table_of_the_records() -> None:
    assert any(reads_records(command) and command.words[1] == "table" for command in commands(README))


@pytest.mark.parametrize("command", commands(RECORDS), ids=str)
def test_command_of_the_records_exists(command: Command) -> None:
    parse(command.words)


def test_ratios_shown_are_those_measured() -> None:
    """results/benchmarks/README.md shows files beside it as tests.benchmarks.page prints them.

    Their names tell commit and device.
    """
    folder = ROOT / "results" / "benchmarks"
    text = (folder / "README.md").read_text(encoding="utf-8")
    files = [folder / name for name in re.findall(r"\(([^()]+\.json)\)", text)]
    assert files, "the page links to what it shows"
    for file in files:
        assert file.name.startswith(json.loads(file.read_text(encoding="utf-8"))["commit"] + "-")
        assert page.block(file) in text, f"run: python -m tests.benchmarks.page {file.relative_to(ROOT)}"


@pytest.mark.slow
def test_projection_shown_is_what_the_script_prints() -> None:
    args = [sys.executable, "-m", "tests.benchmarks.projection"]
    printed = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed in (ROOT / "results" / "benchmarks" / "README.md").read_text(encoding="utf-8")


def test_the_page_on_speed_shows_the_newest_gpu(tmp_path: Path) -> None:
    shown = page.SPEED.read_text(encoding="utf-8")
    assert page.speed(shown, page.newest()) == shown, "run: python -m tests.benchmarks.page --speed"
    for name, day in (
        ("b-1", "2026-12-01"),
        ("a-2", "2026-12-02"),
        ("c-3", "2026-11-28"),
        ("cpu", "2026-12-03"),
    ):
        (tmp_path / name).mkdir()
        sizes = "tiny" if name == "cpu" else "true"
        found = {"found": {"day": day, "device": name, "sizes": sizes}}
        (tmp_path / name / "machine.json").write_text(json.dumps(found), encoding="utf-8")
    assert page.newest(tmp_path).name == "a-2"
    assert page.speed(shown, tmp_path / "b-1") != shown, "other findings make another page"


def test_the_hours_shown_are_those_of_todays_recipes() -> None:
    """The projection multiplies what was measured by the recipes' steps and the cost model's ratios."""
    from tests.benchmarks.gpu import hours, watch

    folder = page.newest()
    shown, now = watch.read(folder, "hours")["found"], dict(hours.project(folder))
    for name, value in now["methods"].items():
        assert shown["methods"][name] == pytest.approx(value, rel=0.02), (
            "run: python -m tests.benchmarks.page --speed"
        )
    assert shown["encoding"] == pytest.approx(now["encoding"], rel=0.02)


def test_the_main_jobs_time_is_the_one_measured() -> None:
    measured = json.loads(main_job.FILE.read_text(encoding="utf-8"))
    flags = main_job.job((ROOT / "Makefile").read_text(encoding="utf-8"))
    assert measured["command"] == f"bench run {shlex.join(flags)}", "measured another job"
    assert main_job.sentence(measured) in " ".join(README.split()), "see tests/benchmarks/main_job.py"
    other = {**measured, "seconds": [60, 80, 600], "cores": 16, "note": ""}
    assert main_job.sentence(other).startswith("the whole job took 80 seconds on 16 ")
    noted = main_job.sentence({**other, "note": "by hand", "day": "2026-01-02", "commit": "abc"})
    assert noted.startswith("on 2026-01-02, at commit abc, the whole job took 80 seconds")


@pytest.mark.slow
def test_the_main_job_is_measured_in_fresh_folders() -> None:
    flags = ["--methods", "zero-shot", "--datasets", "digits", "--seeds", "1", "--no-targets"]
    measured = main_job.measure(flags, 1)
    assert measured["cells"] == 2, "two prompt sets"
    assert measured["passes"] == 717, "the test images of digits, once"
    assert len(measured["seconds"]) == 1 and measured["again"] > 0


def test_a_gpu_in_the_text_on_speed_is_the_one_measured() -> None:
    found = json.loads((ROOT / "results/benchmarks/h200-b813ab4/safe.json").read_text(encoding="utf-8"))[
        "found"
    ]
    text = " ".join(page.SPEED.read_text(encoding="utf-8").split())
    for name in ("RN50 R=12", "RN50 R=36", "ViT-B-16 R=36"):
        r = found[name]
        said = f"{r['times_plain']:.0f} times", f"{100 * r['share_of_roofline']:.0f} %"
        assert all(words in text for words in said), f"{name}: {said}"
    assert f"{found['RN50 R=12']['replica_steps_per_s']:,.0f} replica steps a second" in text


def test_nothing_measured_names_a_machine_or_a_path() -> None:
    """Findings are published: no host, no user, no folder of the machine that made them."""
    for file in (ROOT / "results" / "benchmarks").rglob("*"):
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            found = re.search(r"/(?:home|root|tmp|work|mnt|workspace|usr)/|hostname", text)
            assert not found, f"{file.relative_to(ROOT)}: {found}"
