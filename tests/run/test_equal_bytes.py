"""Equal work gives equal bytes: predictions and fitted states do not depend on the order of cells, on what
was stored before, or on the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.run.conftest import Bench, draw_images, records

METHODS = "zero-shot,tip-adapter-f,safe"
Run = Callable[..., None]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("two")
    counts = ({"train": 5, "val": 3, "test": 7}, {"train": 4, "val": 2, "test": 9})
    return [str(draw_images(root / name, c)) for name, c in zip(("forms", "signs"), counts, strict=True)]


@pytest.fixture
def run(bench: Bench, folders: list[str]) -> Run:
    def call(place: Path, *arguments: object, methods: str = METHODS, datasets: str = "") -> None:
        words = ("--methods", methods, "--datasets", datasets or ",".join(folders), "--keep-states", "all")
        usual = () if "--seeds" in arguments else ("--seeds", "1,2")
        done = bench(
            "run", *words, *usual, *arguments, "--results", place, "--cache", place / "cache", data=None
        )
        assert done.exit_code == 0, done.output

    return call


def concluded(place: Path) -> dict[str, bytes]:
    """Records without times, predictions, and the bytes of states."""
    states = {p.name: p.read_bytes() for p in (place / "states").iterdir()}
    return records(place) | states


@pytest.mark.slow
def test_the_order_of_cells_and_a_resume_change_no_byte(run: Run, folders: list[str], tmp_path: Path) -> None:
    straight, other = tmp_path / "straight", tmp_path / "other"
    run(straight)
    # From the end: each command finds some of its features stored, and encodes the others in other company.
    run(other, "--seeds", "2", methods="safe", datasets=folders[1])
    run(other, "--seeds", "2,1", methods="safe,tip-adapter-f", datasets=",".join(folders[::-1]))
    run(other)
    assert concluded(other) == concluded(straight)

    for i, manifest in enumerate(sorted((other / "cache").glob("*/????????????????-*.json"))):
        if i % 2:
            manifest.unlink()
    for i, path in enumerate(sorted([*(other / "runs").rglob("*.json"), *(other / "states").iterdir()])):
        if i % 3:
            path.unlink()
    run(other)
    assert concluded(other) == concluded(straight)


@pytest.mark.slow
def test_two_processes_change_no_byte(run: Run, tmp_path: Path) -> None:
    run(tmp_path / "one", "--jobs", "1")
    run(tmp_path / "two", "--jobs", "2")
    assert concluded(tmp_path / "two") == concluded(tmp_path / "one")
