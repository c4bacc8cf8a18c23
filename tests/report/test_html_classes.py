"""The report's part on each dataset: calibration, hard classes, and pictures of mistakes and no others."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench.data import catalog
from bench.data.dataset import Dataset
from bench.errors import MissingData
from bench.imported.records import Asked, bring
from bench.metrics import METRICS, SCALING
from bench.report.compact import pack
from bench.report.frame import load_results
from bench.report.html import gallery
from bench.report.html.page import report
from bench.report.outputs import outputs_of, stacked_outputs
from bench.stats import lowered, mean_interval
from tests.imported.test_records import DIGITS, LABELS, write
from tests.report import confident, made

_ITEM = re.compile(
    r'<li><img src="data:image/jpeg;base64,([^"]+)" width="(\d+)" height="(\d+)" alt="Test image ([^"]+)" '
    r'title="[^"]+"><p>(\w+), taken for <b>(\w+)</b> \((\d+\.\d) %\)</p></li>'
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a method that is right six times out of ten."""
    folder = tmp_path_factory.mktemp("classes")
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        logits = rng.normal(0, 1.5, (len(LABELS), 10))
        logits[np.arange(len(LABELS)), LABELS] += 2
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        file = write(folder / "mine.csv", p.argmax(1), p)
        bring(file, Asked("mine", "digits", 4, seed), folder / "results", [], cache=folder)
    return folder / "results"


@pytest.fixture(scope="module")
def frame(results: Path) -> pd.DataFrame:
    return load_results(results)


@pytest.fixture(scope="module")
def text(frame: pd.DataFrame) -> str:
    return report(frame)


def test_pictures_are_those_of_the_surest_mistakes(frame: pd.DataFrame, text: str) -> None:
    kept = outputs_of(frame.sort_values("seed")["path"].iloc[0])
    confidence, wrong = kept.confidence(), np.flatnonzero(~kept.right)
    order = sorted(wrong, key=lambda i: -confidence[i])[: gallery.EACH]
    items = _ITEM.findall(text)
    assert [path for _, _, _, path, *_ in items] == [DIGITS.test.paths[i] for i in order]
    for i, (data, width, height, path, true, predicted, percent) in zip(order, items, strict=True):
        assert (true, predicted) == (DIGITS.classnames[LABELS[i]], DIGITS.classnames[kept.top1[i]])
        assert float(percent) == pytest.approx(100 * confidence[i], abs=0.051)
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        own = DIGITS.source.open(path).resize(picture.size)
        assert picture.size == (int(width), int(height)) and max(picture.size) <= gallery.SIDE
        assert np.abs(np.asarray(picture, float) - np.asarray(own, float)).mean() < 12, "another image"


def test_the_part_says_which_fit_and_what_was_left_out(text: str) -> None:
    part = text[text.index('id="classes-0-0"') : text.index('id="reproduce"')]
    assert part.count("<p>mine (imported), 4 shots, seeds 1 and 2:</p>") == 2
    assert "<p>mine (imported), 4 shots, seed 1:</p>" in part
    assert re.search(rf"highest probability \({gallery.EACH} of \d+ mistakes\)", part)
    assert re.search(r"10 of \d+ pairs are shown", part)


def test_calibration_stands_beside_accuracy(frame: pd.DataFrame, text: str) -> None:
    row = re.search(r'<tr><th scope="row">mine \(imported\)</th>((?:<td>[^<]*</td>)+)</tr>', text)
    assert row
    accuracy, nll, ece, span, after, no_span = re.findall(r"<td>([^<]*)</td>", row[1])
    mean = frame[["accuracy", "nll", "ece"]].mean()
    assert [float(accuracy), float(nll), float(ece)] == pytest.approx(mean.tolist(), abs=0.006)
    assert not re.search(r"\d", after + no_span), "no temperature is known"
    metric, kept = METRICS["ece"], stacked_outputs(frame.sort_values("seed")["path"].tolist())
    interval = lowered(mean_interval(metric.per_image(kept)), metric.excess(kept))
    assert span == f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
    assert metric.convention in text and SCALING in text


