"""What docs/classifier.md says about ONNX is run here, where the extra is installed."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from bench.classifier.file import save
from bench.classifier.model import load
from tests.classifier.embedded import Fitted, classifier_of
from tests.classifier.test_onnx import needs_onnx
from tests.test_readme import ROOT, commands, files

PAGE = (ROOT / "docs" / "classifier.md").read_text(encoding="utf-8")
SAME = 1e-3  # features are rounded to half precision on the one side alone


def _shown(beginning: str) -> tuple[str, ...]:
    """The words of the page's command that begins so."""
    (found,) = [c.words for c in commands(PAGE) if str(c).startswith(beginning)]
    return found


def _photos(folder: Path, m: object) -> Path:
    """Large photographs of the test images, in both orientations; one lies on its side and says so."""
    dataset = m.fit.dataset  # type: ignore[attr-defined]
    folder.mkdir()
    for i, path in enumerate(dataset.test.paths[:6]):
        image = dataset.source.open(path).resize((240, 180) if i % 2 else (150, 200))
        exif = Image.Exif()
        exif[0x0112] = 6  # to be shown a quarter turn clockwise
        image.save(folder / f"{i}.jpg", quality=95, exif=exif if i == 4 else Image.Exif())
    return folder


@needs_onnx
def test_the_page_exports_and_classifies(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.cli.app import app

    m = fitted("zero-shot", "rn")
    monkeypatch.chdir(tmp_path)
    save(classifier_of(m, 2.0), Path("pets.clf"))
    photos = sorted(_photos(tmp_path / "drawn", m).iterdir())
    done = CliRunner().invoke(app, [*_shown("bench export pets.clf")[1:]])
    assert done.exit_code == 0, done.output
    assert "compared with PyTorch on 6 images" in done.output and "gives 6 of 6" in done.output
    (tmp_path / "classify.py").write_text(files(PAGE)["classify.py"], encoding="utf-8")
    program, script, _ = _shown("python classify.py")
    assert program == "python"
    wanted = load("pets.clf", "cpu").predict_proba([str(photo) for photo in photos])
    for photo, p in zip(photos, wanted, strict=True):
        monkeypatch.setattr(sys, "argv", [script, str(photo)])
        runpy.run_path(script)
        name, said = capsys.readouterr().out.split()
        assert float(said) == pytest.approx(p.max(), abs=SAME)
        assert p[list(m.fit.dataset.classnames).index(name)] == pytest.approx(p.max(), abs=SAME)


def test_the_example_is_short() -> None:
    lines = [line for line in files(PAGE)["classify.py"].splitlines() if line and not line.startswith("#")]
    assert len([line for line in lines if not line.startswith(("import", "from"))]) <= 11
