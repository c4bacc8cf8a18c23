"""Every command that the report, a note or an error prints runs as it is.

The commands are taken out of the printed text and given to the command line. The results folder, the plugin
and the dataset lie below a folder whose name has a space.
"""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from bench.cli.app import app
from bench.errors import BenchError
from bench.report import tables
from bench.report.command import command
from bench.report.figures import plot
from bench.report.frame import load_results
from bench.report.html import pictures, reproduce
from tests.report import made
from tests.report.synthetic import write_cell
from tests.test_readme import parse, write_photos

PLUGIN = """
from bench.interface import POOLED, Method, Recipe, cosine_logits


class Louder(Method):
    name = "louder"
    title = "Louder zero-shot"
    uses_labels = False
    settings = {"gain": 1.0}

    def recipe(self, settings, facts):
        return Recipe()

    def logits(self, params, consts, features, values):
        return cosine_logits(features[POOLED], consts["W_KC"], values["gain"] * consts["scale"])
"""


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real results folder: a plugin with changed settings and a precision, on a folder of own images."""
    home = tmp_path_factory.mktemp("my work")
    write_photos(home / "my pets")
    (home / "my plugin.py").write_text(PLUGIN, encoding="utf-8")
    run: list[object] = [*shlex.split("run --shots 1 --seeds 1 --backbone pocket-rn")]
    run += ["--datasets", home / "my pets"]
    run += ["--results", home / "my results", "--plugin", home / "my plugin.py"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(home / "cache"))
        for more in (
            ("--methods", "louder,zero-shot", "--prompts", "vanilla"),
            ("--methods", "louder", "--set", "louder.gain=0.5", "--precision", "bf16"),
        ):
            done = invoke(*run, *more)
            assert done.exit_code == 0, done.output
    return home


def printed(page: Path) -> tuple[list[str], list[str]]:
    """Return the report's commands that are said to run as they are, and those that lack something."""
    blocks = re.findall(r"<pre( class=\"commands\")?><code>(.*?)</code></pre>", page.read_text("utf-8"), re.S)
    found: tuple[list[str], list[str]] = ([], [])
    for ready, text in blocks:
        found[not ready].extend(html.unescape(text).splitlines())
    return found


def test_commands_of_the_report_find_every_cell_done(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(home / "cache"))
    out = home / "report.html"
    named = ("--plugin", home / "my plugin.py", "--datasets", home / "my pets")
    assert invoke("report", "--results", home / "my results", "--out", out, *named).exit_code == 0
    ready, unready = printed(out)
    assert len(ready) == 3 and not unready
    for line in ready:
        program, *words = shlex.split(line)
        assert program == "bench"
        done = invoke(*words, "--dry-run")
        assert done.exit_code == 0 and re.search(r"plan: 0 cells to do, [12] done", done.output), done.output
    text = " ".join(ready)
    assert "--precision bf16" in text and "louder.gain=0.5" in text and "--prompts vanilla" in text


def test_commands_without_their_files_say_what_is_missing(home: Path) -> None:
    out = home / "less.html"
    assert invoke("report", "--results", home / "my results", "--out", out).exit_code == 0
    ready, unready = printed(out)
    assert not ready and unready, "the dataset's folder is not known"
    page = html.unescape(out.read_text("utf-8"))
    assert "The method louder is a plugin's: add --plugin FILE." in page
    assert "The dataset my-pets is somebody's own: replace its name by its path, which ended in" in page


def test_each_folder_has_its_own_commands(tmp_path: Path) -> None:
    for name in ("a b", "c"):
        write_cell(tmp_path / name, "zero-shot", "digits" if name == "c" else "emoji", 0, 0, 0.5)
    frame = load_results([tmp_path / "a b", tmp_path / "c"])
    lines = [shlex.split(one.text) for one in reproduce.commands(frame, {})]
    where = {words[words.index("--datasets") + 1]: words[-1] for words in lines}
    assert where == {"emoji": str(tmp_path / "a b"), "digits": str(tmp_path / "c")}


def test_the_usual_folder_is_not_named() -> None:
    assert command("table", "3", ["results"]) == "bench table 3"
    assert command("table", "3", ["a b", "c"]) == "bench table 3 --results 'a b' --results c"
    assert command("run", "", ["a b", "c"]) == "bench run --results 'a b'", "a run writes into one folder"


def quoted(text: str) -> list[tuple[str, ...]]:
    """Return the complete ``bench`` commands between backticks, as words."""
    return [tuple(shlex.split(line)) for line in re.findall(r"`(bench [a-z]+ [^`]+)`", text)]


@pytest.fixture(scope="module")
def spaced(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = made.grid(tmp_path_factory.mktemp("a folder") / "of mine", ["zero-shot", "safe"], shots=(4,))
    return load_results(made.sweep(folder, targets=("birds",)))


@pytest.mark.parametrize("kind", [*plot.KINDS, "lr", "shots of one"])
def test_commands_in_errors_of_figures_parse(spaced: pd.DataFrame, kind: str) -> None:
    options: dict[str, str] = {"setting": "beta"} if kind == "sweep" else {}
    frame, which = spaced, kind
    if kind == "sweep":
        frame = frame[frame["variant"] == ""]
    elif kind == "beta":
        frame, options = frame[frame["variant"] == ""], {"protocol": "recipe", "preset": "quick"}
    elif kind == "lr":
        which, options = "beta", {"setting": "lr"}
    elif kind == "cd":
        frame = frame[frame["dataset"] == "birds"]
    elif kind in ("reliability", "risk-coverage"):
        frame = frame[(frame["dataset"] == "birds") & (frame["shots"] == 0)]
    elif kind == "confusion":
        frame = frame[frame["shots"] == 99]
    else:
        which, frame = kind.split()[0], frame[frame["shots"] == 0]
    with pytest.raises(BenchError) as caught:
        plot.plot(frame, which, **options)  # type: ignore[arg-type]
    found = quoted(str(caught.value))
    assert found, str(caught.value)
    for words in found:
        parse(words)
        assert words[words.index("--results") + 1].endswith("/of mine")


def test_commands_for_missing_pictures_of_the_report_name_the_folder(spaced: pd.DataFrame) -> None:
    _, missing = pictures.all_of(spaced[spaced["shots"] == 0])
    found = quoted("\n".join(missing))
    assert any(line.startswith("Average ranks") for line in missing) and found
    for words in found:
        parse(words)
        assert words[words.index("--results") + 1].endswith("/of mine"), words


def test_commands_in_notes_and_errors_of_tables_run(spaced: pd.DataFrame) -> None:
    (note,) = [n for n in tables.table(spaced).notes if "changed settings" in n]
    (words,) = quoted(note)
    done = invoke(*words[1:])
    assert done.exit_code == 0 and "beta=1.0" in done.output
    for frame, which in ((spaced, "3"), (spaced[spaced["variant"] == ""], "ablation")):
        with pytest.raises(BenchError) as caught:
            tables.table(frame, which)
        (words,) = quoted(str(caught.value))
        parse(words)
        assert words[-1].endswith("/of mine")
    with pytest.raises(BenchError) as caught:
        load_results("no such folder")
    found = quoted(str(caught.value))
    assert found
    for words in found:
        parse(words)
