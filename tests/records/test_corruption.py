"""Damaged results of every kind: tables print what was measured, or they say what they left out."""

from __future__ import annotations

import json
import lzma
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bench.errors import BenchError
from bench.records import codec, packed, states, store
from bench.records.packed import PREDICTIONS, RECORDS
from bench.records.types import EvaluationRecord, FitRecord, Record
from bench.report.compact import pack
from bench.report.frame import correct, load_results
from bench.report.render import render
from bench.report.tables import table
from tests.report.synthetic import grid

Damage = Callable[[list[Path], np.random.Generator], object]
Told = dict[str, tuple[Any, ...]]

TRIES = 12  # of each kind of damage to files
COLUMNS = ("method", "dataset", "target", "seed", "variant", "accuracy", "top5", "n")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    grid(root, {"safe": 0.6, "coop": 0.4}, shots=(1,))
    grid(root, {"safe": 0.5}, ("ants",), shots=(1,), changed={"steps": 7})
    return root


@pytest.fixture(scope="module")
def truth(whole: Path) -> Told:
    return told(whole)[0]


def told(results: Path) -> tuple[Told, str]:
    """Return what tables say of each evaluation, with the right images, by key; and what they left out."""
    frame = load_results(results)
    rows = frame[[*COLUMNS, "key", "path"]].to_dict("records")
    said = {r["key"]: (*(r[c] for c in COLUMNS), correct(r["path"]).tobytes()) for r in rows}
    return said, frame.attrs["bad"]


def hidden(results: Path, truth: Told, top5: bool = True) -> str:
    """Return what a table of damaged records says wrongly without a note; empty if nothing is wrong."""
    try:
        found, bad = told(results)
    except BenchError as error:
        return f"several lines: {error}" if "\n" in str(error) else ""
    assert "\n" not in bad
    for key, row in found.items():
        if key not in truth or any(
            ours != theirs
            for name, ours, theirs in zip((*COLUMNS, "right"), row, truth[key], strict=True)
            if name != "top5" or top5
        ):
            return f"{row[:-1]} instead of {truth.get(key, ('nothing',))[:-1]}"
    return "" if len(found) == len(truth) or bad else f"{len(truth) - len(found)} records left out silently"


def flip(files: list[Path], rng: np.random.Generator) -> None:
    """Flip one bit of a file; in half of the cases the file keeps its time of change."""
    file = files[rng.integers(len(files))]
    data, before = bytearray(file.read_bytes()), file.stat()
    at = int(rng.integers(8 * len(data)))
    data[at // 8] ^= 1 << (at % 8)
    file.write_bytes(bytes(data))
    if rng.integers(2):
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(files: list[Path], rng: np.random.Generator) -> None:
    file = files[rng.integers(len(files))]
    data = file.read_bytes()
    file.write_bytes(data[: int(rng.integers(len(data)))])


def zeros(files: list[Path], rng: np.random.Generator) -> None:
    file = files[rng.integers(len(files))]
    data = bytearray(file.read_bytes())
    at = int(rng.integers(len(data)))
    data[at : at + 64] = bytes(len(data[at : at + 64]))
    file.write_bytes(bytes(data))


def empty(files: list[Path], rng: np.random.Generator) -> None:
    files[rng.integers(len(files))].write_bytes(b"")


def swap(files: list[Path], rng: np.random.Generator) -> None:
    first, second = (files[i] for i in rng.choice(len(files), 2, replace=False))
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other), second.write_bytes(one)


def drop(files: list[Path], rng: np.random.Generator) -> None:
    """Delete a file of predictions or of a fit. An evaluation that is gone looks as if it was never made."""
    files[rng.integers(len(files))].unlink()


def rows(change: Callable[[np.ndarray], np.ndarray], names: tuple[str, ...]) -> Damage:
    """Return a damage that changes arrays of predictions, in a file that opens."""

    def damage(files: list[Path], rng: np.random.Generator) -> None:
        file = files[rng.integers(len(files))]
        with np.load(file) as kept:
            arrays = {name: change(kept[name]) if name in names else kept[name] for name in kept.files}
        np.savez_compressed(file, allow_pickle=False, **arrays)

    return damage


