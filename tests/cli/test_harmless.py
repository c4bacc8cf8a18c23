"""No name steers a terminal: in what verbs print, in bars, and in what libraries write."""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.cli import say, streams
from bench.cli.pace import Pace
from bench.cli.progress import Board
from bench.cli.steps import Steps
from bench.run.outcome import Ended, Now
from tests.cli import hostile
from tests.cli.hostile import LINK, TITLE, UNSEEN, raw
from tests.test_user_errors import bench as run

NAMED = "".join(c for c in TITLE if c.isprintable())  # what may be a title: the rest is refused
PLUGIN = f"""
from bench.interface import EVAL, POOLED, Method, Recipe


class Bad(Method):
    name = "bad-one"
    title = {NAMED!r}

    def recipe(self, settings, facts):
        return Recipe(support={{POOLED: (EVAL,)}})

    def solve(self, task, consts, values):
        raise ValueError({TITLE!r})

    def logits(self, params, consts, features, values):
        raise AssertionError
"""
# Those that write to the streams: the verbs' one way, bars, and how the embedded weights were made.
MAY_PRINT = {"cli/say.py", "cli/live.py", "pocket/pretrain.py"}


def test_there_is_one_way_to_the_terminal() -> None:
    """New texts are harmless without anybody's thinking of it."""
    root = Path(bench.__file__).parent
    found = set()
    for file in root.rglob("*.py"):
        if "methods" in file.relative_to(root).parts:
            continue
        text = file.read_text(encoding="utf-8")
        if not any(word in text for word in ("print(", "Console(", "echo(", ".write(", "style(")):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                writes = called in ("print", "Console") or called.endswith(
                    (".secho", ".echo", "stdout.write", "stderr.write", "Console", "typer.style")
                )
                if writes and not called.startswith("say."):
                    found.add(file.relative_to(root).as_posix())
    assert found <= MAY_PRINT


class Screen(io.TextIOWrapper):
    """A terminal."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        return self.bytes.getvalue().decode()


def terminal(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Standard error as a terminal; not a fixture, because pytest sets the streams anew after those."""
    made = Screen()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv("NO_COLOR", raising=False)
    streams.prepare()
    return made


