"""The command that makes the committed records again follows their page, resumes, and packs what is whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from bench.cli.codes import Code
from bench.errors import BenchError
from bench.records import packed, places, store
from bench.records.types import EvaluationRecord, FitRecord, Record
from tests.benchmarks import pocket
from tests.run.conftest import draw_images
from tests.test_readme import ROOT

WORK = Path("build/pocket")
PAGE = """
<!-- not run: hours -->
```console
$ bench run --methods zero-shot --datasets shapes --backbone pocket-rn --prompts hand
$ bench run --methods zero-shot --datasets shapes --backbone pocket-rn \\
    --prompts hand,class-name
$ bench pack --out results/pocket --limit 8 \\
    --keep-outputs "methods=zero-shot prompts=hand"
```

<!-- not run: a test draws them -->
```console
$ bench plot shots --results results/pocket --out results/pocket/figures/shots.svg
```

```console
$ bench table --results results/pocket
```
"""
Calls = list[list[str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a page, and three classes of images."""
    (tmp_path / "results" / "pocket").mkdir(parents=True)
    (tmp_path / pocket.PAGE).write_text(PAGE, encoding="utf-8")
    draw_images(tmp_path / "shapes", {"train": 4, "val": 2, "test": 2})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path


def here_and_now(calls: Calls, draw: Callable[[Sequence[str]], int] = lambda words: 0) -> pocket.Bench:
    """``bench`` in this process. ``draw`` stands for plots. Real runs are noted, dry ones are not."""
    from bench.cli.app import app

    def bench(words: Sequence[str], folder: Path, quiet: bool) -> tuple[int, str]:
        if "--dry-run" not in words:
            calls.append(list(words))
        if words[0] == "plot":
            return draw(words), ""
        done = CliRunner().invoke(app, list(words))
        return done.exit_code, done.output

    return bench


def test_the_committed_page_lists_what_the_command_runs() -> None:
    todo = pocket.listed((ROOT / pocket.PAGE).read_text(encoding="utf-8"))
    assert todo.runs[0] == ("run", "--suite", "pocket-all") and todo.out == Path("results/pocket")
    assert all(words[1] != "--results" for words in todo.runs) and todo.plots
    with pytest.raises(BenchError, match="one `bench pack"):
        pocket.listed(PAGE.replace("bench pack", "bench merge"))


def test_all_runs_then_the_pack_and_the_figures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls: Calls = []
    assert pocket.main([], here, here_and_now(calls)) == Code.GOOD
    assert [words[0] for words in calls] == ["run", "run", "pack", "plot"]
    assert all(words[-2:] == ["--results", str(here / WORK)] for words in calls[:3])
    printed = capsys.readouterr().out
    assert "[1/2] bench run --methods zero-shot" in printed
    assert "1 cell left here, at most 3 from here on" in printed  # hand, then hand and class-name
    assert len(list(packed.records(here / "results" / "pocket"))) == 4  # two fits, two evaluations

    calls.clear()
    assert pocket.main(["--list"], here, here_and_now(calls)) == Code.GOOD and calls == []
    assert "0 cells left here, at most 0 from here on" in capsys.readouterr().out


def test_one_run_alone_packs_nothing_but_saves(here: Path) -> None:
    calls: Calls = []
    more = ["--only", "2", "--save", "saved", "--", "--jobs", "1"]
    assert pocket.main(more, here, here_and_now(calls)) == Code.GOOD
    assert [words[0] for words in calls] == ["run", "pack"]
    assert calls[0][-2:] == ["--jobs", "1"] and "--jobs" not in calls[1]
    assert len(list(packed.records(here / "saved"))) == 4
    assert not (here / "results" / "pocket" / packed.RECORDS).exists()
    with pytest.raises(SystemExit):
        pocket.main(["--only", "3"], here, here_and_now([]))


