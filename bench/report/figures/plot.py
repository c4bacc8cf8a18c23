"""Choose a figure by its kind, draw it, and write it to a file. Equal records give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.files import write_bytes
from bench.names import canonical, nearest, shown

if TYPE_CHECKING:
    import pandas as pd

    from bench.report.figures.style import Drawn

KINDS = {
    "shots": "accuracy against images per class: the average and every dataset",
    "sweep": "accuracy against the values of a swept setting, of training or of inference",
    "beta": "accuracy change against beta = 0, on the source and its shifted test sets",
    "prompts": "one method with several prompt sets against images per class",
    "cd": "critical difference diagram of average ranks over datasets",
    "time": "accuracy against seconds of fitting, tuning included",
    "reliability": "accuracy against confidence, before and after temperature scaling",
    "confusion": "the most confused pairs of classes",
    "risk-coverage": "how often a method errs on the images that it is surest of",
}
SETTINGS = ("sweep", "beta")  # kinds with a setting on the x axis
FORMATS = ("pdf", "png", "svg")
_NAMES = ("method", "dataset", "target", "variant")  # columns of the frame that figures write out


def plot(
    frame: pd.DataFrame,
    kind: str = "shots",
    *,
    methods: Sequence[str] = (),
    datasets: Sequence[str] = (),
    shots: Sequence[int] = (),
    backbone: str | None = None,
    prompts: Sequence[str] = (),
    protocol: str | None = None,
    preset: str | None = None,
    setting: str | None = None,
    first: Sequence[str] = (),
    written: Mapping[str, str] | None = None,
    data_root: Path | None = None,
) -> Drawn:
    """Draw the figure ``kind`` (a key of ``KINDS``) of a DataFrame from ``load_results``.

    Intervals are the 95 % intervals of bench.stats. Names narrow the figure down. ``setting`` is the setting
    that ``sweep`` and ``beta`` have on their x axis, such as ``lr`` or ``safe.lr``. ``first`` names methods
    that get a colour before others if a figure cannot tell all of them apart. ``written`` has the path of a
    user's own dataset by its name, and ``data_root`` is the folder of downloaded datasets: ``confusion``
    reads the class names there. Raises BenchError for an unknown kind or setting. If records are missing, the
    message names the ``bench run`` that makes them.
    """
    which = check(kind, setting)
    frame, changed = _shown(frame)
    # Seaborn and matplotlib take a second to load, so they are imported only here.
    from bench.report.figures import beta, cd, confusion, reliability, risk, sweep, time
    from bench.report.figures import prompts as prompts_figure
    from bench.report.figures import shots as shots_figure
    from bench.report.select import Choice

    choice = Choice.of(
        frame,
        methods=[changed.get(name, name) for name in methods],
        datasets=[changed.get(name, name) for name in datasets],
        shots=shots,
        backbone=backbone,
        prompts=prompts,
        protocol=protocol,
        preset=preset,
        first=first,
    )
    if which == "sweep":
        return sweep.draw(frame, choice, setting)
    if which == "beta":
        return beta.draw(frame, choice, setting or "beta")
    if which == "confusion":
        places = {changed.get(name, name): path for name, path in (written or {}).items()}
        return confusion.draw(frame, choice, places, data_root)
    draw = {
        "shots": shots_figure.draw,
        "prompts": prompts_figure.draw,
        "cd": cd.draw,
        "time": time.draw,
        "reliability": reliability.draw,
        "risk-coverage": risk.draw,
    }
    return draw[which](frame, choice)


def _shown(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the frame with printable names, and the names that changed.

    Fonts lack other characters.
    """
    texts: dict[str, str] = {}
    columns = [column for column in (*_NAMES, "title") if column in frame]
    names = {name for column in columns for name in frame[column].unique()}
    for name in sorted(names):
        if (text := shown(name)) != name:
            while text in names:  # two names that look alike stay two
                text += "'"
            names.add(text)
            texts[name] = text
    if not texts:
        return frame, texts
    changed = frame.assign(**{column: frame[column].replace(texts) for column in columns})
    changed.attrs.update(frame.attrs)
    return changed, texts


def check(kind: str, setting: str | None = None) -> str:
    """Return the kind as ``KINDS`` spells it.

    Raises BenchError for an unknown kind or a setting that it lacks.
    """
    name = canonical(kind)
    if name not in KINDS:
        raise BenchError(f"no figure '{kind}'{nearest(kind, KINDS)}; there are {', '.join(KINDS)}")
    if setting is not None and name not in SETTINGS:
        raise BenchError(f"plot {name} has no setting; --setting is for {' and '.join(SETTINGS)}")
    return name


def encode(drawn: Drawn, form: str, dpi: int = 300) -> bytes:
    """Return the figure as the bytes of a file.

    No date and no random id goes in, so equal records give equal files.
    """
    from bench.report.figures import style

    if form not in FORMATS:
        raise BenchError(
            f"figure format '{form}': unknown{nearest(form, FORMATS)}; one of: {', '.join(FORMATS)}"
        )
    nameless = {
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        "svg": {"Date": None, "Creator": None},
    }
    out = io.BytesIO()
    with style.context():
        drawn.figure.savefig(out, format=form, dpi=dpi, metadata=nameless.get(form, {"Software": None}))
    return out.getvalue()


def save(drawn: Drawn, path: Path, dpi: int = 300) -> None:
    """Write the figure in the format of the path's suffix. Raises BenchError for an unknown suffix."""
    write_bytes(path, encode(drawn, path.suffix.removeprefix(".").lower(), dpi))
