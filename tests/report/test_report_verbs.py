"""The verbs table, compare and pack on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from bench.errors import BenchError
from bench.metrics import METRICS
from tests.report.synthetic import grid, write_cell

ROOT = Path(__file__).resolve().parents[2]
Bench = Callable[..., Result]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grid(tmp_path_factory.mktemp("runs"), {"zero-shot": 0.5, "safe": 0.6, "coop": 0.4, "wise-ft": 0.4})


@pytest.fixture
def bench() -> Bench:
    from bench.cli.app import app

    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


def test_tables_name_methods_by_their_titles(bench: Bench, runs: Path) -> None:
    text = bench("table", "--results", runs).output
    assert "WiSE-FT (head)" in text and "SAFE" in text
    assert "\x1b" not in text, "escape codes are for terminals"
    assert "wise-ft,16," in bench("table", "--results", runs, "--format", "csv").output


def test_every_format_goes_to_a_file(bench: Bench, runs: Path, tmp_path: Path) -> None:
    for form, start in [
        ("html", "<!doctype"),
        ("latex", "% needs"),
        ("json", "{"),
        ("console", "Few-shot"),
        ("md", "| method"),
    ]:
        out = tmp_path / f"table.{form}"
        done = bench("table", "--results", runs, "--format", form, "--out", out)
        assert done.exit_code == 0, done.output
        assert done.stdout == "" and done.stderr == f"wrote {out}\n"
        assert out.read_text().startswith(start)


def test_table_2_needs_no_records(bench: Bench, tmp_path: Path) -> None:
    done = bench("table", "2", "--results", tmp_path, "--format", "json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.output)["rows"]
    assert len(rows) == 11
    assert {row["entries"]["verdict"]["text"] for row in rows} == {"same"}
    missing = bench(
        "table", "2", "--results", tmp_path, "--format", "csv", "--data-root", tmp_path, "--datasets", "dtd"
    )
    assert "dtd,-,-,-,-,47,2820,1128,1692,-,-" in missing.output


def test_table_1_needs_records(bench: Bench, tmp_path: Path) -> None:
    done = bench("table", "--results", tmp_path)
    assert isinstance(done.exception, BenchError)
    assert "bench run" in str(done.exception)


def test_shifts_come_in_the_catalogs_order(bench: Bench, tmp_path: Path) -> None:
    for target in ("emoji", "emoji-a", "emoji-r", "emoji-sketch", "emoji-v2"):
        write_cell(tmp_path, "safe", "emoji", 16, 1, 0.5, target=target)
    head = bench("table", "3", "--results", tmp_path, "--format", "csv").output.splitlines()[0]
    assert head == "method,shots,backbone,emoji,emoji-v2,emoji-sketch,emoji-a,emoji-r,average of shifts"


def test_against_paper(bench: Bench, runs: Path) -> None:
    done = bench("table", "--results", runs, "--against", "paper", "--methods", "safe", "--format", "csv")
    assert "safe,16,average,RN50,-,77.33,-,0.5,not run" in done.output
    assert "not comparable (other backbone)" in done.output


def test_compare_then_pack_then_compare(bench: Bench, runs: Path, tmp_path: Path) -> None:
    one = bench("compare", "safe", "coop", "--results", runs, "--shots", "16")
    assert one.exit_code == 0, one.output
    assert "safe is better than coop by 20.00 points" in one.output
    done = bench("pack", "--results", runs, "--out", tmp_path / "packed")
    assert "packed 38 fits and 38 evaluations" in done.output
    two = bench("compare", "safe", "coop", "--results", tmp_path / "packed", "--shots", "16")
    assert two.output == one.output


def test_images_of_your_own_that_flipped(bench: Bench, tmp_path: Path) -> None:
    from bench.data import catalog

    for part, count in (("train", 2), ("test", 4)):
        for k, name in enumerate(("cat", "dog", "eel")):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (32, 32), (80 * k, 20 * i, 40)).save(
                    tmp_path / "pets" / part / name / f"{i}.png"
                )
    dataset = catalog.find(str(tmp_path / "pets"), None)
    n = len(dataset.test)
    for method, accuracy in (("safe", 0.75), ("coop", 0.25)):
        write_cell(
            tmp_path / "r", method, "pets", 1, 1, accuracy, n=n, target_digest=dataset.digest, classes=3
        )
    arguments = ("compare", "safe", "coop", "--results", tmp_path / "r", "--images", tmp_path / "sheets")
    done = bench(*arguments, "--datasets", tmp_path / "pets")
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "sheets" / "pets-1-shots.png") as sheet:
        assert sheet.width > 1000
    assert isinstance(bench(*arguments).exception, BenchError), "by its name alone it cannot be found"
    (tmp_path / "sheets" / "pets-1-shots.png").unlink()
    write_cell(tmp_path / "r", "gda", "pets", 1, 1, 0.75, n=n, target_digest=dataset.digest, classes=3)
    same = bench(*arguments[:2], "gda", *arguments[3:], "--datasets", tmp_path / "pets")
    assert same.exit_code == 0 and "pets, 1 shot: 0 images differ" in same.output
    assert not any((tmp_path / "sheets").iterdir()), "no blank sheet"


def test_reading_records_imports_no_torch(runs: Path) -> None:
    code = (
        "import sys; from bench.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('LOADED', sorted({'torch', 'open_clip', 'sklearn'} & set(sys.modules)))"
    )
    for arguments in (["table"], ["compare", "safe", "coop"]):
        command = [sys.executable, "-c", code, *arguments, "--results", str(runs)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert "LOADED []" in done.stdout, done.stdout + done.stderr


def test_metrics_on_the_command_line(bench: Bench, runs: Path) -> None:
    done = bench("table", "--results", runs, "--metric", "macro-f1", "--format", "csv")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0] == "method,shots,metric,unit,ants,bees,average"
    compared = bench("compare", "safe", "coop", "--results", runs, "--metric", "balanced", "--classes", 1)
    assert compared.exit_code == 0 and "By balanced accuracy (higher is better)" in compared.output
    assert "safe gains most accuracy against coop on class" in compared.output
    untold = bench("compare", "safe", "coop", "--results", runs, "--metric", "ece").exception
    assert isinstance(untold, BenchError) and "do not keep what it needs" in str(untold)
    for refused in (("--against", "paper", "--metric", "ece"), ("2", "--metric", "ece")):
        assert isinstance(bench("table", "--results", runs, *refused).exception, BenchError)


def test_metrics_are_listed_and_asked_for_one_at_a_time(bench: Bench, runs: Path) -> None:
    listed = bench("list", "metrics").output
    assert [line.split()[0] for line in listed.splitlines()] == list(METRICS)
    assert "area under the risk-coverage curve" in listed and "lower is better" in listed
    rows = json.loads(bench("list", "metrics", "--format", "json").output)
    assert [row["better"] == "lower" for row in rows] == [m.lower_is_better for m in METRICS.values()]
    refused = bench("table", "--metric", "ece,nll", "--results", str(runs))
    assert refused.exit_code and "one metric at a time, as in --metric ece" in str(refused.exception)


def test_both_spellings_name_the_datasets_of_a_comparison(bench: Bench, runs: Path) -> None:
    words = ("compare", "safe", "zero-shot", "--results", str(runs))
    some = [bench(*words, option, "ants") for option in ("--datasets", "--dataset")]
    assert some[0].exit_code == 0 and some[0].output == some[1].output, some[0].output
