"""Tests of ``bench data``: draw, status and verify work without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli.data import app
from bench.data import catalog, fewshot
from bench.data.status import StatusRow, status
from bench.data.verify import verify
from bench.errors import BenchError
from tests.fixtures import disk

ROOT = Path(__file__).resolve().parents[2]
SPLIT = "split_zhou_DescribableTextures.json"


def whole(root: Path) -> dict:
    listed = disk.split_file(root / "dtd" / SPLIT, ["banded", "woven"])
    disk.listed_images(root / "dtd" / "images", listed)
    return listed


def row(root: Path, name: str) -> StatusRow:
    return status(root, [name])[0]


def test_draw_prints_an_index_file_and_needs_no_images(tmp_path: Path) -> None:
    disk.split_file(tmp_path / "dtd" / SPLIT, ["banded", "woven"])
    arguments = ["draw", "dtd", "--data-root", str(tmp_path), "--shots", "4", "--seed", "2"]
    result = CliRunner().invoke(app, [*arguments, "--format", "json"])
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    dataset = catalog.find("dtd", tmp_path, images=False)
    assert fewshot.import_index(dataset, printed).digest == fewshot.draw(dataset, 4, 2).digest
    assert all(item["impath"].startswith("images/") for item in printed["train"]["data"])
    assert printed["train"]["data"][0]["classname"] == "banded"

    file = tmp_path / "index.json"
    file.write_text(result.stdout)
    again = CliRunner().invoke(app, ["draw", "dtd", "--data-root", str(tmp_path), "--index", str(file)])
    assert again.stdout == result.stdout
    text = CliRunner().invoke(app, [*arguments, "--format", "text"]).stdout
    assert "train: 8 images" in text and "val: 8 images" in text


def test_draw_without_the_split_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["draw", "dtd", "--data-root", str(tmp_path), "--shots", "1"])
    assert result.exit_code != 0
    assert isinstance(result.exception, BenchError) and SPLIT in str(result.exception)


def test_status_states(tmp_path: Path) -> None:
    assert row(tmp_path, "dtd").state == "missing"
    assert row(tmp_path, "mammals").state == "built in"
    disk.split_file(tmp_path / "dtd" / SPLIT, ["banded", "woven"])
    assert row(tmp_path, "dtd").state == "wrong layout"
    listed = whole(tmp_path)
    dtd = row(tmp_path, "dtd")
    assert dtd.state == "wrong counts" and "train 10 instead of 2820" in dtd.todo
    assert dtd.counts == {"classes": 2, "train": 10, "val": 8, "test": 4}
    (tmp_path / "dtd" / "images" / listed["train"][0][0]).unlink()
    gone = row(tmp_path, "dtd")
    assert gone.state == "wrong layout" and listed["train"][0][0] in gone.todo
    without_root = status(None, ["dtd"])[0]
    assert without_root.state == "missing" and "--data-root" in without_root.todo


def test_status_found_with_the_published_counts(tmp_path: Path) -> None:
    toml = tmp_path / "mine.toml"
    counts = "[counts]\nclasses = 2\ntrain = 10\nval = 8\ntest = 4\n"
    toml.write_text(
        f'name = "mine"\nreader = "coop-split"\n{counts}[layout]\nfolders = ["dtd"]\nimages = ["images"]\n'
        f'[options]\nfile = "{SPLIT}"\n'
    )
    whole(tmp_path)
    assert row(tmp_path, str(toml)) == StatusRow(
        "mine",
        "own images",
        "found",
        {"classes": 2, "train": 10, "val": 8, "test": 4},
        {"classes": 2, "train": 10, "val": 8, "test": 4},
    )


def test_status_prints_every_dataset_of_the_catalog(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["status", "--data-root", str(tmp_path), "--format", "json"])
    rows = json.loads(result.stdout)
    assert [entry["name"] for entry in rows] == catalog.names()
    assert all(entry["todo"] for entry in rows if entry["state"] == "missing")
    text = CliRunner().invoke(app, ["status", "dtd", "eurosat", "--data-root", str(tmp_path)]).stdout
    assert "dtd      missing" in text and "(classes 47, train 2820" in text


def test_verify_opens_everything(tmp_path: Path) -> None:
    whole(tmp_path)
    seen: list[int] = []
    result = verify(catalog.find("dtd", tmp_path), lambda done, total: seen.append(total - done))
    assert (result.checked, result.failed, result.failures, result.cause) == (22, 0, (), "")
    assert seen == list(range(21, -1, -1))
    hashed: list[int] = []
    verify(catalog.find("dtd", tmp_path), hashing=lambda done, total: hashed.append(total - done))
    assert hashed == seen, "every file is read a second time, and heard of"
    invoked = CliRunner().invoke(app, ["verify", "dtd", "--data-root", str(tmp_path)])
    assert invoked.exit_code == 0 and "22 of 22 images open" in invoked.stdout


def test_verify_shows_ten_failures_and_exits_1(tmp_path: Path) -> None:
    listed = whole(tmp_path)
    for path, _, _ in listed["train"] + listed["test"]:
        (tmp_path / "dtd" / "images" / path).write_bytes(b"<html>")
    result = verify(catalog.find("dtd", tmp_path))
    assert (result.failed, len(result.failures)) == (14, 10)
    assert result.failures[0][0] == listed["train"][0][0] and "damaged" in result.cause
    invoked = CliRunner().invoke(app, ["verify", "dtd", "--data-root", str(tmp_path)])
    assert invoked.exit_code == 1 and "likely cause" in invoked.stdout


def rename_class_folder(images: Path) -> None:
    (images / "woven").rename(images / "Woven")


def sort_into_parts(images: Path) -> None:
    (images / "train").mkdir()
    for name in ("banded", "woven"):
        (images / name).rename(images / "train" / name)


def renumber(images: Path) -> None:
    for file in images.glob("*/*.jpg"):
        file.rename(file.with_name(f"000{file.name}"))


def lose_one(images: Path) -> None:
    (images / "woven" / "test_0.jpg").unlink()


@pytest.mark.parametrize(
    ("harm", "cause"),
    [
        (rename_class_folder, "upper and lower case: Woven/train_0.jpg"),
        (sort_into_parts, "has no banded/ but train"),
        (renumber, "another copy of the dataset"),
        (lose_one, "not unpacked whole"),
    ],
)
def test_likely_causes(tmp_path: Path, harm, cause: str) -> None:
    whole(tmp_path)
    harm(tmp_path / "dtd" / "images")
    result = verify(catalog.find("dtd", tmp_path))
    assert result.failed and cause in result.cause


def test_planning_verbs_import_no_torch(tmp_path: Path) -> None:
    disk.split_file(tmp_path / "dtd" / SPLIT, ["banded", "woven"])
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from bench.cli.data import app\n"
        f"for words in (['draw', 'dtd', '--shots', '1'], ['status']):\n"
        f"    assert CliRunner().invoke(app, "
        f"[*words, '--data-root', {str(tmp_path)!r}]).exit_code == 0, words\n"
        "assert not {'torch', 'open_clip'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