def test_what_verbs_and_libraries_write(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    say.secho(f"bench: {LINK}{UNSEEN}\nmore", fg="red", err=True)
    assert screen.text().startswith("\x1b[31mbench: \\x1b]8;;http://evil\\x07\\x1b[31mred\\x1b[0m\\u202eevil")
    assert screen.text().endswith("\nmore\x1b[0m\n") and screen.text().count("\x1b") == 2
    screen = terminal(monkeypatch)
    sys.stderr.write(warnings.formatwarning(LINK + UNSEEN, UserWarning, "a", 1))
    sys.stderr.write("\x1b[1mbold\x1b[0m\ttab \x1b[2J \x1b]0;title\x07 \r back")
    # Libraries may colour what they write; nothing else of theirs passes.
    assert not raw(re.sub("\x1b\\[(31|0|1)m", "", screen.text())) - {"\t"}
    assert "\x1b[1mbold\x1b[0m\ttab \\x1b[2J" in screen.text()


def test_bars_take_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    said = f"mk[/x] [red]a[/] :boom: {LINK}{UNSEEN}"
    with Board(2, Pace({})) as board:
        assert board.live
        board.watch(Now(f"fitting {said}"))
        board.progress.refresh()
        board.say(f"note {said}")
        board.advance(Ended("key", said, 1.0), 1, 2)
        board.progress.refresh()
        sys.stderr.write("without an end [/x] ")  # what others write meanwhile comes through the bar
        sys.stderr.flush()
        print(said, file=sys.stderr)
    with Steps(said) as steps:
        steps.step(said, 1, 2)
        steps.progress.refresh()
    text = screen.text()
    assert "fitting mk[/x] [red]a[/] :boom: \\x1b]8;;http://evil\\x07" in text and "note mk[/x]" in text
    assert "without an end [/x]" in text
    assert "\x1b]8" not in text and "\x1b[31mred" not in text and not set(UNSEEN) & raw(text)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a run with hostile names was made, by hand in this process."""
    return tmp_path_factory.mktemp("hostile")


@pytest.mark.slow
def test_every_verb(place: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From images to tables, with a method that fails and says hostile things."""
    monkeypatch.chdir(place)
    images = hostile.folder(place)
    (place / "bad.py").write_text(PLUGIN, encoding="utf-8")
    cells = ("run", "--datasets", images, "--plugin", "bad.py", "--methods", "zero-shot,bad-one")
    cells = (*cells, "--backbone", "pocket-rn", "--shots", "1", "--seeds", "1", "--prompts", "hand")
    kept = ("--results", "kept")

    def said(code: int, *words: object) -> str:
        """What a command prints, which is harmless."""
        assert run(*words) == code
        printed = capsys.readouterr()
        assert not raw(printed.out) and not raw(printed.err), words
        return str(printed.out + printed.err)

    assert "never run" in said(0, *cells, *kept, "--cache", "c", "--dry-run", "--why")
    ended = said(1, *cells, *kept, "--cache", "c", "--jobs", "1")
    assert "failed: bad-one" in ended and "mk[/x] :boom:" in ended and "\\u202e" in ended
    assert "failed before" in said(0, *cells, *kept, "--cache", "c", "--dry-run", "--why")
    for form in ("console", "md", "csv", "latex", "html", "json"):
        text = said(0, "table", *kept, "--format", form)
        assert "ERR" in text
        assert form != "json" or any(NAMED in row["label"] for row in json.loads(text)["rows"])
    for file in ("t.md", "t.tex", "t.csv", "t.html", "t.json", "t.txt"):
        said(0, "table", *kept, "--out", file)
        assert not raw((place / file).read_text(encoding="utf-8"))
    said(0, "report", *kept, "--out", "r.html", "--title", TITLE)
    page = (place / "r.html").read_text(encoding="utf-8")
    assert not raw(page) and "<img" not in page and page.count("<script") == 2
    said(0, "data", "verify", images)
    said(0, "data", "status", images)
    assert len(json.loads(said(0, "data", "status", images, "--format", "json"))) == 1
    said(0, "data", "draw", images, "--format", "text")
    assert "mk[/x]" in said(0, "list", "methods", "--plugin", "bad.py")
    assert run("data", "draw", images) == 0
    drawn = capsys.readouterr().out
    assert not raw(drawn)
    names = {row["classname"] for row in json.loads(drawn)["train"]["data"]}
    assert names == {f.name for f in images.iterdir()}, "JSON keeps what names hold"


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--datasets", LINK + UNSEEN),
        ("run", "--methods", LINK + UNSEEN),
        ("run", "--suite", LINK + UNSEEN),
        ("run", "--jobs", LINK + UNSEEN),
        ("run", f"--{LINK}{UNSEEN}"),
        ("run", "--set", f"{LINK}{UNSEEN}=1"),
        ("table", LINK + UNSEEN),
        ("table", "--results", LINK + UNSEEN),
        ("table", "--out", f"{LINK}{UNSEEN}"),
        ("plot", f"[/x]{LINK}{UNSEEN}"),
        ("list", "methods", "--plugin", f"{LINK}{UNSEEN}.py"),
        ("check-method", LINK + UNSEEN),
        ("new", "method", LINK + UNSEEN),
        ("weights", "get", UNSEEN),
        (f"[/x]{LINK}{UNSEEN}",),
    ],
    ids=lambda words: " ".join(words[:2]) if words[0] in ("list", "new", "weights") else words[0],
)
def test_refusals_quote_what_was_written_harmlessly(words: tuple[str, ...], capsys: Any) -> None:
    assert run(*words) == 2
    printed = capsys.readouterr()
    assert not raw(printed.err) and not raw(printed.out)
    assert "evil" in printed.err or "--jobs" in printed.err
