"""Records: one small JSON file for each fit and each evaluation, predictions beside it (architecture 7).

``results/runs/<backbone>/<dataset>/<method>/<fit key>.json`` and ``<fit key>-<evaluation key>.{json,npz}``. Each file is
written atomically the moment it is known; merging two machines' results is copying files. A folder of packed records
(bench.run.packed) reads in the same way; a file that lies beside them counts in place of the packed one.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from bench.errors import BenchError
from bench.files import read_json, write_bytes, write_json
from bench.run import packed

SCHEMA = 1
# What an image tower computes in: name -> torch's name, which is in the parts of keys.
SINGLE = "fp32"
PRECISIONS = {SINGLE: "float32", "fp16": "float16", "bf16": "bfloat16"}
SHORT = 20  # hex digits of a key that make a file name


def dtype(precision: str) -> str:
    """Torch's name for a precision. Raises BenchError for one that is none of ``PRECISIONS``."""
    if precision not in PRECISIONS:
        raise BenchError(f"--precision {precision}: choose {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def folder(results: Path, backbone: str, dataset: str, method: str) -> Path:
    """Where the records of one method on one dataset lie."""
    return results / "runs" / _safe(backbone) / _safe(dataset) / _safe(method)


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)


def fit_path(where: Path, fit_key: str) -> Path:
    """The record of a fit."""
    return where / f"{fit_key[:SHORT]}.json"


def evaluation_path(where: Path, fit_key: str, key: str) -> Path:
    """The record of an evaluation of that fit."""
    return where / f"{fit_key[:SHORT]}-{key[:SHORT]}.json"


def state_path(results: Path, fit_key: str) -> Path:
    """The fitted tensors of a fit (safetensors)."""
    return results / "states" / f"{fit_key[:SHORT]}.safetensors"


def read(path: Path) -> dict[str, Any] | None:
    """A record, or None if there is none. Raises BenchError for a file that is not one of ours."""
    if not path.is_file():
        return packed.record(path)
    try:
        record = read_json(path)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: not a readable record ({error}); delete it to run its cell again") from error
    if not isinstance(record, dict) or "schema" not in record:
        raise BenchError(f"{path}: not a record of this program; move it out of the results folder")
    return record


def done(path: Path, key: str) -> dict[str, Any] | None:
    """The record at ``path`` if it is of this schema, bears this key and did not fail."""
    record = read(path)
    if record is None or record["schema"] != SCHEMA or record.get("key") != key or record.get("status") != "ok":
        return None
    return record


def evaluated(path: Path, key: str) -> dict[str, Any] | None:
    """``done`` for an evaluation: its predictions must be there too."""
    record = done(path, key)
    return record if record and has_predictions(path.with_suffix(".npz")) else None


def write(path: Path, record: dict[str, Any]) -> None:
    """Write one record with the schema's number and the time; of two records of one cell the later one counts."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    write_json(path, {"schema": SCHEMA, **record, "provenance": {**record.get("provenance", {}), "written": now}})


def write_predictions(path: Path, top1: np.ndarray, top5: np.ndarray, labels: np.ndarray) -> None:
    """Top-1 (n,), top-5 (n, 5) and labels (n,) of every test image, in the order of the test list; uint16."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, top1=top1.astype(np.uint16), top5=top5.astype(np.uint16), labels=labels.astype(np.uint16))
    write_bytes(path, buffer.getvalue())


def has_predictions(path: Path) -> bool:
    """Whether predictions lie at ``path``, as a file or packed."""
    return path.is_file() or packed.top1(path) is not None


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """The arrays of ``write_predictions``; packed predictions lack ``top5``. Raises BenchError where there are none."""
    if not path.is_file():
        found = packed.top1(path)
        if found is None:
            raise BenchError(f"{path}: the predictions are gone; run the cell again with --fresh")
        return dict(zip(("top1", "labels"), found, strict=True))
    with _arrays(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def read_top1(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Top-1 classes (n,) and labels (n,) alone, which is quicker."""
    if not path.is_file():
        found = read_predictions(path)
        return found["top1"], found["labels"]
    with _arrays(path) as arrays:
        return arrays["top1"], arrays["labels"]


def _arrays(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise BenchError(f"{path}: not readable predictions ({error}); delete the file to run its cell again") from error


def every(results: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """All records under ``results/runs`` in path order, packed ones included."""
    files = sorted((results / "runs").rglob("*.json"))
    known = set(files)
    for path, record in packed.records(results):
        if path not in known:
            yield path, record
    for path in files:
        found = read(path)
        if found is not None:
            yield path, found