ALL = ("top1", "top5", "labels")
OF_FILES: dict[str, tuple[str, Damage]] = {
    "a bit of a record": ("*.json", flip),
    "a bit of predictions": ("*.npz", flip),
    "a record cut": ("*.json", cut),
    "predictions cut": ("*.npz", cut),
    "zeros in a record": ("*.json", zeros),
    "zeros in predictions": ("*.npz", zeros),
    "an empty record": ("*.json", empty),
    "empty predictions": ("*.npz", empty),
    "records swapped": ("*.json", swap),
    "predictions swapped": ("*.npz", swap),
    "no predictions": ("*.npz", drop),
    "half the rows": ("*.npz", rows(lambda x: x[: len(x) // 2], ALL)),
    "rows reversed": ("*.npz", rows(lambda x: x[::-1], ALL)),
    "labels zeroed": ("*.npz", rows(np.zeros_like, ("labels",))),
    "another type": ("*.npz", rows(lambda x: x + 0.25, ("top1",))),
    "a larger type": ("*.npz", rows(lambda x: x.astype(np.int64) + 65536, ("top1",))),
}


@pytest.mark.parametrize("kind", OF_FILES)
def test_damaged_files(whole: Path, truth: Told, tmp_path: Path, kind: str) -> None:
    pattern, damage = OF_FILES[kind]
    for number in range(TRIES):
        results = Path(shutil.copytree(whole, tmp_path / str(number)))
        damage(sorted(results.rglob(pattern)), np.random.default_rng([number, *map(ord, kind)]))
        assert not (what := hidden(results, truth)), (number, what)


def test_a_fit_that_has_gone_takes_its_evaluation_along(whole: Path, truth: Told, tmp_path: Path) -> None:
    """Without the fit nothing says that settings were changed: the row would count as the method's own."""
    for number in range(TRIES):
        results = Path(shutil.copytree(whole, tmp_path / str(number)))
        fits = [file for file in sorted(results.rglob("*.json")) if "-" not in file.stem]
        fits[number % len(fits)].unlink()
        assert not hidden(results, truth)
        assert "no record of its fit" in load_results(results).attrs["bad"]


def sealed(file: Path, change: Callable[[Record], Record]) -> None:
    """Change a record and give it the checksum of its new content."""
    record = codec.decode(file.read_bytes())
    store.put(file, change(record))


OF_FIELDS: dict[str, Callable[[Any], Any]] = {
    "top1": lambda r: replace(r, top1=min(1.0, r.top1 + 0.01), top5=1.0),
    "top5": lambda r: replace(r, top5=1.0),
    "top5 below top1": lambda r: replace(r, top5=0.0),
    "n": lambda r: replace(r, n=r.n + 1),
    "no image": lambda r: replace(r, n=0, top1=0.0, top5=0.0),
    "key": lambda r: replace(r, key="0" * 64),
    "fit": lambda r: replace(r, fit="0" * 64),
    "parts": lambda r: replace(r, parts=replace(r.parts, target="another")),
    "seed": lambda r: replace(r, cell=replace(r.cell, seed=r.cell.seed + 1)),
    "shots": lambda r: replace(r, cell=replace(r.cell, shots=16)),
    "all shots": lambda r: replace(r, cell=replace(r.cell, shots="all")),
    "method": lambda r: replace(r, cell=replace(r.cell, method="another")),
    "dataset": lambda r: replace(r, cell=replace(r.cell, dataset="another")),
    "target": lambda r: replace(r, target="another"),
    "backbone": lambda r: replace(r, cell=replace(r.cell, backbone="another")),
    "no checksums": lambda r: replace(r, predictions={}, top1=0.0),
}


@pytest.mark.parametrize("kind", OF_FIELDS)
def test_changed_fields_under_a_new_checksum(whole: Path, truth: Told, tmp_path: Path, kind: str) -> None:
    for number in range(2):
        results = Path(shutil.copytree(whole, tmp_path / str(number)))
        files = sorted(results.rglob("*-*.json"))
        sealed(files[number % len(files)], OF_FIELDS[kind])
        assert not (what := hidden(results, truth)), what
        assert load_results(results).attrs["bad"]


def test_labels_that_one_vandal_changed_everywhere_in_one_evaluation(
    whole: Path, truth: Told, tmp_path: Path
) -> None:
    """The labels of other evaluations reveal a record whose predictions, checksums and accuracy agree."""
    results = Path(shutil.copytree(whole, tmp_path / "forged"))
    file = next(results.rglob("*-*.json"))
    record = store.read(file)
    assert isinstance(record, EvaluationRecord)
    arrays = {**store.named(file, ALL), "labels": np.zeros(record.n, np.uint16)}
    share = {
        "top1": float((arrays["top1"] == 0).mean()),
        "top5": float((arrays["top5"] == 0).any(1).mean()),
    }
    store.put(file, replace(record, predictions=store.write_predictions(file, arrays), **share))
    assert not hidden(results, truth)
    assert "its labels are not those of other records" in load_results(results).attrs["bad"]


def lines(results: Path, change: Callable[[list[Any]], list[Any]]) -> None:
    """Rewrite packed records in their own form."""
    file = results / RECORDS
    kept = [msgspec.json.decode(text) for text in lzma.decompress(file.read_bytes()).splitlines()]
    file.write_bytes(lzma.compress(b"\n".join(json.dumps(line).encode() for line in change(kept))))


def first_evaluation(change: Callable[[list[Any]], list[Any]]) -> Callable[[list[Any]], list[Any]]:
    def changed(kept: list[Any]) -> list[Any]:
        i = next(i for i, line in enumerate(kept) if line[2])
        return [*kept[:i], *change(kept[i]), *kept[i + 1 :]]

    return changed


ODD_LINES: dict[str, Callable[[list[Any]], list[Any]]] = {
    "above": lambda x: [[f"../{x[0]}", x[1], x[2]]],
    "up": lambda x: [["a/../b/" + x[0].split("/")[-1], x[1], x[2]]],
    "absolute": lambda x: [["/etc/passwd", x[1], x[2]]],
    "backslashes": lambda x: [[x[0].replace("/", "\\"), x[1], x[2]]],
    "another folder": lambda x: [["a/b/c/" + x[0].split("/")[-1], x[1], x[2]]],
    "twice": lambda x: [x, x],
    "no list": lambda x: [{"at": x[0]}],
    "short": lambda x: [x[:1]],
    "null": lambda x: [None],
    "no record": lambda x: [[x[0], 7, x[2]]],
    "absent array": lambda x: [[x[0], x[1], ["nowhere", 0]]],
    "labels as an array": lambda x: [[x[0], x[1], [f"{x[2][0]}-labels", 0]]],
    "absent column": lambda x: [[x[0], x[1], [x[2][0], 99]]],
    "another column": lambda x: [[x[0], x[1], [x[2][0], x[2][1] + 1]]],
    "negative column": lambda x: [[x[0], x[1], [x[2][0], -1]]],
    "huge column": lambda x: [[x[0], x[1], [x[2][0], 10**40]]],
    "a word as a column": lambda x: [[x[0], x[1], [x[2][0], "0"]]],
    "no place": lambda x: [[x[0], x[1], None]],
    "escape characters": lambda x: [["\x1b[31m/b/c/d.json", x[1], x[2]]],
    "huge number": lambda x: [[x[0], {**x[1], "n": 10**40}, x[2]]],
    "nested": lambda x: [[x[0], {**x[1], "values": json.loads("[" * 500 + "]" * 500)}, x[2]]],
}


@pytest.fixture(scope="module")
def packs(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack(whole, folder)
    return folder


@pytest.mark.parametrize("kind", ODD_LINES)
def test_odd_packed_lines(packs: Path, truth: Told, tmp_path: Path, kind: str) -> None:
    results = Path(shutil.copytree(packs, tmp_path / "odd"))
    lines(results, first_evaluation(ODD_LINES[kind]))
    assert not (what := hidden(results, truth, top5=False)), what
    bad = load_results(results).attrs["bad"]
    assert bad.startswith("left out: a record") and "\x1b" not in bad, bad


PACKED: dict[str, tuple[str, Damage]] = {
    "a bit of records": (RECORDS, flip),
    "a bit of predictions": (PREDICTIONS, flip),
    "records cut": (RECORDS, cut),
    "predictions cut": (PREDICTIONS, cut),
    "zeros in records": (RECORDS, zeros),
    "zeros in predictions": (PREDICTIONS, zeros),
    "no predictions": (PREDICTIONS, drop),
    "empty records": (RECORDS, empty),
}


@pytest.mark.parametrize("kind", PACKED)
def test_damaged_packs(packs: Path, truth: Told, tmp_path: Path, kind: str) -> None:
    name, damage = PACKED[kind]
    for number in range(TRIES // 2):
        results = Path(shutil.copytree(packs, tmp_path / str(number)))
        damage([results / name], np.random.default_rng([number, *map(ord, kind)]))
        assert not (what := hidden(results, truth, top5=False)), (number, what)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, ::-1] if x.ndim == 2 else x,
        lambda x: x[::-1],
        lambda x: x[: len(x) // 2],
        lambda x: x if x.ndim == 2 else np.zeros_like(x),
        lambda x: x.astype(np.float32) + 0.5,
        lambda x: x.ravel(),
    ],
    ids=["columns reversed", "rows reversed", "halved", "labels zeroed", "floats", "flat"],
)
def test_exchanged_packed_arrays(
    packs: Path, truth: Told, tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    results = Path(shutil.copytree(packs, tmp_path / "exchanged"))
    with np.load(results / PREDICTIONS) as kept:
        arrays = {name: change(kept[name]) for name in kept.files}
    np.savez_compressed(results / PREDICTIONS, allow_pickle=False, **arrays)
    assert not (what := hidden(results, truth, top5=False)), what


def test_small_files_that_unpack_to_much_are_one_line(
    packs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "MOST", 1 << 20)
    results = Path(shutil.copytree(packs, tmp_path / "bomb"))
    (results / RECORDS).write_bytes(lzma.compress(b" " * (1 << 24)))
    with pytest.raises(BenchError, match="unpacks to more than"):
        load_results(results)


def test_states_are_those_of_their_records(tmp_path: Path, whole: Path) -> None:
    fit = next(r for _, r in store.every(whole) if isinstance(r, FitRecord))
    data = np.random.default_rng(0).bytes(2000)
    file = tmp_path / "states" / f"{fit.key[:20]}.safetensors"
    file.parent.mkdir()
    file.write_bytes(data)
    kept = replace(fit, has_state=True, state=codec.checksum_bytes(data))
    assert states.read(tmp_path, kept) == data and states.there(tmp_path, kept)
    assert not states.there(tmp_path, replace(kept, state=""))
    assert states.read(tmp_path, replace(kept, state="")) is None, "a file that the record does not speak of"
    rng = np.random.default_rng(1)
    for damage in (flip, cut, zeros, empty) * 5:
        file.write_bytes(data)
        damage([file], rng)
        assert not states.there(tmp_path, kept)
        with pytest.raises(BenchError, match="not the state that the record of its fit speaks of"):
            states.read(tmp_path, kept)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    of_fit=st.booleans(),
    field=st.sampled_from(sorted({*EvaluationRecord.__struct_fields__, *FitRecord.__struct_fields__})),
    value=_json,
    seal=st.booleans(),
)
def test_any_json_gives_a_table_or_one_line(
    packs: Path, truth: Told, tmp_path: Path, of_fit: bool, field: str, value: Any, seal: bool
) -> None:
    """A record with any value in any field, under its old checksum or a fitting one, is refused or right."""
    results = tmp_path / "any"
    shutil.rmtree(results, ignore_errors=True)  # of the example before
    shutil.copytree(packs, results)
    source = next(p for p, r in store.every(packs) if isinstance(r, FitRecord) == of_fit)
    file = results / source.relative_to(packs)
    file.parent.mkdir(parents=True, exist_ok=True)
    plain = {**msgspec.to_builtins(store.read(source)), field: value}
    try:
        data = codec.encode(msgspec.convert(plain, Record)) if seal else json.dumps(plain).encode()
    except (msgspec.ValidationError, BenchError, OverflowError):
        data = json.dumps(plain).encode()
    file.write_bytes(data)
    try:
        frame = load_results(results)
        text = render(table(frame, variants=True, partial=True), "md", styled=False)
    except BenchError as error:
        assert "\n" not in str(error)
        return
    if frame.attrs["bad"]:
        assert frame.attrs["bad"].split("/")[0] in text
    if not seal or field != "changed":  # under a checksum of its own, nothing else says what was changed
        assert not (what := hidden(results, truth, top5=False)), what
