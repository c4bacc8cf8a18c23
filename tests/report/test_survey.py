"""`bench records` finds what is wrong in a results folder, and removes what is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner, Result

from bench import files
from bench.errors import BenchError
from bench.files import write_bytes
from bench.records import codec, places, store
from bench.records.types import FitRecord
from bench.report.compact import pack
from bench.report.frame import load_results
from tests.report.synthetic import write_cell

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
HOUR_AGO = time.time() - 3600
LATER = "2026-03-01T00:00:00.000+00:00"


def call(results: Path, *words: object, answer: str | None = None) -> Result:
    from bench.cli.app import app

    return CliRunner().invoke(app, ["records", "--results", str(results), *map(str, words)], input=answer)


def cell(results: Path, seed: int = 1, method: str = "safe", dataset: str = "digits", **more: Any) -> str:
    return write_cell(results, method, dataset, 1, seed, 0.6, **more)


def record_of(results: Path, key: str) -> Path:
    return next((results / "runs").rglob(f"{key[: places.SHORT]}.json"))


def rows(results: Path) -> list[Any]:
    return load_results(results)[["method", "dataset", "seed", "accuracy", "variant", "path"]].values.tolist()


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Three seeds of a method and one of another that builds on it; nothing is wrong."""
    for seed in (1, 2, 3):
        key = cell(tmp_path, seed)
    cell(tmp_path, 3, "coop", after={"safe": key})
    return tmp_path


def test_nothing_is_wrong(sound: Path) -> None:
    done = call(sound)
    assert done.exit_code == 0, done.output
    assert "8 records" in done.output and "nothing is stale, drifted, orphaned" in done.output


def replaced(results: Path) -> None:
    """Every seed ran again with another default: the older records count no more."""
    for seed in (1, 2, 3):
        cell(results, seed, "safe", "emoji", written="2026-01-01T00:00:00.000+00:00")
        cell(results, seed, "safe", "emoji", written=LATER, defaults={"steps": 9})


def older_version(results: Path) -> None:
    key = cell(results, 7, "tip-adapter", version=0)
    cell(results, 7, "clap", after={"tip-adapter": key})


def without_fit(results: Path) -> None:
    record_of(results, cell(results, 7, "tip-adapter")).unlink()


def without_record(results: Path) -> None:
    write_bytes(places.state_path(results, "ab" * 32), b"state")
    write_bytes(results / "runs" / "a" / "b" / "c" / f"{'c' * 20}-{'d' * 20}.npz", b"npz")
    for file in (*results.rglob("ab*.safetensors"), *results.rglob("cc*.npz")):
        os.utime(file, (HOUR_AGO, HOUR_AGO))
    write_bytes(results / "runs" / "a" / ".x.json.abcd1234.tmp", b"{")


def unknown(results: Path) -> None:
    cell(results, 7, "no-such-method")
    cell(results, 7, dataset="no-such-dataset")


def failed(results: Path) -> None:
    cell(results, 7, "prolip", fail="no memory")


def drifted(results: Path) -> None:
    path = record_of(results, cell(results, 7, "prolip"))
    record = store.read(path)
    assert record is not None
    store.put(path, replace(record, provenance=replace(record.provenance, source="0" * 64)))


def damaged(results: Path) -> None:
    path = record_of(results, cell(results, 7, "prolip"))
    path.write_text("{}")


def damaged_state(results: Path) -> None:
    key = cell(results, 7, "prolip")
    record = store.read(record_of(results, key))
    assert isinstance(record, FitRecord)
    store.put(record_of(results, key), replace(record, has_state=True, state="0" * 32))
    write_bytes(places.state_path(results, key), b"state")


@pytest.mark.parametrize(
    ("wrong", "kind", "count", "says", "code"),
    [
        (replaced, "stale", 6, "of safe from before its default settings changed", 5),
        (older_version, "stale", 4, "of tip-adapter version 0; the program has version", 5),
        (without_fit, "orphaned", 1, "there is no record of its fit", 5),
        (without_record, "orphaned", 3, "a fitted state without a record", 5),
        (unknown, "orphaned", 4, "of no-such-method, a method that the program lacks", 5),
        (failed, "failed", 1, "prolip: fit: no memory", 1),
        (drifted, "drifted", 1, "prolip, version 1", 5),
        (damaged, "damaged", 2, "the record of its fit is damaged", 3),
        (damaged_state, "damaged", 1, "not the state that the record of its fit speaks of", 3),
    ],
)
def test_each_kind_is_found_and_removed_on_demand(
    sound: Path, wrong: Callable[[Path], None], kind: str, count: int, says: str, code: int
) -> None:
    wrong(sound)
    done = call(sound, "--verbose")
    assert done.exit_code == code, done.output
    assert f"{kind}: {count} (" in done.output and says in done.output
    others = {"stale", "drifted", "orphaned", "failed", "damaged"} - {kind}
    assert not any(line.startswith(f"{other}:") for other in others for line in done.output.splitlines())
    before, table = set(sound.rglob("*")), rows(sound)
    assert call(sound).exit_code == code and set(sound.rglob("*")) == before, "looking changes nothing"
    other = "stale" if kind != "stale" else "orphaned"
    assert call(sound, "--remove", other, "--yes").exit_code == code and set(sound.rglob("*")) == before
    if kind not in ("stale", "orphaned"):
        assert isinstance(call(sound, "--remove", kind, "--yes").exception, BenchError)
        return
    assert isinstance(call(sound, "--remove", kind).exception, BenchError), "nobody is there to answer"
    assert call(sound, "--remove", kind, answer="n\n").exit_code == code and set(sound.rglob("*")) == before
    done = call(sound, "--remove", kind, answer="y\n")
    assert done.exit_code == 0 and f"deleted {count} (" in done.output, done.output
    assert "nothing is stale" in call(sound).output
    if wrong in (replaced, without_fit, without_record):
        assert rows(sound) == table, "tables show the same as before"


