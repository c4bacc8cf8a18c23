"""``bench explain``: what the model looks at, before and after a fit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bench.data.dataset import Dataset
    from bench.explain.picture import Picture
    from bench.explain.subject import Subject

app = typer.Typer(help="What the model looks at, before and after a fit.", no_args_is_help=True)

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


@app.command()
def correspond(
    first: Annotated[
        str, typer.Argument(help="The image that is asked about: a file, DATASET:NUMBER or DATASET:PATH.")
    ],
    second: Annotated[str, typer.Argument(help="The image that is searched.")],
    at: Annotated[
        str, typer.Option(help="The point in the first image: x,y in its own pixels, from the top left.")
    ],
    backbone: BackboneName = None,
    every: Annotated[
        int | None, typer.Option(help="ViT: every how many-th block (default: four in all).", min=1)
    ] = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    out: Png = None,
) -> None:
    """Where the second image holds what the first shows at a point: cosine of dense features, stage by stage
    (Eq. 1).
    """
    spec = _spec(backbone, first, second)
    from bench.clip import backbone as backbones
    from bench.explain import figure, picture, stages
    from bench.explain.subject import normalised
    from bench.run.session import pick_device

    a, b = (picture.find(text, spec, data_root)[0] for text in (first, second))
    point = a.seen_at(*_point(at))
    tower = backbones.load(spec, pick_device(device))
    found_a, found_b = (stages.stages(tower, normalised(p.pixels[None], spec), every) for p in (a, b))
    drawn = {}
    for name, x_SSD in found_a.items():
        where = stages.cell(spec.image_size, x_SSD.shape[1], *point)
        found = stages.correspondence(x_SSD[0], found_b[name][0], *where).float().cpu().numpy()
        drawn[name] = found, where
        r, c = divmod(int(found.argmax()), len(found))
        typer.echo(
            f"{name}: peak {found.max():.3f} at row {r + 1}, column {c + 1} of {len(found)} x {len(found)}"
        )
    _save(figure.correspondence(a, b, point, drawn), out or Path("correspond.png"))


@app.command()
def maps(
    image: Annotated[
        str, typer.Argument(help="A file, DATASET:NUMBER, DATASET:PATH, or a dataset.", metavar="IMG|DATASET")
    ],
    images: Annotated[
        int, typer.Option(help="Of a dataset: how many test images, spread over the classes.", min=1)
    ] = 6,
    dataset: OfDataset = None,
    method: MethodName = "safe",
    shots: Shots = 16,
    seed: Seed = 1,
    class_: ClassName = None,
    copies: Annotated[
        int, typer.Option(help="Noisy copies that the gradients are averaged over.", min=1)
    ] = 16,
    noise: Annotated[float, typer.Option(help="Their noise, as a share of the image's range.", min=0)] = 0.1,
    backbone: BackboneName = None,
    set_: Set = None,
    results: Results = Path("results"),
    cache: Cache = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    out: Png = None,
) -> None:
    """Attention-pool maps and Smooth Grad-CAM++ heat maps, before and after a fit."""
    found, pictures = _open(
        image, images, dataset, method, shots, (seed,), backbone, set_, results, cache, data_root, device
    )
    from bench.explain import figure, gradcam
    from bench.explain.parts import attention_map
    from bench.explain.subject import dense, normalised

    rows: list[Any] = []
    for p in pictures:
        clean = dense(found.tower, p.pixels[None])
        k = _label(found, p, clean, class_)
        # One noise for both models, so that they differ by the fit alone.
        rough = gradcam.noisy(
            found.tower, normalised(p.pixels[None], found.tower.spec)[0], copies, noise
        ).float()
        grid = gradcam.grid_of(found.tower)
        heats, pools = [], []
        for model, word in zip(found.models, ("before", "after"), strict=True):
            share = float(model.logits(clean).softmax(-1)[0, k].detach())
            heat = gradcam.heat(lambda x, model=model, k=k: model.logits(x)[:, k], clean[0], rough, grid)  # type: ignore[misc]
            cold = "" if float(heat.max()) > 0 else ", none positive"
            heats.append((f"Grad-CAM++ {word}\np = {share:.2f}{cold}", heat.detach().cpu().numpy()))
            pools.append((f"attention {word}", attention_map(found.tower, model, p)))
        rows.append((p, found.dataset.classnames[k].replace("_", " "), pools, heats))
    _save(figure.heat_maps(rows), out or Path("maps.png"))


@app.command()
def shapley(
    image: Image,
    masks: Annotated[
        Path | None, typer.Option(help="A picture as large as the image, each part in a colour of its own.")
    ] = None,
    grid: Annotated[
        int | None, typer.Option(help="Instead of masks: N x N rectangles (3 if no parts are known).")
    ] = None,
    dataset: OfDataset = None,
    method: MethodName = "safe",
    shots: Shots = 16,
    seed: Seed = 1,
    class_: ClassName = None,
    value: ValueKind = "probability",
    fill: Fill = "mean",
    permutations: Annotated[int, typer.Option(help="Random orders for more than 10 parts.", min=2)] = 200,
    backbone: BackboneName = None,
    set_: Set = None,
    results: Results = Path("results"),
    cache: Cache = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    out: Png = None,
) -> None:
    """What each part of an image adds to a class's score (Shapley values), before and after a fit."""
    if masks and grid:
        from bench.errors import BenchError

        raise BenchError("--masks and --grid: choose one")
    found, (picture,) = _open(
        image, 1, dataset, method, shots, (seed,), backbone, set_, results, cache, data_root, device
    )
    from dataclasses import replace

    from bench.explain import figure
    from bench.explain import picture as pictures
    from bench.explain.parts import part_values
    from bench.explain.subject import dense

    if masks:
        picture = replace(picture, masks=pictures.file_masks(masks, picture, found.tower.spec))
    elif grid or not picture.masks:
        picture = replace(picture, masks=pictures.grid_masks(len(picture.pixels), grid or 3))
    k = _label(found, picture, dense(found.tower, picture.pixels[None]), class_)
    values = part_values(found.tower, found.models, picture, k, value, fill, permutations)
    name = found.dataset.classnames[k].replace("_", " ")
    how = f"sampled, {values.orders} orders, +- standard error" if values.orders else "exact"
    typer.echo(
        f"{picture.name}, {value} of '{name}' ({how}; all parts, none): before {values.all[0]:.3f}, "
        f"{values.none[0]:.3f}; "
        f"after {values.all[1]:.3f}, {values.none[1]:.3f}"
    )
    for i, part in enumerate(picture.masks):
        said = [
            f"{word} {values.phi[i, v]:+.4f}" + (f" +- {values.se[i, v]:.4f}" if values.orders else "")
            for v, word in enumerate(("before", "after"))
        ]
        typer.echo(f"  {part}: {', '.join(said)}")
    _save(figure.part_values(picture, name, values, ("before", "after"), value), out or Path("shapley.png"))


