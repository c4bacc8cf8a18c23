"""``bench keep``, ``bench predict`` and ``bench show``: what they print, write and refuse."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import bench
from bench.classifier import answers, file
from bench.errors import BenchError
from tests.classifier.conftest import World

Kept = Callable[[str], Path]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def photos(world: World, kept: Kept, tmp_path: Path) -> Path:
    """A folder with pictures, one below it, and what is no picture."""
    paths = world.recorded("zero-shot")[0]
    (tmp_path / "new" / "more").mkdir(parents=True)
    for name, path in zip(("a.png", "b.png", "more/c.png"), paths, strict=False):
        (tmp_path / "new" / name).write_bytes(Path(path).read_bytes())
    (tmp_path / "new" / "notes.txt").write_text("no picture")
    (tmp_path / "new" / ".hidden.png").write_bytes(b"")
    return tmp_path / "new"


@pytest.fixture
def clf(world: World, kept: Kept) -> Path:
    return kept("zero-shot")


def test_predictions_of_a_folder_are_a_table(world: World, clf: Path, photos: Path) -> None:
    done = world.call("predict", clf, photos)
    assert done.exit_code == 0, done.output
    assert list(rows(done.stdout)[0]) == ["file", "class", "probability", "class_2", "probability_2", "note"]
    files = [str(photos / name) for name in ("a.png", "b.png", "more/c.png")]
    assert [row["file"] for row in rows(done.stdout)] == files
    model = bench.load(clf)
    shares = model.predict_proba(files)
    assert [row["class"] for row in rows(done.stdout)] == model.predict(files).tolist()
    assert [row["probability"] for row in rows(done.stdout)] == [f"{p:.6f}" for p in shares.max(1)]
    assert [row["probability_2"] for row in rows(done.stdout)] == [f"{np.sort(p)[-2]:.6f}" for p in shares]
    assert "3 images: 3 classified; " in done.stderr and " images a second" in done.stderr


def test_files_patterns_and_standard_input_name_the_same_images(
    world: World, clf: Path, photos: Path
) -> None:
    from bench.cli.app import app

    want = world.call("predict", clf, photos / "a.png", photos / "b.png").stdout
    assert world.call("predict", clf, f"{photos}/*.*").stdout == want
    piped = CliRunner().invoke(app, ["predict", str(clf), "-"], input=f"{photos}/a.png\n\n{photos}/b.png\n")
    assert piped.stdout == want


def test_an_unreadable_image_is_a_row_with_a_reason(
    world: World, clf: Path, photos: Path, tmp_path: Path
) -> None:
    (photos / "aa.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    out = tmp_path / "p.csv"
    done = world.call("predict", clf, photos, photos / "gone.jpg", "--out", out, "--top", 1)
    assert (
        done.exit_code == 1 and "2 unreadable" in done.stderr and "2 images could not be read" in done.stderr
    )
    found = {Path(row["file"]).name: row for row in rows(out.read_text())}
    assert list(found) == ["a.png", "aa.png", "b.png", "c.png", "gone.jpg"], "in order, the others kept"
    assert found["aa.png"]["class"] == found["aa.png"]["probability"] == ""
    assert "not an image that can be read" in found["aa.png"]["note"]
    assert "not found" in found["gone.jpg"]["note"]
    assert (
        found["b.png"]["class"] == bench.load(clf).predict(photos / "b.png")[0] and not found["b.png"]["note"]
    )


def test_unsure_answers_are_left_out(world: World, clf: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.jsonl"
    shares = bench.load(clf).predict_proba([photos / "a.png", photos / "b.png"]).max(1)
    bound = float(shares.mean())
    done = world.call(
        "predict",
        clf,
        photos / "a.png",
        photos / "b.png",
        "--out",
        out,
        "--min-confidence",
        bound,
        "--top",
        9,
    )
    assert done.exit_code == 0 and "1 classified, 1 without a class" in done.stderr
    told = [json.loads(line) for line in out.read_text().splitlines()]
    assert [one["class"] is not None for one in told] == [p >= bound for p in shares]
    assert all(len(one["top"]) == 3 for one in told), "there are three classes"
    assert [bool(one["note"]) for one in told] == [p < bound for p in shares]


def test_thresholds_of_an_error(clf: Path) -> None:
    about = file.told(clf)
    with pytest.raises(BenchError, match=r"knows no thresholds.*--min-confidence"):
        answers.least(about, None, "5%")
    about = msgspec.structs.replace(about, thresholds={"0.05": 0.7, "0.01": None})
    assert answers.least(about, None, "5%") == answers.least(about, 0.2, "0.05") == 0.7
    assert answers.least(about, 0.9, "5%") == 0.9 and answers.least(about, None, None) is None
    assert answers.least(about, None, "1%") == float("inf")
    for wrong, message in (
        ("2%", "knows thresholds for 5%, 1%"),
        ("much", "write a share"),
        ("0", "write a share"),
    ):
        with pytest.raises(BenchError, match=message):
            answers.least(about, None, wrong)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing/*.png",), "no image in"),
        (("a.png", "--out", "p.txt"), "name it"),
        (("a.png", "--abstain-at-error", "5%"), "knows no thresholds"),
        (("a.png", "--max-pixels", "many"), "--max-pixels"),
        (("a.png", "--device", "abacus"), "--device"),
    ],
)
def test_what_cannot_be_done_is_refused(
    world: World, clf: Path, words: tuple[str, ...], message: str
) -> None:
    done = world.call("predict", clf, *words)
    assert isinstance(done.exception, BenchError) and message in str(done.exception)


def test_show_fits_a_screen_and_needs_no_weights(world: World, clf: Path) -> None:
    done = world.call("show", clf)
    assert done.exit_code == 0 and len(done.stdout.splitlines()) <= 12
    for part in ("3: apple, banana, broccoli", "Zero-shot CLIP", "pocket-rn", "shapes", "not known"):
        assert part in done.stdout
    assert world.call("show", clf, "--classes").stdout == "apple\nbanana\nbroccoli\n"


def test_keep_refuses_what_is_not_recorded(world: World, kept: Kept, clf: Path, tmp_path: Path) -> None:
    done = world.keep("gda", tmp_path / "g.clf", "--seed", 7)
    assert isinstance(done.exception, BenchError) and "has no record of gda" in str(done.exception)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x.txt").write_text("x")
    done = world.keep("zero-shot", tmp_path / "full")
    assert isinstance(done.exception, BenchError) and "--force" in str(done.exception)
    done = world.keep("zero-shot", clf)
    assert done.exit_code == 0 and "wrote" in done.output, "the same data may be replaced"


@pytest.mark.slow
def test_ten_thousand_images_take_no_more_memory_than_a_few(clf: Path, photos: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom bench.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    status = open('/proc/self/status').read()\n"
        "    print(status.split('VmHWM:')[1].split()[0], file=sys.stderr)\n"
    )
    Image.new("RGB", (24, 24), "red").save(photos / "small.png")
    peaks = []
    for count in (1500, 10_000):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                code,
                "predict",
                str(clf),
                "-",
                "--out",
                str(tmp_path / "p.csv"),
                "--workers",
                "0",
            ],
            input=f"{photos}/small.png\n" * count,
            capture_output=True,
            text=True,
            check=True,
        )
        assert len((tmp_path / "p.csv").read_text().splitlines()) == count + 1
        peaks.append(int(done.stderr.split()[-1]) / 1024)
    assert peaks[1] < peaks[0] + 40, "megabytes"
