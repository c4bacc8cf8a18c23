"""Share options, models, images and figures among the verbs of ``bench explain``."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import complete, say

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from bench.clip.spec import BackboneSpec
    from bench.data.dataset import Dataset
    from bench.explain.picture import Picture
    from bench.explain.subject import Subject

BackboneName = Annotated[
    str | None,
    typer.Option(
        help="CLIP model: pocket-rn, RN50, ARCH/TAG or ARCH@FILE (default: pocket-rn for embedded datasets, "
        "else RN50).",
        autocompletion=complete.backbone,
    ),
]
OfDataset = Annotated[
    str | None,
    typer.Option(
        help="For an image file: the dataset whose classes are named and on which the method is fitted.",
        autocompletion=complete.dataset,
    ),
]
MethodName = Annotated[str, typer.Option(help="Method to fit, as in safe.", autocompletion=complete.method)]
Shots = Annotated[int, typer.Option(help="Training images per class of the fit.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed of the fit, which draws its training images.", min=1)]
ClassName = Annotated[
    str | None,
    typer.Option("--class", help="Class to explain (default: the true one; if unknown, the predicted one)."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Set a method's setting, as in safe.lr=0.001. Give the option again to set more.",
        autocompletion=complete.settings,
    ),
]
Results = Annotated[
    Path, typer.Option(help="Folder of records and fitted states. Missing fits are made and written here.")
]
Cache = Annotated[
    Path | None,
    typer.Option(help="Folder of stored features (default: $BENCH_CACHE, else the user's cache)."),
]
DataRoot = Annotated[
    Path | None, typer.Option(envvar="BENCH_DATA", help="Folder that holds the datasets' folders.")
]
Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda or cuda:N. auto takes a GPU where there is one.",
        autocompletion=complete.devices,
    ),
]
Png = Annotated[
    Path | None, typer.Option(help="PNG file to write (default: the verb's name, as in maps.png).")
]
ValueKind = Annotated[
    str,
    typer.Option(
        help="Score that is divided among the parts: margin (the class's logit minus the largest other) or "
        "probability.",
        autocompletion=complete.part_values,
    ),
]
Fill = Annotated[
    str,
    typer.Option(
        help="What replaces absent parts: mean, the image's mean colour, or background, the background's.",
        autocompletion=complete.part_fills,
    ),
]
Image = Annotated[
    str,
    typer.Argument(
        help="An image file, DATASET:NUMBER (of the test list), as in mammals:3, or DATASET:PATH.",
        metavar="IMG",
    ),
]


def opened(
    image: str,
    count: int,
    *,
    method: str,
    shots: int,
    seeds: tuple[int, ...],
    backbone: str | None,
    set_: list[str] | None,
    results: Path,
    cache: Path | None,
    device: str,
    dataset: str | None = None,
    data_root: Path | None = None,
    class_: str | None = None,
    valued: tuple[str, str] | None = None,
    parts: bool = False,
) -> tuple[Subject, list[Picture]]:
    """Return the models before and after the fits, and the images, that a verb asks for.

    ``image``: a file, DATASET:NUMBER, DATASET:PATH, or a dataset, of which ``count`` test images are taken.
    ``parts``: take scenes whose parts are known. ``valued``: the values of ``--value`` and ``--fill``.
    Raises BenchError, before anything is fitted, for an image file without ``dataset``, for a class that the
    dataset does not have, for unknown words in ``valued``, and for a fit that cannot be made here.
    """
    from bench.cli import asked
    from bench.data import catalog
    from bench.explain import picture as pictures
    from bench.run import devices

    # Threads that wait in a loop starve other programs here; torch reads this variable when it starts.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    devices.check(device)
    asked.places(results, cache, "local", reads=True)
    spec = spec_of(backbone, image, *filter(None, [dataset]))
    single = Path(image).is_file() or (":" in image and not os.path.isdir(image))
    found = _found(image, spec, dataset, data_root) if single else None
    name = dataset or (image.rpartition(":")[0] if single else image)
    if class_ is not None:
        _class(catalog.find(name, data_root, images=False), class_)
    from bench.explain import parts as parts_of
    from bench.explain import share

    if valued:
        parts_of.check(*valued)
    fitted = _fitted(
        dataset=name,
        method=method,
        shots=shots,
        seeds=seeds,
        backbone=backbone or spec.name,
        set_=set_ or [],
        results=results,
        cache=cache,
        device=device,
        data_root=data_root,
    )
    if parts:
        return fitted, share.scenes(fitted, count)
    if found is not None:
        picture, home = found
        # A label of another dataset numbers other classes, so it is dropped.
        of = fitted.dataset.spec
        known = home is not None and (home.spec.name, home.spec.identity) == (of.name, of.identity)
        return fitted, [picture if known else replace(picture, label=None)]
    test = fitted.dataset.test.paths
    places = pictures.spread(len(test), min(count, len(test)))
    return fitted, [pictures.of_dataset(fitted.dataset, test[i], spec) for i in places]


def _found(
    image: str, spec: BackboneSpec, dataset: str | None, data_root: Path | None
) -> tuple[Picture, Dataset | None]:
    """Return one image, and the dataset that it belongs to (None for a file).

    A file is opened as the named dataset opens its images. Raises BenchError for a file without a dataset.
    """
    from bench.data import catalog
    from bench.errors import BenchError
    from bench.explain import picture as pictures

    if Path(image).is_file() and dataset is None:
        raise BenchError(f"{image}: name the dataset on which the method is fitted, as in --dataset mammals")
    opening = catalog.describe(dataset).opening if dataset is not None else pictures.OWN
    return pictures.find(image, spec, data_root, opening)


def _fitted(
    *,
    dataset: str,
    method: str,
    shots: int,
    seeds: tuple[int, ...],
    backbone: str,
    set_: list[str],
    results: Path,
    cache: Path | None,
    device: str,
    data_root: Path | None,
) -> Subject:
    """Return the models before and after the fits, read from disk or fitted now.

    Raises BenchError, before anything is fitted, if a fit cannot be made here.
    """
    from bench.cli import asked
    from bench.explain import subject
    from bench.names import canonical
    from bench.plan import settings
    from bench.plan.request import Request
    from bench.registry import builtin
    from bench.run.session import Session

    registry = builtin()
    known = {canonical(m.name): m for m in registry.methods.values()}
    request = Request(
        methods=(method,),
        datasets=(dataset,),
        shots=(shots,),
        seeds=seeds,
        backbones=(backbone,),
        overrides=settings.parse_overrides(set_, known),
        data_root=data_root,
        results=results,
        cache=cache,
    )
    asked.heeded(request, registry, set_, ())
    session = Session(device, cache, lambda line: say.echo(line, err=True))
    return subject.subject(request, registry, session)


def spec_of(backbone: str | None, *texts: str) -> BackboneSpec:
    """Return the named backbone; without one, pocket-rn if all datasets are embedded, else CLIP's RN50."""
    from bench.cli.plan_view import embedded
    from bench.clip.spec import resolve
    from bench.data import catalog

    if backbone:
        return resolve(backbone)
    named = [text for text in texts if not Path(text).is_file()]
    sets = [text if os.path.isdir(text) else text.rpartition(":")[0] or text for text in named]
    foreign = not sets or not all(embedded(catalog.describe(name)) for name in sets)
    return resolve("RN50" if foreign else "pocket-rn")