@app.command()
def share(
    dataset: Annotated[str, typer.Option(help="A dataset of composed scenes, such as mammals.")] = "mammals",
    scenes: Annotated[int, typer.Option(help="Test scenes, spread over the classes.", min=2)] = 200,
    seeds: Annotated[str, typer.Option(help="Few-shot draws, comma-separated.")] = "1,2,3",
    method: MethodName = "safe",
    shots: Shots = 16,
    value: ValueKind = "margin",
    fill: Fill = "mean",
    backbone: BackboneName = None,
    set_: Set = None,
    results: Results = Path("results"),
    cache: Cache = None,
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="Folder for the JSON file and the figure.")] = Path("explain"),
) -> None:
    """Whether a fit moves importance to the object: mean shares of glyph, distractors and background, with
    intervals.
    """
    from bench.cli.options import numbers

    found, pictures = _open(
        dataset,
        scenes,
        None,
        method,
        shots,
        numbers(seeds, "--seeds"),
        backbone,
        set_,
        results,
        cache,
        None,
        device,
        True,
    )
    from bench.explain import figure
    from bench.explain import share as sharing
    from bench.files import write_json

    def progress(done: int) -> None:
        if done % 20 == 0 or done == len(pictures):
            typer.echo(f"{done} of {len(pictures)} scenes", err=True)

    rows = sharing.measure(found, pictures, value, fill, progress)
    shares = sharing.summary(rows)
    title = found.after[0].name.partition(",")[0]
    said = sharing.verdict(title, shares)
    stem = f"share-{found.dataset.name}-{found.tower.spec.name.replace('/', '_')}-{found.method}"
    of = {
        "dataset": found.dataset.name,
        "dataset_digest": found.dataset.digest,
        "backbone": found.tower.spec.name,
        "method": found.method,
        "shots": shots,
        "seeds": found.seeds,
        "fits": found.keys,
        "value": value,
        "fill": fill,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{stem}.json", {"verdict": said, **of, "shares": shares, "scenes": sharing.plain(rows)})
    heading = (
        f"{title} on {found.dataset.name}, {shots} shots, {len(rows)} scenes, seeds {seeds} "
        f"({found.tower.spec.name})"
    )
    for measure, groups in shares.items():
        typer.echo(
            f"share of {sharing.MEASURES[measure]}, %: before -> after, change [95 % interval]; area; scenes"
        )
        for group, g in groups.items():
            c = g["change"]
            typer.echo(
                f"  {group:<16}{100 * g['before']:6.1f} -> {100 * g['after']:5.1f}  "
                f"{100 * c['estimate']:+5.1f} "
                f"[{100 * c['low']:+.1f}, {100 * c['high']:+.1f}]  {100 * g['area']:5.1f}  {g['scenes']}"
            )
    _save(figure.shares(shares, sharing.MEASURES, heading), out / f"{stem}.png")
    typer.echo(said)


def _open(
    image: str,
    count: int,
    dataset: str | None,
    method: str,
    shots: int,
    seeds: tuple[int, ...],
    backbone: str | None,
    set_: list[str] | None,
    results: Path,
    cache: Path | None,
    data_root: Path | None,
    device: str,
    parts: bool = False,
) -> tuple[Subject, list[Picture]]:
    """The models and the images that a verb asks for; ``parts``: scenes whose parts are known."""
    from bench.errors import BenchError
    from bench.explain import picture as pictures
    from bench.names import canonical
    from bench.plan import settings
    from bench.plan.request import Request
    from bench.registry import builtin

    spec = _spec(backbone, image, *filter(None, [dataset]))
    single = Path(image).is_file() or ":" in image
    home: Dataset | None = None
    found: list[Picture] = []
    if single:
        picture, home = pictures.find(image, spec, data_root)
        found = [picture]
        if home is None and dataset is None:
            raise BenchError(
                f"{image}: name the dataset whose classes and fit are meant, as in --dataset mammals"
            )
    registry = builtin()
    known = {canonical(m.name): m for m in registry.methods.values()}
    name = dataset or (image.rpartition(":")[0] if single else image)
    request = Request(
        methods=(method,),
        datasets=(name,),
        shots=(shots,),
        seeds=seeds,
        backbones=(backbone or spec.name,),
        overrides=settings.parse_overrides(set_ or (), known),
        data_root=data_root,
        results=results,
    )
    # Threads that wait in a loop for each other starve whatever else runs here; read when torch's OpenMP
    # starts.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from bench.explain import share, subject
    from bench.run.session import Session

    session = Session(device, cache, lambda line: typer.echo(line, err=True))
    fitted = subject.subject(request, registry, session)
    if single and home is not None and home.name != fitted.dataset.name and found[0].label is not None:
        # Another dataset's label counts other classes.
        from dataclasses import replace

        found = [replace(found[0], label=None)]
    if parts:
        return fitted, share.scenes(fitted, count)
    if not single:
        test = fitted.dataset.test.paths
        found = [
            pictures.of_dataset(fitted.dataset, test[i], spec)
            for i in pictures.spread(len(test), min(count, len(test)))
        ]
    return fitted, found


def _spec(backbone: str | None, *texts: str) -> Any:
    """The backbone asked for; by default the embedded one for the embedded datasets, else CLIP's RN50."""
    from bench.cli.plan_view import embedded
    from bench.clip.backbone import resolve
    from bench.data import catalog

    if backbone:
        return resolve(backbone)
    sets = [text.rpartition(":")[0] or text for text in texts if not Path(text).is_file()]
    foreign = not sets or not all(embedded(catalog.describe(name)) for name in sets)
    return resolve("RN50" if foreign else "pocket-rn")


def _point(text: str) -> tuple[float, float]:
    from bench.errors import BenchError

    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError as error:
        raise BenchError(f"--at {text}: write x,y in pixels, as in --at 64,40") from error
    return x, y


def _label(found: Subject, picture: Picture, dense: Any, named: str | None) -> int:
    """The class to explain: the named one, else the true one, else what the fitted model predicts."""
    from bench.errors import BenchError
    from bench.names import canonical, nearest

    if named is not None:
        classes = {canonical(name.replace(" ", "_")): k for k, name in enumerate(found.dataset.classnames)}
        if canonical(named.replace(" ", "_")) not in classes:
            raise BenchError(
                f"{found.dataset.name} has no class '{named}'{nearest(named, found.dataset.classnames)}"
            )
        return classes[canonical(named.replace(" ", "_"))]
    if picture.label is not None:
        return picture.label
    return int(found.after[0].logits(dense)[0].argmax())


def _save(drawn: Any, path: Path) -> None:
    from bench.explain import figure

    figure.save(drawn, path)
    typer.echo(f"wrote {path}")