@pytest.mark.parametrize("code", [Code.INCOMPLETE, Code.FAILED, Code.REFUSED])
def test_what_does_not_end_well_is_not_packed(code: Code, here: Path) -> None:
    calls: Calls = []

    def bench(words: Sequence[str], folder: Path, quiet: bool) -> tuple[int, str]:
        calls.append(list(words))
        return (0, "plan: 1,200 cells to do, 0 done\n") if quiet else (code, "")

    assert pocket.main([], here, bench) == code
    real = [words[0] for words in calls if "--dry-run" not in words]
    # the others go on if cells are left in one
    assert real == (["run", "run"] if code == Code.INCOMPLETE else ["run"])


def test_a_save_that_fails_stops_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls: Calls = []

    def bench(words: Sequence[str], folder: Path, quiet: bool) -> tuple[int, str]:
        if quiet:
            return 0, "plan: 1 cell to do, 0 done\n"
        calls.append(list(words))
        return (Code.REFUSED if "saved" in " ".join(words) else Code.GOOD), ""

    assert pocket.main(["--save", "saved"], here, bench) == Code.GOOD
    assert [words[0] for words in calls] == ["run", "pack", "run", "pack", "pack", "plot"]
    assert capsys.readouterr().out.count("NOT saved: bench pack ended with 2") == 2


def test_a_plan_without_a_number_is_no_plan(here: Path) -> None:
    with pytest.raises(BenchError, match="named no number of cells"):
        pocket.main([], here, lambda words, folder, quiet: (0, "something else"))


def test_goes_on_from_packed_records_but_not_from_old_ones(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pocket.main([], here, here_and_now([])) == Code.GOOD
    records = dict(store.every(here / WORK, []))
    assert pocket.take(here / "results" / "pocket", here / "taken") == 4
    kept = {
        record.cell.prompts: "logp" in store.arrays(path, record)
        for path, record in packed.records(here / "taken")
        if isinstance(record, EvaluationRecord)
    }
    assert kept == {"hand": True, "class-name": False}
    root = places.runs(here / WORK)

    def repack(old: str) -> None:
        """Pack the records; those of one prompt set as an older program wrote them."""
        written: dict[str, Record] = {}
        top1 = {}
        for path, record in records.items():
            at = path.relative_to(root).as_posix()
            late = record.cell.prompts != old
            if isinstance(record, FitRecord):
                written[at] = replace(record, temperature=1.0 if late else None)
            elif isinstance(record, EvaluationRecord):
                written[at] = replace(record, metrics=record.metrics or {"top1": 0.5} if late else {})
                arrays = store.predictions(path)
                top1[at] = arrays["top1"], arrays["labels"]
        packed.write(here / "results" / "pocket", written, top1)

    for old, taken, left in (("class-name", 2, 1), ("nothing", 4, 0)):
        repack(old)
        capsys.readouterr()
        work = f"build/{old}"
        (here / work / "runs").mkdir(parents=True)  # a run that was stopped at once left it
        assert pocket.main(["--list", "--work", work], here, here_and_now([])) == Code.GOOD
        printed = capsys.readouterr().out
        assert f"{taken} records taken from results/pocket" in printed
        assert f"    {left} cell" in printed.partition("[2/2]")[2]
        assert len(list(packed.records(here / work))) == taken
        assert all(pocket.remade(record) for _, record in packed.records(here / work))

    # records of its own come first
    assert pocket.main(["--list"], here, here_and_now([])) == Code.GOOD
    assert "taken from" not in capsys.readouterr().out


def test_a_large_folder_is_no_result(here: Path) -> None:
    folder = here / "results" / "pocket"

    def draw(words: Sequence[str]) -> int:
        (folder / "figures.svg").write_bytes(bytes(7_000_000))
        return 0

    assert pocket.main([], here, here_and_now([], draw)) == Code.FAILED
    assert "figures.svg: 7.0 MB" in pocket.sizes(folder)
    (folder / "more.svg").write_bytes(bytes(1_500_000))
    assert "at most 8" in pocket.sizes(folder)
