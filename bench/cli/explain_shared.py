"""What the verbs of ``bench explain`` share: options, the models and images these mean, writing a figure."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import say

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from bench.clip.spec import BackboneSpec
    from bench.data.dataset import Dataset
    from bench.explain.picture import Picture
    from bench.explain.subject import Subject

BackboneName = Annotated[
    str | None, typer.Option(help="pocket-rn, RN50, ARCH/TAG, ARCH@FILE (default: by the images).")
]
OfDataset = Annotated[
    str | None, typer.Option(help="For an image file: the dataset whose classes and fit are meant.")
]
MethodName = Annotated[str, typer.Option(help="What is fitted.")]
Shots = Annotated[int, typer.Option(help="Images per class of the fit.", min=1)]
Seed = Annotated[int, typer.Option(help="Few-shot draw of the fit.", min=1)]
ClassName = Annotated[
    str | None, typer.Option("--class", help="Class to explain (default: the true or predicted one).")
]
Set = Annotated[list[str] | None, typer.Option("--set", help="method.key=value of the fit; may be repeated.")]
Results = Annotated[Path, typer.Option(help="Where records and states are, and where missing fits go.")]
Cache = Annotated[
    Path | None, typer.Option(help="Feature store (default: $BENCH_CACHE or the user's cache).")
]
DataRoot = Annotated[Path | None, typer.Option(envvar="BENCH_DATA", help="Folder of the datasets.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Png = Annotated[Path | None, typer.Option(help="The PNG file to write.")]
ValueKind = Annotated[
    str, typer.Option(help="What is shared out: margin (logit less the largest other one) or probability.")
]
Fill = Annotated[
    str, typer.Option(help="What takes the place of absent parts: mean or background, its mean colour.")
]
Image = Annotated[
    str,
    typer.Argument(help="An image file, DATASET:NUMBER (of the test list) or DATASET:PATH.", metavar="IMG"),
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
    """The models and the images that a verb asks for; ``parts``: scenes whose parts are known.

    ``image``: a file, DATASET:NUMBER, DATASET:PATH, or a dataset, of which ``count`` test images are taken.
    Before anything is fitted it raises BenchError for an image file without ``dataset``, for a class that the
    dataset does not have and for words in ``valued`` (``--value``, ``--fill``) that there are not; also for
    what cannot be fitted here.
    """
    from bench.cli import asked
    from bench.data import catalog
    from bench.explain import picture as pictures
    from bench.run import devices

    # Threads that wait in a loop starve whatever else runs here; torch's OpenMP reads this when it starts.
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
        # Another dataset's label counts other classes.
        of = fitted.dataset.spec
        known = home is not None and (home.spec.name, home.spec.identity) == (of.name, of.identity)
        return fitted, [picture if known else replace(picture, label=None)]
    test = fitted.dataset.test.paths
    places = pictures.spread(len(test), min(count, len(test)))
    return fitted, [pictures.of_dataset(fitted.dataset, test[i], spec) for i in places]


def _found(
    image: str, spec: BackboneSpec, dataset: str | None, data_root: Path | None
) -> tuple[Picture, Dataset | None]:
    """One image and the dataset that it is of; a file is opened as the named dataset opens its images.

    Raises BenchError for a file where no dataset is named.
    """
    from bench.data import catalog
    from bench.errors import BenchError
    from bench.explain import picture as pictures

    if Path(image).is_file() and dataset is None:
        raise BenchError(
            f"{image}: name the dataset whose classes and fit are meant, as in --dataset mammals"
        )
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
    """The models before and after the fits that are meant, from disk or fitted now.

    Raises BenchError, before anything is fitted, for what cannot be fitted here.
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
    """The backbone asked for; by default the embedded one for the embedded datasets, else CLIP's RN50."""
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
    """The class to explain: the named one, else the true one, else what the fitted model predicts."""
    if named is not None:
        return _class(subject.dataset, named)
    if picture.label is not None:
        return picture.label
    return int(subject.after[0].logits(dense_BTD)[0].argmax())


def _class(dataset: Dataset, named: str) -> int:
    """The number of the class of this name. Raises BenchError, with the nearest name, where there is none."""
    from bench.errors import BenchError
    from bench.names import canonical, nearest

    classes = {canonical(name.replace(" ", "_")): k for k, name in enumerate(dataset.classnames)}
    if canonical(named.replace(" ", "_")) not in classes:
        raise BenchError(f"{dataset.name} has no class '{named}'{nearest(named, dataset.classnames)}")
    return classes[canonical(named.replace(" ", "_"))]


def name_of(dataset: Dataset, label: int) -> str:
    """A class as figures name it."""
    return dataset.classnames[label].replace("_", " ")


def true_class(picture: Picture, dataset: Dataset | None) -> str | None:
    """The name of a picture's own class, where it is known."""
    return None if dataset is None or picture.label is None else name_of(dataset, picture.label)


def caption_of(subject: Subject, picture: Picture, dense_BTD: Tensor, explained: int) -> str:
    """The true class of a picture and what the models before and after the fit predict for it."""
    from bench.explain import figure

    models = subject.before, subject.after[0]
    predicted = [name_of(subject.dataset, int(m.logits(dense_BTD)[0].argmax())) for m in models]
    return figure.caption(
        true_class(picture, subject.dataset), predicted, name_of(subject.dataset, explained)
    )


def png(out: Path | None, usual: Path) -> Path:
    """The file to write. Raises BenchError, before work is spent, where it cannot be written as a PNG."""
    from bench.cli.options import writable

    return writable(out or usual, (".png",))


def save(drawn: Figure, path: Path) -> None:
    """Write a PNG and say where it is."""
    from bench.explain import figure

    figure.save(drawn, path)
    say.echo(f"wrote {path}")
