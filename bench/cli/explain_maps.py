"""``bench explain correspond`` and ``maps``: draw what the model looks at as maps over images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import complete, say
from bench.cli.explain_shared import (
    BackboneName,
    Cache,
    ClassName,
    DataRoot,
    Device,
    MethodName,
    OfDataset,
    Png,
    Results,
    Seed,
    Set,
    Shots,
    caption_of,
    label_of,
    name_of,
    opened,
    png,
    save,
    spec_of,
    true_class,
)
from bench.names import short

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from torch import Tensor

    from bench.explain.picture import Picture
    from bench.explain.subject import Model

_FITS = 14  # characters of a class's name above a panel; the row's caption has the full name


def correspond(
    first: Annotated[
        str,
        typer.Argument(
            help="First image: a file, DATASET:NUMBER (of the test list), as in mammals:3, or DATASET:PATH."
        ),
    ],
    second: Annotated[str, typer.Argument(help="Image to search, written in the same way.")],
    at: Annotated[
        str,
        typer.Option(help="Point in the first image: x,y in its own pixels from the top left, as in 64,40."),
    ],
    backbone: BackboneName = None,
    every: Annotated[
        int | None,
        typer.Option(help="For a ViT: show every N-th block (default: four in all).", min=1),
    ] = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    out: Png = None,
) -> None:
    """Show where the second image holds what the first shows at a point.

    The map is the cosine of dense features, stage by stage of the image tower (Eq. 1).
    """
    from bench.run import devices

    devices.check(device)
    path, asked = png(out, Path("correspond.png")), _point(at)
    spec = spec_of(backbone, first, second)
    from bench.clip.backbone import load
    from bench.explain import figure, picture, stages
    from bench.explain.subject import normalised

    (a, home_a), (b, home_b) = (picture.find(text, spec, data_root) for text in (first, second))
    point = a.seen_at(*asked)
    tower = load(spec, devices.pick(device))
    stages_a, stages_b = (stages.stages(tower, normalised(p.pixels[None], spec), every) for p in (a, b))
    drawn = {}
    for name, x_SSD in stages_a.items():
        where = stages.cell(spec.image_size, x_SSD.shape[1], *point)
        map_SS = stages.correspondence(x_SSD[0], stages_b[name][0], *where).float().cpu().numpy()
        drawn[name] = map_SS, where
        r, c = divmod(int(map_SS.argmax()), len(map_SS))
        say.echo(
            f"{name}: peak {map_SS.max():.3f} at row {r + 1}, column {c + 1} of {len(map_SS)} x {len(map_SS)}"
        )
    classes = true_class(a, home_a), true_class(b, home_b)
    save(figure.correspondence(a, b, point, drawn, classes), path)


def maps(
    image: Annotated[
        str,
        typer.Argument(
            help="An image file, DATASET:NUMBER (of the test list), as in mammals:3, DATASET:PATH, or a "
            "dataset, as in mammals.",
            metavar="IMG|DATASET",
            autocompletion=complete.dataset,
        ),
    ],
    images: Annotated[
        int, typer.Option(help="For a dataset: number of test images, spread over the classes.", min=1)
    ] = 6,
    dataset: OfDataset = None,
    method: MethodName = "safe",
    shots: Shots = 16,
    seed: Seed = 1,
    class_: ClassName = None,
    copies: Annotated[
        int, typer.Option(help="Number of noisy copies that the gradients are averaged over.", min=1)
    ] = 16,
    noise: Annotated[
        float,
        typer.Option(
            help="Standard deviation of the noise in the copies (--copies), as a share of the image's range.",
            min=0,
        ),
    ] = 0.1,
    backbone: BackboneName = None,
    set_: Set = None,
    results: Results = Path("results"),
    cache: Cache = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    out: Png = None,
) -> None:
    """Draw attention-pool maps and Smooth Grad-CAM++ heat maps, before and after a fit."""
    path = png(out, Path("maps.png"))
    subject, pictures = opened(
        image,
        images,
        method=method,
        shots=shots,
        seeds=(seed,),
        backbone=backbone,
        set_=set_,
        results=results,
        cache=cache,
        device=device,
        dataset=dataset,
        data_root=data_root,
        class_=class_,
    )
    from bench.explain import figure, gradcam
    from bench.explain.parts import attention_map
    from bench.explain.subject import dense, normalised

    rows: list[tuple[Picture, str, list[tuple[str, np.ndarray]], list[tuple[str, np.ndarray]]]] = []
    for p in pictures:
        clean = dense(subject.tower, p.pixels[None])
        k = label_of(subject, p, clean, class_)
        # Both models get the same noise, so that their maps differ by the fit alone.
        rough = gradcam.noisy(
            subject.tower, normalised(p.pixels[None], subject.tower.spec)[0], copies, noise
        ).float()
        grid = gradcam.grid_of(subject.tower)
        heats, pools = [], []
        for model, word in zip(subject.models, ("before", "after"), strict=True):
            share = float(model.logits(clean).softmax(-1)[0, k].detach())
            heat = gradcam.heat(_class_score(model, k), clean[0], rough, grid)
            cold = "" if float(heat.max()) > 0 else "\nno positive evidence"
            title = f"Grad-CAM++ {word}\np({short(name_of(subject.dataset, k), _FITS)}) = {share:.2f}{cold}"
            heats.append((title, heat.detach().cpu().numpy()))
            pools.append((f"attention {word}", attention_map(subject.tower, model, p)))
        rows.append((p, caption_of(subject, p, clean, k), pools, heats))
    save(figure.heat_maps(rows), path)


def _class_score(model: Model, k: int) -> Callable[[Tensor], Tensor]:
    """Return a function from dense tokens (B, T, D) to the logits (B,) of class ``k`` under a model."""
    return lambda x_BTD: model.logits(x_BTD)[:, k]


def _point(text: str) -> tuple[float, float]:
    from bench.errors import BenchError

    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError as error:
        raise BenchError(f"--at {text}: write x,y in pixels, as in --at 64,40") from error
    return x, y
