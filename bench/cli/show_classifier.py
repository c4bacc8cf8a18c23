"""``bench show``: say what a saved classifier is, in one screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import say
from bench.names import counted, few, value_text

if TYPE_CHECKING:
    from bench.classifier.file import About

_LIBRARIES = ("fewshot-clip-bench", "torch", "python")


def show(
    classifier: Annotated[Path, typer.Argument(help="Folder that `bench keep` wrote, as in shop.clf.")],
    classes: Annotated[bool, typer.Option("--classes", help="List all class names, one a line.")] = False,
) -> None:
    """Say what a classifier is: its classes, method, backbone, accuracy and origin, in one screen.

    Neither the weights nor the method need to be here. Its files are checked.
    """
    from bench.classifier import file

    about = file.read(classifier).about
    if classes:
        for name in about.classnames:
            say.echo(name)
        return
    for line in lines(about):
        say.echo(line)


def lines(about: About) -> Iterator[str]:
    """Yield the lines that describe a classifier."""
    K = len(about.classnames)
    yield f"classes      {K}: {few(about.classnames, 8)}"
    cite = f" ({about.cite}; `bench cite {about.method}`)" if about.cite else ""
    plugin = f", source {about.source[:12]} (a plugin)" if about.source else ""
    yield f"method       {about.title}{cite}, version {about.version}{plugin}"
    if about.values:
        yield "values       " + ", ".join(f"{k}={value_text(_tuple(v))}" for k, v in about.values.items())
    how = about.preprocessing
    yield f"backbone     {about.backbone}, {about.dtype}, weights {about.weights[:12]}"
    resize = "shorter side, then centre crop" if how.resize_mode == "shortest" else "squashed"
    yield f"images       {how.size} px, {how.interpolation}, {resize}; {_opening(about)}"
    yield f"accuracy     {_estimate(about)}"
    yield f"probability  {_temperature(about)}"
    if about.thresholds is not None:
        yield f"abstains     {_thresholds(about.thresholds)}"
    made = about.made
    learnt = f"{counted(made.images, 'image')} of {made.dataset}, and {made.chosen_on} chose its values"
    fitted = (
        f"{made.shots} shots, seed {made.seed}, {learnt}" if made.images else f"no images ({made.dataset})"
    )
    yield f"learned from {fitted}; prompts {made.prompts}, preset {made.preset}"
    versions = ", ".join(f"{name} {made.libraries[name]}" for name in _LIBRARIES if name in made.libraries)
    yield f"made         {made.written} with {versions}"


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _opening(about: About) -> str:
    if about.opening is None:
        return "files opened as published (not turned, transparency dropped)"
    red, green, blue = about.opening.background
    white = "" if about.opening.white is None else f", white is {about.opening.white:g}"
    return f"files turned upright, transparent pixels #{red:02x}{green:02x}{blue:02x}{white}"


def _estimate(about: About) -> str:
    known = about.estimate
    if known is None:
        return "not known: it was kept of one cell, whose test accuracy `bench table` shows"
    low, high = (f"{100 * x:.1f}" for x in (known.low, known.high))
    return f"{100 * known.accuracy:.1f} % expected, {low} to {high} (from {counted(known.images, 'image')})"


def _temperature(about: About) -> str:
    if about.temperature is None:
        return "softmax of the logits; no temperature was fitted, so do not read it as a chance"
    return f"softmax of the logits divided by {about.temperature:.4g}"


def _thresholds(thresholds: dict[str, float | None]) -> str:
    return "; ".join(
        f"at error {100 * float(error):g} % below probability {least:.4g}"
        if least is not None
        else f"at error {100 * float(error):g} % always"
        for error, least in thresholds.items()
    )
