"""The store returns what was written, in the order of writing, or it refuses a file and names it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bench import files
from bench.errors import BenchError
from bench.plan.earlier import Earlier
from bench.records import codec, keys, places, store
from bench.records.types import EvaluationRecord, Failure, FitRecord
from bench.report.compact import pack
from bench.report.frame import correct, load_results
from tests.report.synthetic import grid, write_cell


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """Return the path of an evaluation's record."""
    write_cell(tmp_path, "safe", "ants", 1, 1, 0.6)
    return next((tmp_path / "runs").rglob("*-*.json"))


def resealed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a record and give it the checksum of its new content."""
    plain = json.loads(path.read_text())
    change(plain)
    plain["checksum"] = ""
    data = msgspec.json.encode(plain, order="sorted").replace(b'"checksum":"",', b"")
    import hashlib

    plain["checksum"] = hashlib.sha256(data).hexdigest()[:32]
    path.write_text(json.dumps(plain))


def test_what_was_written_is_read(one: Path) -> None:
    record = store.read(one)
    assert isinstance(record, EvaluationRecord)
    assert record.checksum == codec.checksum(record)
    assert codec.decode(codec.encode(record)) == codec.decode(codec.encode(record, indent=2)) == record
    resealed(one, lambda plain: None)
    assert store.read(one) == record, "the layout of the file does not matter, its content does"


@pytest.mark.parametrize(
    "edit",
    [('"top1": 0.6', '"top1": 0.9'), ('"seed": 1', '"seed": 2'), ('"dataset": "ants"', '"dataset": "bees"')],
    ids=["accuracy", "seed", "dataset"],
)
def test_an_edited_record_is_refused(one: Path, edit: tuple[str, str]) -> None:
    text = one.read_text()
    assert edit[0] in text
    one.write_text(text.replace(*edit))
    with pytest.raises(BenchError, match="not as it was written") as error:
        store.read(one)
    assert str(one) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.update(top1=2.0), "top1"),
        (lambda r: r.update(top1=-5), "top1"),
        (lambda r: r.update(top1="0.6"), "top1"),
        (lambda r: r.update(n=-1), "n"),
        (lambda r: r.update(accuracy=0.6), "accuracy"),
        (lambda r: r["cell"].update(shots="many"), "shots"),
        (lambda r: r["cell"].update(seed=1.5), "seed"),
        (lambda r: r.pop("target"), "target"),
        (lambda r: r.update(key="../../x"), "key"),
        (lambda r: r.update(kind="guess"), "guess"),
        (lambda r: r.update(schema=3), "schema 3"),
        (lambda r: r.update(schema=0), "schema"),
    ],
)
def test_a_field_that_no_record_may_have_is_named(
    one: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    resealed(one, change)
    with pytest.raises(BenchError, match="delete it to run its cell again") as error:
        store.read(one)
    assert says in str(error.value) and str(one) in str(error.value)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(EvaluationRecord.__struct_fields__), value=_json)
def test_any_json_is_a_record_or_one_line(one: Path, field: str, value: Any) -> None:
    before = one.read_text()
    try:
        one.write_text(json.dumps({**json.loads(before), field: value}))
        record = store.read(one)
    except BenchError as error:
        assert str(one) in str(error)
    else:
        assert record is not None
    finally:
        one.write_text(before)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"schema": 2}', b'{"schema": 1}', b"{}" * 9]
)
def test_what_is_no_record_is_one_line(one: Path, data: bytes) -> None:
    one.write_bytes(data)
    with pytest.raises(BenchError, match="not a re"):
        store.read(one)


def test_exchanged_predictions_are_refused(tmp_path: Path) -> None:
    write_cell(tmp_path, "safe", "ants", 1, 1, 0.6)
    write_cell(tmp_path, "safe", "ants", 1, 2, 0.6)
    first, second = sorted((tmp_path / "runs").rglob("*.npz"))
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b), second.write_bytes(a)
    for path in (first, second):
        with pytest.raises(BenchError, match="not the predictions that its record speaks of"):
            correct(path.with_suffix(".json"))


def test_packed_predictions_are_checked_too(tmp_path: Path) -> None:
    grid(tmp_path / "a", {"safe": 0.6}, shots=(1,))
    pack(tmp_path / "a", tmp_path / "b")
    file = tmp_path / "b" / "predictions.npz"
    with np.load(file) as arrays:
        turned = {k: arrays[k] if k.endswith("labels") else arrays[k][:, ::-1] for k in arrays.files}
    np.savez_compressed(file, allow_pickle=False, **turned)
    frame = load_results(tmp_path / "b")
    assert len(frame) == 2, "of three columns the one in the middle has kept its place"
    assert frame.attrs["bad"].startswith("left out: 4 records") and "top1 differ" in frame.attrs["bad"]


def test_fields_at_their_default_are_neither_written_nor_keyed(one: Path) -> None:
    text = one.read_text()
    for reserved in ("classes", "per_class", "outputs", "metrics", "target_identity", "text"):
        assert f'"{reserved}"' not in text
    record = store.read(one)
    assert record is not None
    fit = store.behind(one, record)[0].parts
    plain = msgspec.to_builtins(fit)
    assert not {"classes", "draw_kind", "source", "sentences", "engine"} & set(plain)
    assert replace(fit, classes="base").digest() != fit.digest()
    assert replace(fit, draw_kind="fold").digest() != fit.digest()
    assert replace(fit, engine=2).digest() != fit.digest()


def test_every_field_of_a_fit_key_moves_it(one: Path) -> None:
    record = store.read(one)
    assert record is not None
    fit = store.behind(one, record)[0].parts
    other: dict[str, Any] = {
        "shots": "all",
        "seed": 9,
        "version": 9,
        "engine": 9,
        "sentences": True,
        "draw_kind": "fold",
    }
    other |= {"settings": {"x": 1}, "recipe": {"x": 1}, "after": {"x": "0" * 64}}
    digests = {
        replace(fit, **{name: other.get(name, "another")}).digest() for name in keys.FitKey.__struct_fields__
    }
    assert len(digests | {fit.digest()}) == len(keys.FitKey.__struct_fields__) + 1


def test_a_later_record_has_the_larger_number_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cell(tmp_path, "safe", "ants", 1, 1, 0.9)
    clock = store.Clock.of(tmp_path)
    first = clock.tick()
    assert abs(first - time.time() * 1000) < 60_000
    monkeypatch.setattr(time, "time_ns", lambda: 1)  # the clock is set back to 1970
    assert clock.tick() == first + 1
    path = next((tmp_path / "runs").rglob("*-*.json"))
    old = store.read(path)
    assert isinstance(old, EvaluationRecord)
    again = store.Clock.of(tmp_path)
    assert (again.folder, again.last) == (clock.folder, old.provenance.order)
    store.write(path, old, again)
    new = store.read(path)
    assert new is not None
    assert new.provenance.order == old.provenance.order + 1 and new.provenance.folder == clock.folder


def test_newer_images_count_though_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counter decides in tables and in the next run, not the time that a record names."""

    class Before(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Before:
            return cls(1999, 1, 1, tzinfo=tz)

    for seed in (1, 2):
        write_cell(tmp_path, "safe", "ants", 1, seed, 0.9)
    known = set((tmp_path / "runs").rglob("*.json"))
    for seed in (1, 2):
        write_cell(tmp_path, "safe", "ants", 1, seed, 0.5, content="exchanged")
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    monkeypatch.setattr(store, "datetime", Before)
    clock = store.Clock.of(tmp_path)
    for path in sorted(set((tmp_path / "runs").rglob("*.json")) - known):
        record = store.read(path)
        assert record is not None
        store.write(path, record, clock)
    frame = load_results(tmp_path)
    assert list(frame["accuracy"]) == [pytest.approx(50.0)] * 2
    assert all(written < "2000" for written in frame["written"])
    assert (
        "Left out: 2 records made with older images of ants, which have changed since."
        in frame.attrs["notes"]
    )
    assert Earlier(tmp_path).last == clock.last


def test_merged_folders_that_disagree_are_named(tmp_path: Path) -> None:
    later = "2026-03-01T00:00:00.000+00:00"
    for seed in (1, 2, 3):
        write_cell(tmp_path, "safe", "ants", 1, seed, 0.6, folder="here")
    assert load_results(tmp_path).attrs["notes"] == []
    write_cell(tmp_path, "coop", "ants", 1, 1, 0.4, folder="there")
    assert load_results(tmp_path).attrs["notes"] == [], "two folders that agree are no conflict"
    write_cell(tmp_path, "safe", "ants", 1, 2, 0.8, folder="there", weights="w2", written=later)
    notes = load_results(tmp_path).attrs["notes"]
    assert any("The merged folders disagree on the weights of toy-rn." in note for note in notes), notes
    assert any("older weights of toy-rn" in note for note in notes)


def test_two_records_of_one_cell_from_two_folders_are_named(tmp_path: Path) -> None:
    write_cell(tmp_path, "safe", "ants", 1, 1, 0.6, folder="here")
    write_cell(
        tmp_path,
        "safe",
        "ants",
        1,
        1,
        0.9,
        folder="there",
        parts={"draw": "another"},
        written="2026-03-01T00:00:00+00:00",
    )
    frame = load_results(tmp_path)
    assert list(frame["accuracy"]) == [pytest.approx(90.0)]
    assert any("The merged folders disagree" in note for note in frame.attrs["notes"])


def test_a_result_that_may_not_be_recorded_is_one_line(one: Path) -> None:
    record = store.read(one)
    assert isinstance(record, EvaluationRecord)
    with pytest.raises(BenchError, match="cannot be recorded"):
        store.put(one, replace(record, top1=1.5))
    assert store.read(one) == record


def test_failures_and_fits_are_types_of_their_own(tmp_path: Path) -> None:
    write_cell(tmp_path, "safe", "ants", 1, 1, 0.6)
    write_cell(tmp_path, "coop", "ants", 1, 1, 0.6, fail="no memory")
    kinds = [type(r) for _, r in store.every(tmp_path)]
    assert sorted(k.__name__ for k in kinds) == ["EvaluationRecord", "Failure", "FitRecord"]
    failure = next(r for _, r in store.every(tmp_path) if isinstance(r, Failure))
    assert (
        store.fit(
            places.fit_path(places.folder(tmp_path, "toy-rn", "ants", "coop"), failure.key), failure.key
        )
        is None
    )
    fit = next(r for _, r in store.every(tmp_path) if isinstance(r, FitRecord))
    assert (
        store.fit(places.fit_path(places.folder(tmp_path, "toy-rn", "ants", "safe"), fit.key), fit.key) == fit
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), "\ud800"])
def test_what_json_does_not_have_is_refused(one: Path, value: object) -> None:
    record = store.read(one)
    assert isinstance(record, EvaluationRecord)
    with pytest.raises(BenchError, match="cannot be recorded"):
        store.put(one, replace(record, values={"beta": value}))
    assert store.read(one) == record


