"""What is exported of a classifier says what `bench predict` says."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bench.classifier import export as exporting
from bench.classifier.file import save
from bench.classifier.model import Model
from bench.errors import BenchError, UnreadableImage
from tests.classifier.embedded import Fitted, classifier_of
from tests.classifier.test_onnx import needs_onnx


@needs_onnx
def test_a_model_is_exported(fitted: Fitted, tmp_path: Path) -> None:
    m, file = fitted("safe", "rn"), tmp_path / "f.onnx"
    model = Model(classifier_of(m, 2.0), "cpu")
    test, source = m.fit.dataset.test, m.fit.dataset.source
    done = exporting.to_onnx(model, file, test.paths, source)
    assert file.is_file() and done.compared.images == done.same == len(test.paths)
    assert done.compared.probability <= 1e-4 and 0 < done.apart <= 1e-2


@needs_onnx
def test_an_image_that_cannot_be_read_is_named(fitted: Fitted, tmp_path: Path) -> None:
    model = Model(classifier_of(fitted("zero-shot", "rn")), "cpu")
    (tmp_path / "photo.jpg").write_bytes(b"no image")
    with pytest.raises((UnreadableImage, BenchError), match=r"photo\.jpg"):
        exporting.to_onnx(model, tmp_path / "f.onnx", [str(tmp_path / "photo.jpg")])
    assert not (tmp_path / "f.onnx").exists()


@needs_onnx
def test_a_recorded_cell_is_exported(fitted: Fitted, tmp_path: Path) -> None:
    m, file = fitted("zero-shot", "rn"), tmp_path / "f.onnx"
    cell = {"method": "zero-shot", "dataset": m.lab.folders["uneven"], "prompts": m.fit.cell.prompts}
    places = {"results": m.results, "cache": tmp_path / "cache", "backbone": "pocket-rn", "onnx": file}
    done = _bench(*(word for name, value in {**cell, **places}.items() for word in (f"--{name}", value)))
    assert done.exit_code == 0, done.output
    assert file.is_file() and f"on {len(m.fit.dataset.test.paths)} images" in done.output


@needs_onnx
def test_a_classifier_without_its_dataset_asks_for_images(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder's name says not where it is."""
    monkeypatch.chdir(tmp_path)
    save(classifier_of(fitted("zero-shot", "rn")), Path("shop.clf"))
    done = _bench("shop.clf", "--onnx", "f.onnx")
    assert "or name images to compare with, as in bench export shop.clf photos/" in str(done.exception)
    other = fitted("zero-shot", "rn").lab.folders["pair"]
    done = _bench("shop.clf", "--onnx", "f.onnx", "--dataset", other)
    assert "other data than the classifier learned" in str(done.exception)
    assert not Path("f.onnx").exists()


@pytest.mark.parametrize(
    ("words", "mend"),
    [
        (("shop.clf",), "as in --onnx shop.onnx"),
        (("--onnx", "f.onnx"), "name a classifier"),
        (("--onnx", "f.onnx", "--method", "safe"), "name a classifier"),
        (("shop.clf", "--onnx", "f.onnx", "--shots", "4"), "--shots: a classifier is one fitted method"),
        (("shop.clf", "--onnx", "f.bin"), "name it f.onnx"),
    ],
)
def test_what_an_export_cannot_use_is_refused(
    words: tuple[str, ...], mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = _bench(*words)
    assert isinstance(done.exception, BenchError) and mend in str(done.exception)
    assert not list(tmp_path.iterdir())


def _bench(*words: object) -> Result:
    from bench.cli.app import app

    return CliRunner().invoke(app, ["export", *map(str, words)])


def test_images_are_spread_over_the_list() -> None:
    names = [str(i) for i in range(1000)]
    some = exporting.spread(names)
    assert len(some) == len(set(some)) == exporting.MOST and (some[0], some[-1]) == ("0", "999")
    assert exporting.spread(names[:5]) == names[:5]
