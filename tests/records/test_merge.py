"""`bench merge` joins equal and new records, lists conflicts, and leaves nothing half written."""

from __future__ import annotations

import lzma
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner, Result

from bench.errors import BenchError
from bench.files import write_bytes
from bench.records import codec, merge, places, store
from bench.records.packed import RECORDS
from bench.records.types import EvaluationRecord, FitRecord
from bench.report.compact import pack
from bench.report.frame import load_results
from tests.report.synthetic import grid, write_cell


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def shown(folder: Path) -> list[tuple[Any, ...]]:
    """What tables show of a folder."""
    frame = load_results(folder)
    assert not frame.attrs["bad"], frame.attrs["bad"]
    return sorted(frame[["method", "dataset", "seed", "accuracy", "top5"]].itertuples(index=False, name=None))


def call(*words: object) -> Result:
    from bench.cli.app import app

    return CliRunner().invoke(app, ["merge", *map(str, words)])


def give_state(folder: Path, key: str, data: bytes, **fields: Any) -> None:
    """Change the record of a fit, which has a state of these bytes from now on."""
    path = next((folder / "runs").rglob(f"{key[: places.SHORT]}.json"))
    record = store.read(path)
    assert isinstance(record, FitRecord)
    write_bytes(places.state_path(folder, key), data)
    store.put(path, replace(record, has_state=True, state=codec.checksum_bytes(data), **fields))


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders: seed 1 in both, measured at two times; seed 2 in the first, seed 3 in the second."""
    a, b = tmp_path / "a", tmp_path / "b"
    for folder, seeds, day in ((a, (1, 2), "01"), (b, (1, 3), "02")):
        for seed in seeds:
            written = f"2026-01-{day}T00:00:00.000+00:00"
            key = write_cell(folder, "safe", "ants", 1, seed, 0.6, folder=folder.name, written=written)
            give_state(folder, key, f"state {seed}".encode())
    write_bytes(a / "splits" / "ants-0123456789ab.json", b"{}")
    write_bytes(b / "images" / "f00" / "abc-1.json", b"b")
    write_bytes(a / "images" / "f00" / "abc-1.json", b"a")
    return a, b


def test_equal_and_new_records_are_joined_and_the_inputs_stay(two: tuple[Path, Path], tmp_path: Path) -> None:
    before = [contents(folder) for folder in two]
    out = tmp_path / "c"
    dry = call(*two, "--out", out, "--dry-run")
    assert dry.exit_code == 0 and not out.exists() and "nothing was written" in dry.output
    done = call(*two, "--out", out)
    assert done.exit_code == 0, done.output
    assert "equal: 2 (2 of them measured more than once, with the same result)" in done.output
    assert f"new: 4 (2 from {two[0]}, 2 from {two[1]})" in done.output
    assert "nothing was written (--dry-run); 6 records would be" in dry.output
    assert f"merged into {out}: 6 records written" in done.output
    assert [contents(folder) for folder in two] == before
    names = {name for folder in before for name in folder}
    merged = contents(out)
    assert names <= merged.keys() and len(merged) == len(names) + 1, "both copies of the image stamps"
    assert shown(out) == sorted({*shown(two[0]), *shown(two[1])})
    assert {f.name for f in (out / "states").iterdir()} == {
        f.name for folder in two for f in (folder / "states").iterdir()
    }
    again = call(*two, "--out", out)
    assert again.exit_code == 0 and ": 0 records written" in again.output and contents(out) == merged


def test_an_interrupted_merge_goes_on(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    merge.plan(two, whole).write()
    count = len(merge.plan(two, tmp_path / "c").copies)
    for stop in range(0, count, 3):
        out, written = tmp_path / f"c{stop}", 0

        def write(path: Path, data: bytes, stop: int = stop) -> None:
            nonlocal written
            if written == stop:
                raise KeyboardInterrupt
            written += 1
            write_bytes(path, data)

        with monkeypatch.context() as patch:
            patch.setattr(merge, "write_bytes", write)
            with pytest.raises(KeyboardInterrupt):
                merge.plan(two, out).write()
        bad: list[Any] = []
        for path, record in store.every(out, bad):
            if isinstance(record, EvaluationRecord):
                store.outcome(path, record)
        assert not bad, "what is there is whole"
        merge.plan(two, out).write()
        assert contents(out) == contents(whole)


def test_a_conflict_is_listed_and_decided(tmp_path: Path) -> None:
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for folder, accuracy in ((a, 0.6), (b, 0.8)):
        write_cell(folder, "safe", "ants", 1, 1, accuracy)
        write_cell(folder, "safe", "ants", 1, 2, 0.5)
    done = call(a, b, "--out", out)
    assert done.exit_code == 1 and not out.exists()
    path = next((a / "runs").rglob("*-*.json")).parent
    assert "in conflict: 1" in done.output and str(path) in done.output.replace("\n", "")
    assert "top1 (0.6000) and (0.8000)" in done.output and "predictions" in done.output
    assert isinstance(call(a, b, "--out", out, "--prefer", tmp_path / "d").exception, BenchError)
    write_cell(tmp_path / "other", "coop", "ants", 1, 1, 0.5)
    done = call(a, b, tmp_path / "other", "--out", out, "--prefer", tmp_path / "other")
    assert done.exit_code == 1 and "has no result of these cells" in done.output
    for folder in (a, b):
        chosen = tmp_path / f"by {folder.name}"
        done = call(a, b, "--out", chosen, "--prefer", folder)
        assert done.exit_code == 0 and "decided by --prefer: 1" in done.output
        assert shown(chosen) == shown(folder)


def test_what_the_output_holds_stays(tmp_path: Path) -> None:
    a, out = tmp_path / "a", tmp_path / "c"
    write_cell(a, "safe", "ants", 1, 1, 0.6)
    write_cell(out, "safe", "ants", 1, 1, 0.8)
    write_cell(out, "safe", "ants", 1, 2, 0.8)
    before = contents(out)
    done = call(a, "--out", out, "--prefer", a)
    assert done.exit_code == 1
    line = f"Write to a new folder: `bench merge {out} {a} --out NEW --prefer {a}`"
    assert line in " ".join(done.output.split()) and f"`{out}` already holds another result" in done.output
    undecided = call(a, "--out", out)
    assert undecided.exit_code == 1 and "--out NEW --prefer FOLDER`" in undecided.output
    assert call(a, "--out", out, "--prefer", out).exit_code == 0
    assert contents(out) == before
    assert call(a, out, "--out", tmp_path / "d", "--prefer", a).exit_code == 0
    assert [row[3] for row in shown(tmp_path / "d")] == [pytest.approx(60.0), pytest.approx(80.0)]


def test_what_builds_on_a_fit_that_lost_is_left_out(tmp_path: Path) -> None:
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    key = write_cell(a, "coop", "ants", 1, 1, 0.5)
    assert write_cell(b, "coop", "ants", 1, 1, 0.5) == key
    give_state(b, key, b"other", step=3)
    write_cell(b, "safe", "ants", 1, 1, 0.7, after={"coop": key})
    assert call(a, b, "--out", out).exit_code == 1
    done = call(a, b, "--out", out, "--prefer", a)
    assert done.exit_code == 0 and "build on a fit that was not preferred: 2" in done.output
    assert shown(out) == shown(a) and not (out / "states").exists()
    assert call(a, b, "--out", tmp_path / "d", "--prefer", b).exit_code == 0
    assert shown(tmp_path / "d") == shown(b) and (tmp_path / "d" / "states").is_dir()


def test_a_result_counts_before_a_failure(tmp_path: Path) -> None:
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    write_cell(a, "safe", "ants", 1, 1, 0.6, fail="no memory")
    write_cell(b, "safe", "ants", 1, 1, 0.6)
    done = call(a, b, "--out", out)
    assert done.exit_code == 0 and "failed in one folder and done in another" in done.output
    assert shown(out) == shown(b)
    assert call(b, "--out", a).exit_code == 0 and shown(a) == shown(b)


def test_damaged_records_are_said_and_left_out(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = two
    predictions = sorted((a / "runs").rglob("*.npz"))
    for file in predictions:
        file.write_bytes(b"torn")
    state = places.state_path(a, load_results(b)["fit"].iloc[0])
    if state.is_file():
        state.write_bytes(b"torn")
    out = tmp_path / "c"
    done = call(a, b, "--out", out)
    assert done.exit_code == 3 and "left out, because damaged" in done.output
    assert shown(out) == shown(b)
    assert call(b, "--out", a).exit_code == 3, "what was damaged in the output is replaced"
    assert set(shown(b)) <= {
        (*row,)
        for row in load_results(a)[["method", "dataset", "seed", "accuracy", "top5"]].itertuples(index=False)
    }


def test_packed_folders_are_joined(tmp_path: Path) -> None:
    for name, seeds in (("a", (1, 2)), ("b", (2, 3))):
        grid(tmp_path / name, {"safe": 0.6, "coop": 0.4}, shots=(1,), seeds=seeds)
    loose, packed = tmp_path / "a", tmp_path / "p"
    pack(tmp_path / "b", packed)
    merge.plan([packed], tmp_path / "copy").write()
    assert shown(tmp_path / "copy") == shown(packed)
    for first, second in ((loose, packed), (packed, loose)):
        out = tmp_path / f"{first.name}{second.name}"
        done = call(first, second, "--out", out)
        assert done.exit_code == 0 and "in conflict: 0" in done.output, done.output
        written = len(list(store.every(out, [])))
        assert f": {written} records written" in done.output, "those in files and those packed"
        assert shown(out) == sorted({*shown(loose), *shown(packed)})
        assert (out / "runs").is_dir() and (out / "records.jsonl.xz").is_file()
    path, record = next((p, r) for p, r in store.every(packed) if isinstance(r, EvaluationRecord))
    store.put(path, record)  # a record in a file, whose predictions are packed
    merge.plan([packed], tmp_path / "half").write()
    assert shown(tmp_path / "half") == shown(packed)
    path.unlink()
    (tmp_path / "c").mkdir()
    write_cell(tmp_path / "c", "safe", "ants", 1, 3, 0.6, fail="no memory")
    merge.plan([packed], tmp_path / "c").write()
    assert shown(tmp_path / "c") == shown(packed), "a failure does not hide the packed result"
    pack(loose, tmp_path / "q")
    merge.plan([packed], tmp_path / "q").write()
    assert shown(tmp_path / "q") == sorted({*shown(loose), *shown(packed)})


def test_what_cannot_be_joined_is_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = two
    for words in ((a, b, "--out", a), (a, b, "--out", b / "runs" / "x")):
        assert isinstance(call(*words).exception, BenchError), words
    with pytest.raises(BenchError, match="no records there"):
        merge.plan([a, tmp_path / "no"], tmp_path / "c")
    write_bytes(b / "splits" / "ants-0123456789ab.json", b"{ }")
    done = call(a, b, "--out", tmp_path / "c")
    assert done.exit_code == 1 and "differ in the split" in done.output
    assert call(a, b, "--out", tmp_path / "c", "--prefer", b).exit_code == 0
    assert (tmp_path / "c" / "splits" / "ants-0123456789ab.json").read_bytes() == b"{ }"


def test_another_device_is_no_conflict_and_other_numbers_are(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = two
    for path, record in list(store.every(b)):
        facts = replace(record.provenance, device="cuda:0", device_name="other", commit="abc")
        seconds: Any = {"fit": 9.0} if isinstance(record, FitRecord) else 9.0
        store.put(path, replace(record, provenance=facts, seconds=seconds))
    assert not merge.plan(two, tmp_path / "c").conflicts
    shutil.rmtree(b / "states")
    assert not merge.plan((b, a), tmp_path / "c").conflicts
    path, record = next((p, r) for p, r in store.every(b) if isinstance(r, FitRecord) and r.cell.seed == 1)
    store.put(path, replace(record, values={"lr": 0.2}))
    conflicts = merge.plan(two, tmp_path / "c").conflicts
    assert [(c.other, c.what) for c in conflicts] == [(path, "values")]


def fit_file(folder: Path) -> Path:
    return next(path for path in (folder / "runs").rglob("*.json") if "-" not in path.stem)


@pytest.mark.parametrize("how", ["damaged", "missing", "failed"])
@pytest.mark.parametrize("into", ["new", "loose", "packed"])
def test_an_evaluation_joins_no_fit_of_another_folder(how: str, into: str, tmp_path: Path) -> None:
    """Folder a has one fit and no evaluation of it, folder b an evaluation of another fit of the same key."""
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    for folder in (a, b):
        write_cell(folder, "safe", "ants", 1, 1, 0.6)
        write_cell(folder, "safe", "ants", 1, 2, 0.6)
    own = fit_file(a)
    fit = store.read(own)
    assert isinstance(fit, FitRecord)
    store.put(own, replace(fit, values={"lr": 0.9}))
    for file in own.parent.glob(f"{own.stem}-*"):
        file.unlink()
    other = b / own.relative_to(a)
    if into == "packed":
        pack(b, tmp_path / "p")
        b = tmp_path / "p"
        other = b / own.relative_to(a)
    if how == "missing" and into == "packed":
        file = b / RECORDS
        lines = lzma.decompress(file.read_bytes()).splitlines(keepends=True)
        file.write_bytes(lzma.compress(b"".join(x for x in lines if f"{own.stem}.json".encode() not in x)))
    elif how == "missing":
        other.unlink()
    elif how == "damaged":
        write_bytes(other, b"{}")
    else:
        write_cell(tmp_path / "f", "safe", "ants", 1, fit.cell.seed, 0.6, fail="no memory")
        write_bytes(other, fit_file(tmp_path / "f").read_bytes())
    plan = merge.plan([a, b], out) if into == "new" else merge.plan([a], out := b)
    assert plan.bad and not plan.conflicts
    plan.write()
    frame = load_results(out)
    assert len(frame[frame["accuracy"].notna()]) == 1, "the sound cell of the other seed alone"
    assert store.read(out / own.relative_to(a)) == store.read(own)
    again = merge.plan([a], out)
    assert not again.bad and not again.copies, "the evaluation is gone, not waiting for the next merge"


@pytest.mark.parametrize("form", ["loose", "packed"])
def test_an_interruption_leaves_no_evaluation_beside_a_fit_of_another_folder(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both folders have an evaluation of the key; the fit of the one in the output is damaged."""
    a, made = tmp_path / "a", tmp_path / "made"
    for folder, accuracy in ((a, 0.6), (made, 0.8)):
        write_cell(folder, "safe", "ants", 1, 1, accuracy)
    write_cell(made, "coop", "ants", 1, 1, 0.5)
    store.put(fit_file(a), replace(store.read(fit_file(a)), values={"lr": 0.9}))  # type: ignore[type-var]
    if form == "packed":
        pack(made, tmp_path / "packed")
    source = tmp_path / "packed" if form == "packed" else made
    rename, stop = os.replace, 0
    while stop < 9:
        out, calls = shutil.copytree(source, tmp_path / f"out {stop}"), 0
        write_bytes(out / fit_file(a).relative_to(a), b"{}")

        def interrupted(source: Any, target: Any, stop: int = stop) -> None:
            nonlocal calls
            calls += 1
            if calls > stop:
                raise KeyboardInterrupt
            rename(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", interrupted)
            try:
                merge.plan([a], out).write()
                break
            except KeyboardInterrupt:
                there = load_results(out).set_index("method")["accuracy"]
                assert there.get("safe", 60.0) == pytest.approx(60.0) and there["coop"] == 50.0
        merge.plan([a], out).write()
        assert set(shown(a)) <= set(shown(out))
        stop += 1
    assert 3 <= stop < 9 and set(shown(a)) <= set(shown(out))


def test_an_interrupted_merge_into_packed_records_damages_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seeds in (("a", (1, 2)), ("b", (3,))):
        grid(tmp_path / name, {"safe": 0.6, "coop": 0.4}, datasets=("ants",), shots=(1,), seeds=seeds)
        pack(tmp_path / name, tmp_path / f"packed {name}")
    write_cell(tmp_path / "c", "tip", "ants", 1, 1, 0.6)
    inputs = [tmp_path / "packed b", tmp_path / "c"]
    held, rename = shown(tmp_path / "packed a"), os.replace
    merge.plan(inputs, shutil.copytree(tmp_path / "packed a", tmp_path / "whole")).write()
    stop = 0
    while True:
        out, calls = shutil.copytree(tmp_path / "packed a", tmp_path / f"out {stop}"), 0

        def interrupted(source: Any, target: Any, stop: int = stop) -> None:
            nonlocal calls
            calls += 1
            if calls > stop:
                raise KeyboardInterrupt
            rename(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", interrupted)
            try:
                merge.plan(inputs, out).write()
                break
            except KeyboardInterrupt:
                assert set(held) <= set(shown(out)), "what the output alone holds is as sound as before"
        again = merge.plan(inputs, out)
        assert not again.bad
        again.write()
        assert shown(out) == shown(tmp_path / "whole")
        stop += 1
    assert stop == 5, "a fit, an evaluation with its predictions, and both packed files"
