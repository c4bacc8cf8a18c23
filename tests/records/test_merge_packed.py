"""`bench merge` into damaged packed records: what is sound stays, and a sound twin mends the rest."""

from __future__ import annotations

import lzma
from pathlib import Path

from bench.records import merge
from bench.records.packed import PREDICTIONS, RECORDS
from bench.report.compact import pack
from bench.report.frame import load_results
from tests.records.test_merge import shown
from tests.report.synthetic import grid


def test_damage_in_the_packed_output_is_mended(tmp_path: Path) -> None:
    for name, seeds in (("a", (1, 2)), ("b", (3,)), ("c", (4,))):
        grid(tmp_path / name, {"safe": 0.6}, datasets=("ants",), shots=(1,), seeds=seeds)
    sound, out, more = tmp_path / "sound", tmp_path / "out", tmp_path / "more"
    pack(tmp_path / "a", sound)
    pack(tmp_path / "b", more)
    pack(tmp_path / "a", out)
    lines = lzma.decompress((out / RECORDS).read_bytes()).splitlines(keepends=True)
    broken = lines[0].replace(b'"lr":0.1', b'"lr":0.2').replace(b'"n":100', b'"n":99')
    assert broken != lines[0]
    (out / RECORDS).write_bytes(lzma.compress(b"".join([broken, *lines[1:], b"no line\n"])))
    partly = merge.plan([more, tmp_path / "c"], out)
    assert len(partly.bad) >= 2
    partly.write()
    assert len(load_results(out)) == 3, "the damaged line alone is left out"
    merge.plan([sound], out).write()
    assert shown(out) == sorted({*shown(sound), *shown(more), *shown(tmp_path / "c")})


def test_damaged_packed_predictions_are_mended(tmp_path: Path) -> None:
    for name, seeds in (("a", (1, 2)), ("b", (3,))):
        grid(tmp_path / name, {"safe": 0.6}, datasets=("ants",), shots=(1,), seeds=seeds)
    sound, out, more = tmp_path / "sound", tmp_path / "out", tmp_path / "more"
    pack(tmp_path / "a", sound)
    pack(tmp_path / "a", out)
    pack(tmp_path / "b", more)
    (out / PREDICTIONS).write_bytes(b"torn")
    merge.plan([more], out).write()
    assert len(load_results(out)) == 1, "no old line got the new predictions"
    merge.plan([sound], out).write()
    assert shown(out) == sorted({*shown(sound), *shown(more)})
