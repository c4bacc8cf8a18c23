"""Fitted states on disk: asking many times whether one is there reads its file once."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.records import codec, places, states, store
from bench.records.types import FitRecord
from tests.report.synthetic import write_cell


def test_a_state_that_many_ask_for_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cell(tmp_path, "safe", "ants", 1, 1, 0.5)
    fit = next(r for _, r in store.every(tmp_path) if isinstance(r, FitRecord))
    file = places.state_path(tmp_path, fit.key)
    file.parent.mkdir()
    file.write_bytes(b"state")
    kept = replace(fit, has_state=True, state=codec.checksum_bytes(b"state"))
    reads, read = [], Path.read_bytes

    def counted(self: Path) -> bytes:
        reads.append(self)
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", counted)
    assert all(states.there(tmp_path, kept) for _ in range(5)) and reads == [file]
    file.write_bytes(b"another")
    assert not states.there(tmp_path, kept)
