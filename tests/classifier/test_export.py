"""What is exported of a classifier says what `bench predict` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.classifier import export as exporting
from bench.classifier.model import Model
from bench.errors import BenchError, UnreadableImage
from tests.classifier.conftest import Fitted, classifier_of
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


def test_images_are_spread_over_the_list() -> None:
    names = [str(i) for i in range(1000)]
    some = exporting.spread(names)
    assert len(some) == len(set(some)) == exporting.MOST and (some[0], some[-1]) == ("0", "999")
    assert exporting.spread(names[:5]) == names[:5]
