"""``bench predict``: classify new images with a saved classifier."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from bench.cli import complete, say
from bench.cli.explain_shared import Device
from bench.names import counted

if TYPE_CHECKING:
    from bench.classifier.model import Answer, Model

_AT_ONCE = 256  # rows that are written together
_EVERY = 10.0  # seconds between two lines of progress where standard error is no terminal


def predict(
    classifier: Annotated[Path, typer.Argument(help="Folder that `bench keep` wrote, as in shop.clf.")],
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Image files, folders (with the folders below them) and patterns, as in 'new/*.jpg'. "
            "A - reads paths from standard input, one a line.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write, .csv or .jsonl, instead of CSV on standard output."),
    ] = None,
    top: Annotated[int, typer.Option(help="How many of the most probable classes to give.", min=1)] = 2,
    min_confidence: Annotated[
        float | None,
        typer.Option(help="Leave the class empty where its probability is lower.", min=0.0, max=1.0),
    ] = None,
    abstain_at_error: Annotated[
        str | None,
        typer.Option(
            help="Leave the class empty where it is not sure enough for this error among the others, as in "
            "5%. The classifier must know the threshold.",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="The weights, as ARCH@FILE, if the classifier was made with a file of yours.",
            autocompletion=complete.backbone,
        ),
    ] = None,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that decode images (default: by the number of images).", min=0),
    ] = None,
    max_pixels: Annotated[
        str | None,
        typer.Option(help="Refuse images with more pixels, as in 500M (default: what memory allows)."),
    ] = None,
    plugin: Annotated[
        Path | None, typer.Option(help="Python file of the method, if it does not come with the program.")
    ] = None,
    allow_torchscript: Annotated[
        bool, typer.Option(help="Load weights that are a TorchScript archive, which runs code.")
    ] = False,
) -> None:
    """Classify images: a line for each with its class, the probability, and the next best class.

    It needs the classifier and the weights of its CLIP, and neither a dataset nor records. An image that
    cannot be read gets a line with the reason, and the command ends with 1.
    """
    from bench.classifier import answers, file
    from bench.classifier.model import load
    from bench.cli.codes import Code
    from bench.cli.options import writable
    from bench.data import limit
    from bench.run import devices

    devices.check(device)
    if out is not None:
        writable(out, (".csv", ".jsonl"))
    about = file.told(classifier)
    least = answers.least(about, min_confidence, abstain_at_error)
    names = answers.listed(paths, lines)
    model = load(
        classifier,
        device,
        backbone=backbone,
        plugin=plugin,
        allow_torchscript=allow_torchscript,
        max_pixels=None if max_pixels is None else limit.parsed(max_pixels),
        workers=workers,
    )
    counts = _written(model, names, out, min(top, len(about.classnames)), least)
    say.echo(counts.said(), err=True)
    if out is not None:
        say.echo(f"wrote {out}", err=True)
    if counts.unread:
        say.secho(f"bench: {counted(counts.unread, 'image')} could not be read", fg="yellow", err=True)
        raise typer.Exit(Code.FAILED)


@dataclass
class _Counts:
    """How many images were given a class, left without one, and could not be read, in how many seconds."""

    given: int = 0
    abstained: int = 0
    unread: int = 0
    seconds: float = 0.0

    def said(self) -> str:
        """Return the counts in one line."""
        total = self.given + self.abstained + self.unread
        rest = [
            f"{n} {what}"
            for n, what in ((self.abstained, "without a class"), (self.unread, "unreadable"))
            if n
        ]
        rate = f"{total / max(self.seconds, 1e-9):.3g} images a second"
        return f"{counted(total, 'image')}: {', '.join([f'{self.given} classified', *rest])}; {rate}"


def lines() -> Iterator[str]:
    """Yield the lines of standard input as paths; empty ones are left out."""
    for line in sys.stdin.buffer:
        if path := os.fsdecode(line).rstrip("\r\n"):
            yield path


def _written(model: Model, names: list[str], out: Path | None, top: int, least: float | None) -> _Counts:
    """Write a row for each image, to a file or to standard output, and return what was counted."""
    from bench.classifier import answers
    from bench.classifier.images import Files
    from bench.classifier.model import best, probabilities
    from bench.files import writing

    counts, began = _Counts(), time.monotonic()
    as_json = out is not None and out.suffix.lower() == ".jsonl"
    classes = model.about.classnames

    def row_of(answer: Answer) -> answers.Row:
        name, logits_K = answer.name, answer.logits
        if logits_K is None:
            counts.unread += 1
            return answers.unread(name, answer.reason)
        shares_K = probabilities(logits_K[None], model.about.temperature)[0]
        made = answers.row(name, shares_K, best(logits_K[None])[0, :top], classes, least)
        counts.given += made.given
        counts.abstained += not made.given
        return made

    with ExitStack() as stack:
        file = stack.enter_context(writing(out)) if out is not None else None
        watch = stack.enter_context(_Progress(len(names)))
        _put("" if as_json else answers.in_csv((), top, header=True), file)
        found = model.answers(Files(model.opening, model.max_pixels), names, watch.at)
        while rows := [row_of(answer) for answer in islice(found, _AT_ONCE)]:
            _put(answers.in_jsonl(rows, top) if as_json else answers.in_csv(rows, top), file)
    counts.seconds = time.monotonic() - began
    return counts


def _put(text: str, file: IO[bytes] | None) -> None:
    """Write text to a file, or print it."""
    if file is not None:
        file.write(text.encode())
    elif text:
        say.echo(text, nl=False)


class _Progress:
    """Progress on standard error: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

        from bench.cli.live import Doing, Live

        columns = Doing(), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn()
        self.live = Live(*columns, text="classifying", total=total)
        self.said = self.live.began

    def __enter__(self) -> _Progress:
        self.live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.__exit__(*error)  # type: ignore[arg-type]

    def at(self, done: int, total: int) -> None:
        """Show how many images are done."""
        now = self.live.clock()
        rate = f"{done / max(now - self.live.began, 1e-9):.3g} a second"
        if self.live.live:
            self.live.progress.update(self.live.bar, completed=done, description=f"classifying, {rate}")
        elif now - self.said >= _EVERY:
            self.said = now
            self.live.say(f"{done:,} of {total:,} images, {rate}")