def test_a_fit_that_something_still_needs_stays(sound: Path) -> None:
    below = cell(sound, 7, "tip-adapter", defaults={"steps": 1})
    cell(sound, 7, "clap", after={"tip-adapter": below})
    cell(sound, 7, "tip-adapter", defaults={"steps": 2}, written=LATER)
    alone = cell(sound, 8, "tip-adapter")
    next((sound / "runs").rglob(f"{alone[: places.SHORT]}-*.json")).unlink()
    next((sound / "runs").rglob(f"{alone[: places.SHORT]}-*.npz")).unlink()
    gone = cell(sound, 9, "no-such-method")
    cell(sound, 9, "prolip", after={"no-such-method": gone})
    call(sound, "--remove", "stale,orphaned", "--yes")
    assert record_of(sound, gone).is_file() and "prolip" in {row[0] for row in rows(sound)}
    assert record_of(sound, below).is_file() and record_of(sound, alone).is_file()
    assert "clap" in {row[0] for row in rows(sound)}


def test_plugins_and_own_datasets_are_not_taken_for_orphans(sound: Path, tmp_path: Path) -> None:
    cell(sound, 7, "my-probe", parts={"source": "5" * 64})
    path = record_of(sound, cell(sound, 7, dataset="holiday"))
    record = store.read(path)
    store.put(path, replace(record, dataset_identity="6" * 64))
    done = call(sound)
    assert done.exit_code == 0 and "not loaded: my-probe" in done.output, done.output
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from bench.interface import Method\n\n\n"
        "class Mine(Method):\n    name = 'my-probe'\n    title = 'x'\n"
    )
    done = call(sound, "--plugin", plugin)
    assert done.exit_code == 5 and "another plugin file, or an earlier state of it" in done.output


def test_what_a_living_process_writes_is_left_alone(sound: Path) -> None:
    half = sound / "runs" / ".x.json.abcd1234.tmp"
    half.write_text("{")
    with half.open("r+b") as living:
        files.lock(living)
        assert call(sound).exit_code == 0
    assert call(sound, "--remove", "orphaned", "--yes").exit_code == 0 and not half.exists()


def test_what_a_run_has_just_written_stays(sound: Path) -> None:
    """A run writes a state and predictions before the records that speak of them."""
    without_record(sound)
    written = [*sound.rglob("ab*.safetensors"), *sound.rglob("cc*.npz")]
    for file in written:
        os.utime(file)
    done = call(sound, "--remove", "orphaned", "--yes")
    assert done.exit_code == 5 and "younger than 10 minutes: 2 (" in done.output, done.output
    assert "deleted 1 (" in done.output and all(file.is_file() for file in written)


def test_what_got_its_record_while_the_user_thought_stays(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = cell(sound, 7, "prolip")
    record = record_of(sound, key)
    fit = store.read(record)
    assert isinstance(fit, FitRecord)
    evaluations = {f: f.read_bytes() for f in record.parent.glob(f"{record.stem}-*.*")}
    for file in (record, *evaluations):
        file.unlink()
    state = places.state_path(sound, key)
    write_bytes(state, b"state")
    os.utime(state, (HOUR_AGO, HOUR_AGO))

    def answer(question: str) -> bool:
        store.put(record, replace(fit, has_state=True, state=codec.checksum_bytes(b"state")))
        return True

    monkeypatch.setattr("bench.cli.say.confirmed", answer)
    assert "orphaned: 1 (" in call(sound).output
    done = call(sound, "--remove", "orphaned")
    assert done.exit_code == 0 and state.is_file(), done.output


def test_states_of_a_folder_without_records_are_not_removed(sound: Path) -> None:
    without_record(sound)
    shutil.move(sound / "runs", sound / "elsewhere")
    refused = call(sound, "--remove", "orphaned", "--yes").exception
    assert isinstance(refused, BenchError) and "every fitted state looks orphaned" in str(refused)
    assert list(sound.rglob("*.safetensors"))


def test_packed_records_are_listed_and_stay(sound: Path, tmp_path: Path) -> None:
    unknown(sound)
    out = tmp_path / "packed"
    pack(sound, out)
    before = (out / "records.jsonl.xz").read_bytes()
    done = call(out, "--remove", "stale,orphaned", "--yes")
    assert (
        done.exit_code == 5
        and "orphaned: 4 (4 packed)" in done.output
        and "4 packed records stay" in done.output
    )
    assert (out / "records.jsonl.xz").read_bytes() == before


def test_it_imports_no_torch(sound: Path) -> None:
    code = (
        "import sys\nfrom bench.cli.app import app\n"
        f"app(['records', '--results', {str(sound)!r}], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert isinstance(call(tmp_path / "no").exception, BenchError)
    (tmp_path / "empty").mkdir()
    assert isinstance(call(tmp_path / "empty").exception, BenchError)


@pytest.mark.parametrize("form", ["schema-1", "schema-1-packed"])
def test_records_of_an_older_schema_are_stale_until_they_are_brought_over(form: str, tmp_path: Path) -> None:
    results = Path(shutil.copytree(FIXTURES / form, tmp_path / "results"))
    done = call(results)
    assert done.exit_code == 5 and "`bench convert` brings it over" in done.output
    assert not any(line.startswith(("damaged:", "orphaned:")) for line in done.output.splitlines())
    refused = call(results, "--remove", "stale", "--yes").exception
    assert isinstance(refused, BenchError) and "bench convert --results" in str(refused)
