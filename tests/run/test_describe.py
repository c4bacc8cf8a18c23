"""``bench list methods --verbose``: what is printed is what the recipe and the tensors say."""

from __future__ import annotations

from typer.testing import CliRunner

from bench.cli.app import app


def screen(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["list", "methods", "--verbose", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_safe() -> None:
    text = screen("--methods", "safe", "--dataset", "digits")
    # 4 x 4 positions and the mean of width 512: 17 x 512, four biased projections, the last one to 128.
    assert f"{17 * 512 + 3 * (512 * 512 + 512) + 512 * 128 + 128:,} numbers" in text
    assert "adamw" in text
    assert "300 steps" in text
    assert "steps 12800 -> 300" in text
    assert "every 25 steps" in text


def test_a_method_that_reads_another() -> None:
    text = screen("--methods", "safe-a", "--dataset", "digits")
    assert "reads       the fitted state of safe" in text
    assert "none by gradient" in text


def test_a_method_for_other_towers() -> None:
    assert "works on vit towers" in screen("--methods", "clip-lora", "--dataset", "digits")
