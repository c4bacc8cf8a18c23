"""Records of schema 1 are read like those of today, and `bench convert` brings them over without a fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bench.cli.app import app
from bench.errors import BenchError
from bench.records import packed, places, store
from bench.records.types import EvaluationRecord, Failure, FitRecord
from bench.records.upgrade import upgrade

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
FILES, PACKED = FIXTURES / "schema-1", FIXTURES / "schema-1-packed"
# What the program of schema 1 printed of these records: `bench table --variants --format csv`.
TABLE = """\
method,shots,animal-kinds
zero-shot (coop),0,36.67
zero-shot (hand),0,36.67
bad-one,1,ERR
safe,1,36.67
safe (beta=0.0),1,36.43
safe (beta=1.0),1,36.67
safe-a,1,36.67
tip-adapter-f,1,38.57
zero-shot (linear),1,32.14
"""
# The commands that made them, but for the plugin that failed.
RUNS = (
    ("--methods", "zero-shot,tip-adapter-f,safe,safe-a"),
    ("--methods", "zero-shot", "--prompts", "linear"),
    ("--methods", "safe", "--sweep", "safe.beta=0,1"),
)


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def table(results: Path) -> str:
    return bench("table", "--results", results, "--variants", "--format", "csv").output


def planned(results: Path, *arguments: str) -> Result:
    grid = ("--datasets", "animal-kinds", "--shots", "1", "--seeds", "1", "--no-targets", "--dry-run")
    return bench("run", "--results", results, *grid, *arguments)


@pytest.fixture(params=["files", "packed"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy of a results folder of schema 1."""
    return Path(shutil.copytree(FILES if request.param == "files" else PACKED, tmp_path / "results"))


def test_tables_read_them_as_they_are(old: Path) -> None:
    before = {p: p.read_bytes() for p in old.rglob("*.*")}
    assert table(old) == TABLE
    assert {p: p.read_bytes() for p in old.rglob("*.*")} == before


def test_no_run_takes_them_for_its_own(old: Path) -> None:
    done = planned(old, *RUNS[0])
    assert isinstance(done.exception, BenchError)
    assert f"bench convert --results {old}" in str(done.exception)


def test_brought_over_nothing_is_run_again(old: Path) -> None:
    done = bench("convert", "--results", old)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("17 records converted") or done.output.startswith("18 records converted")
    assert table(old) == TABLE
    for arguments in RUNS:
        assert "plan: 0 cells to do" in (shown := planned(old, *arguments).output), shown
    again = bench("convert", "--results", old)
    assert "nothing to convert" in again.output


def test_keys_links_and_checksums_are_those_of_a_run(old: Path) -> None:
    upgrade(old)
    records = dict(store.every(old))
    fits = {r.key: r for r in records.values() if isinstance(r, FitRecord)}
    assert len(fits) == 8
    for path, r in records.items():
        if isinstance(r, FitRecord):
            assert r.key == r.parts.digest() and path == places.fit_path(path.parent, r.key)
            assert set(r.parts.after.values()) <= set(fits)
        elif isinstance(r, EvaluationRecord):
            assert r.key == r.parts.digest() and path == places.evaluation_path(path.parent, r.fit, r.key)
            assert r.fit in fits and set(r.predictions) >= {"top1", "labels"}
            arrays = store.predictions(path)
            assert float((arrays["top1"] == arrays["labels"]).mean()) == r.top1
    (linear,) = [r for r in fits.values() if r.cell.prompts == "linear"]
    assert linear.reads == {"prompts": "linear-probe-sgd-zs"}
    path = next(p for p, r in records.items() if r is linear)
    assert [f.cell.method for f in store.behind(path, linear)] == ["zero-shot", "linear-probe-sgd-zs"]


def test_files_come_over_with_states_and_failures(tmp_path: Path) -> None:
    results = Path(shutil.copytree(FILES, tmp_path / "results"))
    upgrade(results)
    records = [r for _, r in store.every(results)]
    (failure,) = [r for r in records if isinstance(r, Failure)]
    assert (failure.of, failure.stage, failure.error) == (
        "evaluation",
        "evaluate",
        "RuntimeError: wrong on purpose",
    )
    (tip,) = [r for r in records if isinstance(r, FitRecord) and r.cell.method == "tip-adapter-f"]
    assert places.state_path(results, tip.key).is_file() and tip.state
    assert len(list((results / "states").iterdir())) == 1