def test_the_hardest_class_comes_first(frame: pd.DataFrame, text: str) -> None:
    right = np.mean([outputs_of(path).right for path in frame["path"]], axis=0)
    by_class = [100 * right[k == LABELS].mean() for k in range(10)]
    part = text[text.index("<h4>Hardest classes") : text.index("<h4>Most confused")]
    rows = re.findall(r'<th scope="row">(\w+)</th><td>([\d.]+)</td>', part)
    assert [name for name, _ in rows] == [DIGITS.classnames[k] for k in np.argsort(by_class, kind="stable")]
    assert [float(share) for _, share in rows] == pytest.approx(sorted(by_class), abs=0.051)


def test_packed_records_have_no_pictures_and_say_why(results: Path, tmp_path: Path) -> None:
    pack(results, tmp_path / "packed")
    text = report(load_results(tmp_path / "packed"))
    assert "No mistakes are shown, because the records keep no probabilities of single images." in text
    assert "data:image" not in text and "<h4>Hardest classes" in text


def _lost(name: str) -> Dataset:
    raise MissingData(f"{name}: no such folder; get it")


@pytest.mark.parametrize(
    ("find", "why"),
    [
        (lambda name: replace(DIGITS, digest="0" * 64), "digits has changed since the records were made"),
        (
            lambda name: replace(DIGITS, test=replace(DIGITS.test, labels=(9,) * len(LABELS))),
            "the labels of digits are not those of the records",
        ),
        (_lost, "digits: no such folder; get it"),
    ],
)
def test_no_picture_is_of_another_image(find: gallery.Find, why: str, frame: pd.DataFrame) -> None:
    text = report(frame, images=find)
    assert f"No mistakes are shown, because {why}." in text and "data:image" not in text


def test_names_are_escaped(frame: pd.DataFrame) -> None:
    paths = tuple(f"<i>{path}" for path in DIGITS.test.paths)

    class Source:
        def open(self, path: str) -> Image.Image:
            return DIGITS.source.open(path.removeprefix("<i>"))

    odd = replace(DIGITS, test=replace(DIGITS.test, paths=paths), source=Source())
    kept = outputs_of(frame["path"].iloc[0])
    html = gallery.Gallery(lambda name: odd).mistakes("digits", DIGITS.digest, kept, lambda k: "<u>&'\"")
    assert "<i>" not in html and "<u>" not in html and "&lt;u&gt;&amp;" in html


def test_a_page_has_a_bounded_number_of_pictures(frame: pd.DataFrame) -> None:
    kept = outputs_of(frame["path"].iloc[0])
    some = gallery.Gallery(lambda name: DIGITS, left=gallery.EACH + 3)
    made = [some.mistakes("digits", DIGITS.digest, kept, str) for _ in range(3)]
    assert [one.count("<img") for one in made] == [gallery.EACH, 3, 0]
    assert some.cut == ["digits"] and f"the page has {gallery.ALL} pictures already" in made[-1]
    bare = some.mistakes("digits", DIGITS.digest, replace(kept, logp=None), str)
    assert "keep no probabilities" in bare and some.cut == ["digits"], "that is the reason, page or no page"


def test_files_that_nobody_compared_are_not_shown_without_a_comparison() -> None:
    assert gallery.of_catalog("digits").digest == catalog.find("digits", None).digest
    with pytest.raises(MissingData):
        gallery.of_catalog("oxford_pets")


def test_numbers_of_shots_without_calibration_are_named(tmp_path: Path) -> None:
    for shots in (1, 4, 16):
        confident.one(tmp_path, made.cell("safe", "birds", shots, 1))
    said = "Left out here: 1 and 4 shots; <code>bench table --datasets birds --shots 1,4 --backbone pocket-rn"
    assert f"{said} --metric ece --results {tmp_path}</code> shows them." in report(load_results(tmp_path))
