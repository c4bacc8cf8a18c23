"""What is kept of every image: it reads back, whole or packed, and what is damaged in it is found."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from bench.errors import BenchError
from bench.metrics import METRICS
from bench.records import codec, outcomes, packed_outputs, places, store
from bench.records.merge import plan
from bench.records.packed import add
from bench.records.types import EvaluationRecord, FitRecord, PerClass, Record
from bench.report import outputs as report_outputs
from bench.report.compact import pack, parsed
from bench.report.frame import load_results
from bench.report.measures import filled
from bench.report.outputs import outputs_of
from tests.records.told import tell
from tests.report.synthetic import grid

K = 5


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records as they were before outputs."""
    results = tmp_path_factory.mktemp("old")
    grid(results, {"zero-shot": 0.5, "safe": 0.6}, datasets=("ants", "bees"), shots=(16,), seeds=(1, 2))
    return results


@pytest.fixture(scope="module")
def whole(old: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = Path(shutil.copytree(old, tmp_path_factory.mktemp("new") / "results"))
    for path in evaluations(results):
        tell(path, classes(path))
    return results


def classes(path: Path) -> int:
    kept = store.predictions(path)
    return max(K, int(max(kept["top1"].max(), kept["labels"].max())) + 1)


def evaluations(results: Path) -> list[Path]:
    return sorted(places.runs(results).rglob("*-*.json"))


def its(path: Path) -> EvaluationRecord:
    record = store.read(path)
    assert isinstance(record, EvaluationRecord)
    return record


def test_all_arrays_read_back(whole: Path) -> None:
    for path in evaluations(whole):
        record, found = its(path), store.arrays(path, its(path))
        assert [*found] == ["top1", "labels", *outcomes.OUTPUTS] and record.outputs == [*outcomes.OUTPUTS]
        for name, (kind, columns) in outcomes.OUTPUTS.items():
            assert found[name].dtype == kind
            assert found[name].shape == ((record.n, columns) if columns else (record.n,))
        assert codec.checksum_of(found["logp"]) == record.predictions["logp"]
    assert not load_results(whole).attrs["bad"]


def test_older_records_stay_readable(old: Path) -> None:
    path = evaluations(old)[0]
    assert {*store.arrays(path, its(path))} == {"top1", "labels", "top5"}
    assert not load_results(old).attrs["bad"]


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change one array and write the file, its checksums and the record anew, as a careful vandal would."""

    def damage(path: Path) -> None:
        record = its(path)
        arrays = store.named(path, ("top1", "labels", *record.outputs))
        arrays[name] = change(arrays[name].copy())
        store.put(path, replace(record, predictions=store.write_predictions(path, arrays)))

    return damage


def field(change: Callable[[EvaluationRecord], Record]) -> Callable[[Path], None]:
    """Change a record under a new checksum."""

    def damage(path: Path) -> None:
        store.put(path, change(its(path)))

    return damage


def moved(counts: PerClass | None) -> PerClass:
    assert counts is not None
    first, second, *rest = counts.predicted
    return replace(counts, predicted=[first + 1, second - 1, *rest])


def more(name: str) -> Callable[[Path], None]:
    return field(lambda r: replace(r, metrics={**r.metrics, name: r.metrics[name] + 1e-4}))


DAMAGE: dict[str, Callable[[Path], None]] = {
    "classes in another order": changed("classes", lambda x: x[:, ::-1].copy()),
    "a class beyond K": changed("classes", lambda x: np.where(x == x[0, 4], 300, x).astype(x.dtype)),
    "log-probabilities of others": changed("logp", lambda x: np.roll(x, 1, 0)),
    "log-probabilities that rise": changed("logp", lambda x: x[:, ::-1].copy()),
    "log-probabilities above 0": changed("logp", lambda x: x + np.float32(5)),
    "NaN": changed("squares", lambda x: np.full_like(x, np.nan)),
    "other ranks": changed("rank", lambda x: ((x + 1) % K).astype(x.dtype)),
    "another likelihood": changed("true_logp", lambda x: x - np.float32(0.1)),
    "other squares": changed("squares", lambda x: x * np.float32(0.9)),
    "another log-sum-exp": changed("lse_t", lambda x: x + np.float32(0.1)),
    "other squares at T": changed("squares_t", lambda x: x * np.float32(0.9)),
    "another type": changed("logp", lambda x: x.astype(np.float64)),
    "fewer columns": changed("logp", lambda x: x[:, :4].copy()),
    "another temperature": field(lambda r: replace(r, temperature=3.0)),
    "no temperature": field(lambda r: replace(r, temperature=None)),
    "other counts": field(lambda r: replace(r, per_class=moved(r.per_class))),
    "no counts": field(lambda r: replace(r, per_class=None)),
    "no checksum of an array": field(
        lambda r: replace(r, predictions={k: v for k, v in r.predictions.items() if k != "squares"})
    ),
    "an unknown array": field(lambda r: replace(r, outputs=[*r.outputs, "more"])),
    "fewer names": field(lambda r: replace(r, outputs=r.outputs[1:])),
    **{f"another {name}": more(name) for name in ("balanced", "macro-f1", "nll", "brier-after")},
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_named(whole: Path, tmp_path: Path, kind: str) -> None:
    results = Path(shutil.copytree(whole, tmp_path / "results"))
    path = evaluations(results)[0]
    DAMAGE[kind](path)
    frame = load_results(results)
    assert path.stem in frame.attrs["bad"]
    assert str(path) not in set(frame["path"]) and len(frame) == len(evaluations(results)) - 1


@pytest.mark.parametrize("name", ["ece", "ece-after", "aurc"])
def test_metrics_that_take_long_are_checked_when_they_are_shown(
    whole: Path, tmp_path: Path, name: str
) -> None:
    results = Path(shutil.copytree(whole, tmp_path / "results"))
    filled(load_results(results), METRICS[name])
    path = evaluations(results)[0]
    more(name)(path)
    frame = load_results(results)
    assert len(frame) == len(evaluations(results))
    with pytest.raises(BenchError, match=f"{path.stem}.*they give {name} "):
        filled(frame, METRICS[name])


def test_logits_are_checked_when_they_are_read(whole: Path, tmp_path: Path) -> None:
    results = Path(shutil.copytree(whole, tmp_path / "results"))
    path = evaluations(results)[0]
    record = tell(path, classes(path), keep_logits=True)
    found = store.arrays(path, record)["logits"]
    assert found.shape == (record.n, classes(path)) and found.dtype == np.float16
    arrays = store.named(path, ("top1", "labels", *record.outputs))
    store.write_predictions(path, {**arrays, "logits": arrays["logits"] + np.float16(1)})
    with pytest.raises(BenchError, match=r"not the arrays that its record speaks of \(logits differ"):
        store.arrays(path, record)


FILTER = "methods=zero-shot,safe datasets=ants shots=16 seeds=1"


@pytest.fixture(scope="module")
def packed(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed")
    assert pack(whole, out, keep_outputs=parsed(FILTER)).with_outputs == 2
    return out


def test_packed_records_keep_metrics_and_chosen_outputs(whole: Path, packed: Path) -> None:
    kept = 0
    for path in evaluations(whole):
        small = packed / path.relative_to(whole)
        one, two = its(path), its(small)
        assert one.metrics == two.metrics and one.per_class == two.per_class
        assert one.temperature == two.temperature
        arrays = store.arrays(small, two)
        assert [*arrays] == ["top1", "labels", *two.outputs]
        if two.outputs:
            kept += 1
            for name, x in store.arrays(path, one).items():
                np.testing.assert_array_equal(arrays[name], x)
    assert kept == 2 and not load_results(packed).attrs["bad"]


def test_the_same_outputs_give_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    pack(packed, tmp_path, keep_outputs=parsed("all"))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        p.name: p.read_bytes() for p in packed.iterdir()
    }
    pack(packed, tmp_path)
    assert not (tmp_path / packed_outputs.FILE).exists(), "an earlier file is not left beside other records"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


@pytest.mark.parametrize("damage", [Path.unlink, cut])
def test_without_packed_outputs_accuracies_stay(
    packed: Path, tmp_path: Path, damage: Callable[[Path], Any]
) -> None:
    results = Path(shutil.copytree(packed, tmp_path / "results"))
    damage(results / packed_outputs.FILE)
    frame = load_results(results)
    assert not frame.attrs["bad"] and list(frame["accuracy"]) == list(load_results(packed)["accuracy"])
    filled(frame, METRICS["top1"])
    with pytest.raises(BenchError, match=rf"{packed_outputs.FILE}: .*copy the file again"):
        filled(frame, METRICS["ece"])


def test_outputs_are_read_once_while_they_and_memory_last(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Path(shutil.copytree(packed, tmp_path / "results"))
    first, second = [path for path in map(Path, load_results(results)["path"]) if its(path).outputs]
    kept = outputs_of(first)
    assert outputs_of(first) is kept, "packed ones too"
    monkeypatch.setattr(report_outputs, "_MOST", 1)
    outputs_of(second)
    again = outputs_of(first)
    assert again is not kept, "it had to make room"
    cut(results / packed_outputs.FILE)
    with pytest.raises(BenchError, match="copy the file again"):
        outputs_of(first)


def with_a_bad_byte(file: Path) -> str:
    """Change a byte of the first array in a file, and return the path of its evaluation."""
    with zipfile.ZipFile(file) as archive:
        first = archive.infolist()[0]
    data = bytearray(file.read_bytes())
    data[first.header_offset + 30 + len(first.filename) + first.compress_size // 2] ^= 0xFF
    file.write_bytes(data)
    return f"{first.filename.rpartition('/')[0]}.json"


def test_a_bad_byte_costs_one_evaluation_its_outputs(whole: Path, packed: Path, tmp_path: Path) -> None:
    """What is added later leaves the outputs of the others where they are."""
    results = Path(shutil.copytree(packed, tmp_path / "results"))
    lost = places.runs(results) / with_a_bad_byte(results / packed_outputs.FILE)
    alone = next(path for path in evaluations(whole) if its(path).cell.dataset == "bees")
    at = alone.relative_to(places.runs(whole)).as_posix()
    arrays = store.arrays(alone, its(alone))
    add(results, {at: its(alone)}, {at: (arrays["top1"], arrays["labels"])}, (), {at: arrays})
    kept = [path for path in map(Path, load_results(results)["path"]) if its(path).outputs]
    assert lost in kept and places.runs(results) / at in kept and len(kept) == 3
    for path in kept:
        if path == lost:
            with pytest.raises(BenchError, match=rf"{packed_outputs.FILE}: .*copy the file again"):
                store.arrays(path, its(path))
        else:
            there = store.arrays(whole / path.relative_to(results), its(path))
            np.testing.assert_array_equal(store.arrays(path, its(path))["logp"], there["logp"])


def test_a_file_whose_list_is_damaged_is_not_replaced(packed: Path, tmp_path: Path) -> None:
    results = Path(shutil.copytree(packed, tmp_path / "results"))
    cut(results / packed_outputs.FILE)
    before = {file: file.read_bytes() for file in results.iterdir()}
    one = next(path for path, record in store.every(results) if not getattr(record, "outputs", True))
    with pytest.raises(BenchError, match="copy the file again"):
        add(results, {}, {}, [one.relative_to(places.runs(results)).as_posix()])
    assert before == {file: file.read_bytes() for file in results.iterdir()}
    plan([packed], results).write()
    assert (results / packed_outputs.FILE).read_bytes() == (packed / packed_outputs.FILE).read_bytes()


def test_outputs_survive_a_merge_of_packed_folders(packed: Path, tmp_path: Path) -> None:
    merged = plan([packed], tmp_path / "out")
    merged.write()
    for path, record in store.every(tmp_path / "out"):
        if isinstance(record, EvaluationRecord):
            there = packed / path.relative_to(tmp_path / "out")
            for name, x in store.arrays(there, its(there)).items():
                np.testing.assert_array_equal(store.arrays(path, record)[name], x)
    assert not load_results(tmp_path / "out").attrs["bad"]


def test_probabilities_that_rounding_moved_are_no_conflict(whole: Path, tmp_path: Path) -> None:
    """Neither is a record that is older than outputs; another likelihood is one."""
    other = Path(shutil.copytree(whole, tmp_path / "other"))
    path = evaluations(other)[0]
    tell(path, classes(path), temperature=1.5 + 1e-6)
    assert not plan([whole, other], tmp_path / "out").conflicts
    tell(path, classes(path), temperature=2.5)
    conflicts = plan([whole, other], tmp_path / "out").conflicts
    assert ["temperature" in c.what or "brier-after" in c.what for c in conflicts] == [True, True]


@pytest.fixture
def older(whole: Path, tmp_path: Path) -> Path:
    """The same results as they were written before outputs: with ``top5``, without metrics or temperature."""
    results = Path(shutil.copytree(whole, tmp_path / "older"))
    for path, record in list(store.every(results)):
        if isinstance(record, FitRecord):
            store.put(path, replace(record, temperature=None))
        elif isinstance(record, EvaluationRecord):
            arrays = store.arrays(path, record)
            kept = {"top1": arrays["top1"], "top5": arrays["classes"], "labels": arrays["labels"]}
            sums = store.write_predictions(path, kept)
            bare = {"metrics": {}, "per_class": None, "outputs": [], "temperature": None}
            store.put(path, replace(record, predictions=sums, **bare))
    return results


def shown(results: Path) -> dict[str, Record]:
    return {path.relative_to(results).as_posix(): record for path, record in store.every(results)}


def test_records_older_than_outputs_are_equal_and_make_way(whole: Path, older: Path, tmp_path: Path) -> None:
    for inputs in ([whole, older], [older, whole]):
        joined = plan(inputs, tmp_path / f"{inputs[0].name}-first")
        assert not joined.conflicts and joined.equal == len(shown(whole))
        joined.write()
        assert shown(joined.out) == shown(whole)
    mended = plan([whole], older)
    assert mended.richer == mended.records == len(shown(whole))
    mended.write()
    assert shown(older) == shown(whole) and not load_results(older).attrs["bad"]
    assert plan([whole], older).records == 0


def test_a_packed_record_without_outputs_replaces_none_with_them(whole: Path, tmp_path: Path) -> None:
    pack(whole, tmp_path / "small")
    pack(whole, tmp_path / "large", keep_outputs=parsed("all"))
    assert plan([tmp_path / "small"], tmp_path / "large").records == 0
    plan([tmp_path / "small", tmp_path / "large"], tmp_path / "out").write()
    plan([tmp_path / "large"], tmp_path / "small").write()
    for out in (tmp_path / "out", tmp_path / "small"):
        assert shown(out) == shown(tmp_path / "large")
        for path in map(Path, load_results(out)["path"]):
            assert "logp" in store.arrays(path, its(path))


@pytest.mark.parametrize(
    "text", ["", "safe", "method=safe", "methods=", "shots=1 shots=2", "methods=safe, seeds"]
)
def test_filters_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(BenchError, match="--keep-outputs"):
        parsed(text)


def test_a_filter_that_nothing_passes_is_refused(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"no evaluation has methods=saef \(did you mean 'safe'\?\)"):
        pack(whole, tmp_path / "out", keep_outputs=parsed("methods=zero-shot,saef"))
    with pytest.raises(BenchError, match="no evaluation has shots=8; there are 0, 16"):
        pack(whole, tmp_path / "out", keep_outputs=parsed("shots=8"))
    assert not (tmp_path / "out").exists()


def test_a_filter_of_records_without_outputs_is_refused(old: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no evaluation that passes it"):
        pack(old, tmp_path / "out", keep_outputs=parsed("methods=safe"))
    assert not (tmp_path / "out").exists()


def test_a_blank_after_a_comma_is_named() -> None:
    with pytest.raises(BenchError, match="no blank may follow the comma: write 'methods=safe,coop'"):
        parsed("shots=1 methods=safe, coop")