def test_an_interrupted_conversion_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = Path(shutil.copytree(FILES, tmp_path / "results"))
    original, calls = Path.unlink, [0]

    def failing(self: Path, missing_ok: bool = False) -> None:
        calls[0] += self.suffix == ".json"
        if calls[0] == 5:
            raise KeyboardInterrupt
        original(self, missing_ok)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", failing)
        upgrade(results)
    assert table(results) == TABLE
    upgrade(results)
    assert table(results) == TABLE
    for arguments in RUNS:
        assert "plan: 0 cells to do" in planned(results, *arguments).output


def test_an_interrupted_conversion_of_packed_records_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that predictions are those of their records, wherever the conversion is interrupted."""
    results = Path(shutil.copytree(PACKED, tmp_path / "results"))

    def failing(path: Path, data: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packed, "write_bytes", failing)
        upgrade(results)
    upgrade(results)
    assert table(results) == TABLE
    for path, r in store.every(results):
        if isinstance(r, EvaluationRecord):
            arrays = store.predictions(path)
            assert float((arrays["top1"] == arrays["labels"]).mean()) == r.top1


def test_files_beside_packed_records_find_their_fits(tmp_path: Path) -> None:
    """Convert a folder where evaluations in files are of packed fits, and the other way round."""
    results = Path(shutil.copytree(PACKED, tmp_path / "results"))
    for file in sorted((FILES / "runs").rglob("*-*.*")):
        if "safe" in file.parts or "tip-adapter-f" in file.parts:
            place = results / file.relative_to(FILES)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    assert table(results) == TABLE
    assert [what.split(",")[0] for what in upgrade(results).unmatched] == ["fits of bad-one"]
    assert table(results) == TABLE
    fits = {r.key for _, r in store.every(results) if isinstance(r, FitRecord)}
    assert {r.fit for _, r in store.every(results) if isinstance(r, EvaluationRecord)} <= fits
    for arguments in RUNS:
        assert "plan: 0 cells to do" in planned(results, *arguments).output


def test_a_failure_whose_fit_is_gone_stays(tmp_path: Path) -> None:
    results = Path(shutil.copytree(FILES, tmp_path / "results"))
    (fit,) = [p for p in (results / "runs").rglob("bad-one/*.json") if "-" not in p.stem]
    fit.unlink()
    upgrade(results)
    assert [r.error for _, r in store.every(results) if isinstance(r, Failure)] == [
        "RuntimeError: wrong on purpose"
    ]


def test_predictions_of_another_record_are_refused(tmp_path: Path) -> None:
    results = Path(shutil.copytree(FILES, tmp_path / "results"))
    first, other = (
        next((results / "runs").rglob(f"{method}/*.npz")) for method in ("zero-shot", "tip-adapter-f")
    )
    first.write_bytes(other.read_bytes())
    before = set((results / "runs").rglob("*.*"))
    with pytest.raises(BenchError, match="not the predictions that its record speaks of"):
        upgrade(results)
    assert before <= set((results / "runs").rglob("*.*"))


def test_a_folder_without_records_is_an_error(tmp_path: Path) -> None:
    done = bench("convert", "--results", tmp_path / "mistyped")
    assert isinstance(done.exception, BenchError) and "no records there" in str(done.exception)


def test_a_backbone_that_is_not_here_is_said(tmp_path: Path) -> None:
    results = Path(shutil.copytree(FILES, tmp_path / "results"))
    for file in (results / "runs").rglob("*.json"):
        file.write_text(file.read_text().replace('"backbone": "pocket-rn"', '"backbone": "RN50"'))
    (results / "runs" / "pocket-rn").rename(results / "runs" / "RN50")
    done = bench("convert", "--results", results)
    assert (
        "8 fits of RN50, whose weights are not here: tables read them, and a run makes them again"
        in done.output
    )
    assert table(results) == TABLE


def test_the_committed_records_are_of_today() -> None:
    pocket = Path(__file__).resolve().parents[2] / "results" / "pocket"
    assert not store.outdated(pocket)
    fits = [r for _, r in packed.records(pocket) if isinstance(r, FitRecord)]
    assert len(fits) > 4000
    assert all(r.key == r.parts.digest() for r in fits[::50])
    done = bench("run", "--suite", "pocket", "--results", pocket, "--dry-run")
    assert "plan: 0 cells to do, 220 done" in done.output
