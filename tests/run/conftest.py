"""A real but tiny measurement: three classes of coloured shapes, the embedded ResNet, recipes of a few
steps.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner, Result

from bench.records import store
from bench.records.types import EvaluationRecord, Failure

R = TypeVar("R")

COUNTS = {"train": 4, "val": 3, "test": 5}  # images of each class
CLASSES = {"apple": (200, 30, 30), "banana": (230, 210, 40), "broccoli": (30, 140, 40)}
QUICK = ("--set", "safe.steps=6", "--set", "safe.check_every=2", "--set", "tip-adapter-f.epochs=2")


def draw_images(root: Path, counts: dict[str, int]) -> Path:
    """``root/<part>/<class>/<i>.png``: noisy shapes of the class's colour, all different."""
    generator = random.Random(7)
    for part, count in counts.items():
        for name, colour in CLASSES.items():
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                noise = tuple(generator.randrange(256) for _ in range(3))
                image = Image.new("RGB", (48, 40), noise)
                x, y = generator.randrange(8), generator.randrange(8)
                ImageDraw.Draw(image).ellipse((x, y, x + 30, y + 25), fill=colour)
                image.save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 3 classes with train, val and test images."""
    return draw_images(tmp_path_factory.mktemp("data") / "shapes", COUNTS)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature store that the tests of this folder share."""
    return tmp_path_factory.mktemp("features")


Bench = Callable[..., Result]


def quick(arguments: tuple[object, ...]) -> tuple[str, ...]:
    """The few steps of QUICK for a run with these arguments: settings of other methods would be refused."""
    from bench.registry import builtin

    words = [*map(str, arguments)]
    asked = words[words.index("--methods") + 1].split(",") if "--methods" in words else []
    below = {name for one in asked if one in builtin().methods for name in builtin().methods[one].after}
    here = {*asked, *below} if asked else {"safe", "tip-adapter-f"}
    pairs = zip(QUICK[::2], QUICK[1::2], strict=True)
    return tuple(word for pair in pairs if pair[1].split(".")[0] in here for word in pair)


@pytest.fixture
def bench(images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """``bench VERB ...`` in this process; ``run`` gets the tiny images, the embedded ResNet and the shared
    store.
    """
    from bench.cli.app import app

    monkeypatch.setenv("BENCH_CACHE", str(cache))

    def call(verb: str, *arguments: object, data: Path | None = images) -> Result:
        usual = {"--backbone": "pocket-rn", "--seeds": "1", "--shots": "2"}
        usual |= {"--datasets": str(data)} if data else {}
        missing = [w for flag, value in usual.items() if flag not in arguments for w in (flag, value)]
        words = [*missing, *quick(arguments)] if verb == "run" else []
        return CliRunner().invoke(app, [verb, *words, *map(str, arguments)])

    return call


def of_type(results: Path, kind: type[R]) -> list[R]:
    """All records of one type in a results folder."""
    return [r for _, r in store.every(results) if isinstance(r, kind)]


TIMES = ("seconds", "first")  # how long it took, and whether its process was warm


def records(results: Path, states: bool = True) -> dict[str, bytes]:
    """What a run concluded, by file: predictions whole, records without times and provenance.

    ``states=False``: without the checksums of fitted tensors.
    """
    import json

    found = {}
    for path in sorted((results / "runs").rglob("*")):
        if path.suffix == ".npz":
            found[path.name] = path.read_bytes()
        elif path.suffix == ".json":
            record = json.loads(path.read_text())
            for key in (*TIMES, "provenance", "peak_memory", "checksum", *(() if states else ("state",))):
                record.pop(key, None)
            found[path.name] = json.dumps(record, sort_keys=True).encode()
    return found


def agree(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    """Fail if two results of ``records`` differ by more than rounding.

    Other sizes of batches may move the last bits of logits. So classes and counts must be equal, and
    probabilities and what is computed from them may differ by 1e-4.
    """
    import io
    import json

    assert one.keys() == other.keys()
    for name, mine in one.items():
        if name.endswith(".npz"):
            with np.load(io.BytesIO(mine)) as a, np.load(io.BytesIO(other[name])) as b:
                assert a.files == b.files, name
                for array in a.files:
                    same_arrays(a[array], b[array], f"{name} {array}")
            continue
        left, right = json.loads(mine), json.loads(other[name])
        for record in (left, right):
            record.pop("predictions", None)  # checksums of the arrays
        assert left.pop("metrics", {}) == pytest.approx(right.pop("metrics", {}), abs=0.02), name
        assert left.pop("temperature", None) == pytest.approx(right.pop("temperature", None), rel=1e-3), name
        assert left == right, name


def same_arrays(one: Any, other: Any, name: str) -> None:
    """Fail if arrays of an evaluation differ: whole numbers at all, others by more than rounding."""
    if one.dtype.kind != "f":
        np.testing.assert_array_equal(one, other, err_msg=name)
    else:
        apart = 0.02 if one.dtype == np.float16 else 1e-4
        np.testing.assert_allclose(one, other, rtol=0, atol=apart, err_msg=name)


def truncate(file: Path) -> bytes:
    """Cut an image file in half; returns what it was."""
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    return whole


def failures(results: Path) -> dict[str, Failure]:
    """The failures in a results folder, by method."""
    records = of_type(results, Failure)
    assert len({f.cell.method for f in records}) == len(records)
    return {f.cell.method: f for f in records}


def failure_paths(results: Path) -> list[str]:
    """The paths of all records of failures in a results folder, sorted."""
    return sorted(str(path) for path, record in store.every(results) if isinstance(record, Failure))


def named_records(output: str) -> list[str]:
    """The paths of records that a run's output names, sorted: a failure's as it comes and at the end."""
    return sorted(re.findall(r"its record(?:, with the traceback)?: ([^\s;)]+\.json)", output))


def done(results: Path) -> set[tuple[str, str]]:
    """(method, dataset) of every evaluation that succeeded."""
    return {(r.cell.method, r.cell.dataset) for r in of_type(results, EvaluationRecord)}