def label_of(subject: Subject, picture: Picture, dense_BTD: Tensor, named: str | None) -> int:
    """Return the class to explain: the named one, else the true one, else what the fitted model predicts."""
    if named is not None:
        return _class(subject.dataset, named)
    if picture.label is not None:
        return picture.label
    return int(subject.after[0].logits(dense_BTD)[0].argmax())


def _class(dataset: Dataset, named: str) -> int:
    """Return the number of the named class. Raises BenchError, with the nearest name, if there is none."""
    from bench.errors import BenchError
    from bench.names import canonical, nearest

    classes = {canonical(name.replace(" ", "_")): k for k, name in enumerate(dataset.classnames)}
    if canonical(named.replace(" ", "_")) not in classes:
        raise BenchError(f"{dataset.name} has no class '{named}'{nearest(named, dataset.classnames)}")
    return classes[canonical(named.replace(" ", "_"))]


def name_of(dataset: Dataset, label: int) -> str:
    """Return a class's name as figures show it."""
    return dataset.classnames[label].replace("_", " ")


def true_class(picture: Picture, dataset: Dataset | None) -> str | None:
    """Return the name of a picture's own class, or None if it is unknown."""
    return None if dataset is None or picture.label is None else name_of(dataset, picture.label)


def caption_of(subject: Subject, picture: Picture, dense_BTD: Tensor, explained: int) -> str:
    """Return a caption: the picture's true class, and what the models before and after the fit predict."""
    from bench.explain import figure

    models = subject.before, subject.after[0]
    predicted = [name_of(subject.dataset, int(m.logits(dense_BTD)[0].argmax())) for m in models]
    return figure.caption(
        true_class(picture, subject.dataset), predicted, name_of(subject.dataset, explained)
    )


def png(out: Path | None, usual: Path) -> Path:
    """Return the file to write. Raises BenchError, before work is spent, if it cannot be written as PNG."""
    from bench.cli.options import writable

    return writable(out or usual, (".png",))


def save(drawn: Figure, path: Path) -> None:
    """Write a figure as PNG and print its path."""
    from bench.explain import figure

    figure.save(drawn, path)
    say.echo(f"wrote {path}")