def test_numpy_numbers_are_numbers(one: Path) -> None:
    record = store.read(one)
    assert isinstance(record, EvaluationRecord)
    fit = store.behind(one, record)[0].parts
    plain = replace(fit, settings={"lr": [0.001, 0.1]}, recipe={"steps": 5})
    numpy = replace(fit, settings={"lr": tuple(np.array([0.001, 0.1]))}, recipe={"steps": np.int64(5)})
    assert plain.digest() == numpy.digest()
    with pytest.raises(BenchError, match="safe: its settings or recipe cannot be in a key"):
        replace(fit, settings={"lr": float("inf")}).digest()
    store.put(one, replace(record, values={"lr": np.float64(0.5)}))
    again = store.read(one)
    assert isinstance(again, EvaluationRecord) and again.values == {"lr": 0.5}


def test_damaged_predictions_are_one_line(one: Path) -> None:
    """Flip bits of predictions: a checksum shows it, or the file does not open."""
    file = one.with_suffix(".npz")
    whole = file.read_bytes()
    rng = np.random.default_rng(3)
    for at in rng.integers(0, 8 * len(whole), 300):
        torn = bytearray(whole)
        torn[at // 8] ^= 1 << (at % 8)
        file.write_bytes(bytes(torn))
        try:
            store.predictions(one)
        except BenchError as error:
            assert str(file) in str(error)


def test_damaged_packs_are_one_line(tmp_path: Path) -> None:
    grid(tmp_path / "a", {"safe": 0.6}, shots=(1,))
    pack(tmp_path / "a", tmp_path / "b")
    path = load_results(tmp_path / "b")["path"][0]
    for name, data in (
        ("predictions.npz", b"torn"),
        ("predictions.npz", None),
        ("records.jsonl.xz", b"torn"),
    ):
        file = tmp_path / "b" / name
        whole = file.read_bytes()
        file.unlink() if data is None else file.write_bytes(data)
        with pytest.raises(BenchError, match=str(file)):
            load_results(tmp_path / "b")
            correct(path)
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source": "b" * 64}, "its source"),
        ({"engine": 2}, "the harness"),
        (
            {"prompts": "t" * 64, "preprocessing": "other"},
            "the preprocessing of images and the texts of its prompts",
        ),
    ],
)
def test_seeds_of_several_makes_do_not_mix(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    """One seed ran again with an edited plugin, a new harness or other texts: only that seed counts."""
    for seed in (1, 2, 3):
        write_cell(tmp_path, "safe", "ants", 1, seed, 0.6)
    write_cell(tmp_path, "safe", "ants", 1, 2, 0.8, parts=change, written="2026-02-01T00:00:00.000+00:00")
    frame = load_results(tmp_path)
    assert list(frame["seed"]) == [2] and list(frame["accuracy"]) == [pytest.approx(80.0)]
    note = f"Left out: 3 records of safe from before a change of {says}."
    assert frame.attrs["notes"] == [note]


def test_what_killed_runs_left_half_written_is_swept_where_a_run_writes(tmp_path: Path) -> None:
    left = [tmp_path / part / ".x.json.abcd1234.tmp" for part in ("", "runs/a/b/c", "states", "images/ab")]
    others = [tmp_path / "mine" / ".x.json.abcd1234.tmp", tmp_path / "runs" / "a" / "x.json"]
    for file in (*left, *others):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{")
    with left[1].open("r+b") as living:
        files.lock(living)
        store.tidy(tmp_path)
        assert [file.exists() for file in left] == [False, True, False, False]
    store.tidy(tmp_path)
    assert not any(file.exists() for file in left) and all(file.exists() for file in others)
