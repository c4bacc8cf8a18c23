"""``bench export``: write a classifier as an ONNX file, for programs without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import complete, say
from bench.cli.explain_shared import Cache, DataRoot
from bench.cli.options import CellPrompts
from bench.errors import BenchError
from bench.names import counted

if TYPE_CHECKING:
    from bench.classifier.export import Exported
    from bench.classifier.model import Model
    from bench.data.dataset import Dataset

_SHOTS, _SEED = 16, 1


def export(
    classifier: Annotated[
        Path | None, typer.Argument(help="Folder that `bench keep` wrote, as in shop.clf.")
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images to compare the file with PyTorch on: files, folders and patterns. A - reads paths "
            "from standard input. Default: test images of the dataset that the method learned.",
        ),
    ] = None,
    onnx: Annotated[Path | None, typer.Option(help="File to write, as in shop.onnx.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Without a classifier: the method of a recorded cell, as in safe.",
            autocompletion=complete.method,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Dataset of that cell, or the one that the classifier learned: a name, a folder or a TOML "
            "file.",
            autocompletion=complete.dataset,
        ),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(help=f"Training images per class of the cell (default: {_SHOTS}).", min=1)
    ] = None,
    seed: Annotated[int | None, typer.Option(help=f"Seed of the cell (default: {_SEED}).", min=1)] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="CLIP model of the cell (default: pocket-rn for embedded datasets, else RN50). For a "
            "classifier: its weights, as ARCH@FILE, if they are a file of yours.",
            autocompletion=complete.backbone,
        ),
    ] = None,
    prompts: CellPrompts = None,
    results: Annotated[
        Path | None, typer.Option(help="Folder of the cell's records (default: results).")
    ] = None,
    cache: Cache = None,
    data_root: DataRoot = None,
    plugin: Annotated[
        Path | None, typer.Option(help="Python file of the method, if it does not come with the program.")
    ] = None,
) -> None:
    """Write a classifier, or the fitted method of a recorded cell, as one ONNX file.

    The file turns pixels into logits and probabilities; class names and preprocessing are in its metadata.
    It is compared with PyTorch on real images before it is written, and refused if a number differs by more
    than 1e-4. Needs the extra `onnx`. For other options of a cell, save it with `bench keep` first.
    """
    from bench.classifier import export as exporting
    from bench.classifier import model as models
    from bench.classifier import onnx as format_
    from bench.cli.options import writable

    if onnx is None:
        raise BenchError("name the file to write, as in --onnx shop.onnx")
    of_cell = {"--method": method, "--shots": shots, "--seed": seed, "--prompts": prompts,
               "--results": results}  # fmt: skip
    given = [flag for flag, value in of_cell.items() if value is not None]
    if classifier is not None and given:
        raise BenchError(f"{', '.join(given)}: a classifier is one fitted method already; leave one out")
    if classifier is None and (method is None or dataset is None):
        raise BenchError(
            "name a classifier, as in bench export shop.clf --onnx shop.onnx, or a recorded cell with "
            "--method and --dataset"
        )
    writable(onnx, (".onnx",), "--onnx")
    format_.require()
    if classifier is not None:
        model = models.load(classifier, "cpu", backbone=backbone, plugin=plugin)
    else:
        assert method is not None and dataset is not None
        model = _of_cell(
            method, dataset, shots or _SHOTS, seed or _SEED, backbone, prompts,
            results or Path("results"), cache, data_root, plugin,
        )  # fmt: skip
    if images:
        from bench.classifier.answers import listed
        from bench.cli.predict import lines

        done = exporting.to_onnx(model, onnx, listed(images, lines))
    else:
        known = _learned(model, dataset, data_root, classifier)
        done = exporting.to_onnx(model, onnx, known.test.paths, known.source)
    _say(model, onnx, done)


def _say(model: Model, file: Path, done: Exported) -> None:
    about, n = model.about, done.compared.images
    say.echo(
        f"wrote {file}: {about.title} on {about.backbone}, "
        f"{counted(len(about.classnames), 'class', 'classes')}, {file.stat().st_size / 1e6:.1f} MB"
    )
    say.echo(
        f"compared with PyTorch on {counted(n, 'image')}: probabilities differ by at most "
        f"{done.compared.probability:.1e}, logits by {done.compared.logit:.1e} of the largest"
    )
    say.echo(
        f"`bench predict`, which rounds features to half precision, gives {done.same} of {n} images the same "
        f"class; probabilities differ by at most {done.apart:.1e}"
    )


def _learned(model: Model, dataset: str | None, data_root: Path | None, classifier: Path | None) -> Dataset:
    """Return the dataset that the method learned. Raises BenchError if it is not here as it was."""
    from bench.data import catalog

    made = model.about.made
    mend = f"name images to compare with, as in bench export {classifier or 'shop.clf'} photos/ --onnx FILE"
    try:
        found = catalog.find(dataset or made.dataset, data_root)
    except BenchError as error:
        raise BenchError(f"{error}; or {mend}") from error
    if found.digest != made.dataset_digest:
        raise BenchError(f"{dataset or made.dataset}: other data than the classifier learned; {mend}")
    return found


def _of_cell(
    method: str,
    dataset: str,
    shots: int,
    seed: int,
    backbone: str | None,
    prompts: str | None,
    results: Path,
    cache: Path | None,
    data_root: Path | None,
    plugin: Path | None,
) -> Model:
    """Return the fitted method of a recorded cell, ready to answer on the processor."""
    from bench.classifier import cell
    from bench.classifier.model import Model
    from bench.cli import asked
    from bench.cli.explain_shared import spec_of
    from bench.plan.request import Request
    from bench.registry import with_plugins
    from bench.run.session import Session

    asked.places(results, cache, "local", reads=True)
    registry = with_plugins((plugin,) if plugin else ())
    named = backbone or spec_of(None, dataset).name
    request = Request(
        methods=(method,),
        datasets=(dataset,),
        shots=(shots,),
        seeds=(seed,),
        backbones=(named,),
        prompts=(prompts,) if prompts else (),
        data_root=data_root,
        results=results,
        cache=cache,
    )
    asked.heeded(request, registry, (), ())
    session = Session("cpu", cache, lambda line: say.echo(line, err=True))
    try:
        made = cell.of_cell(request, registry, session)
    finally:
        session.close()
    return Model(made, "cpu", backbone=named if "@" in named else None, registry=registry)
