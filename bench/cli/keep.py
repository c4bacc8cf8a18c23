"""``bench keep``: save the fitted method of one recorded cell as a classifier for new images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import complete, say
from bench.cli.explain_shared import Cache, DataRoot, Device, Set
from bench.cli.options import CellPrompts
from bench.names import PROTOCOLS, RECIPE, counted


def keep(
    method: Annotated[
        str, typer.Option(help="The method that was fitted, as in safe.", autocompletion=complete.method)
    ],
    dataset: Annotated[
        str,
        typer.Option(
            help="The dataset that it learned: a name, a folder of images or a TOML file.",
            autocompletion=complete.dataset,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write the classifier to, as in shop.clf.")],
    shots: Annotated[int, typer.Option(help="Training images per class of the cell.", min=1)] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the cell.", min=1)] = 1,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="CLIP model of the cell (default: pocket-rn for embedded datasets, else RN50).",
            autocompletion=complete.backbone,
        ),
    ] = None,
    prompts: CellPrompts = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Training budget of the cell (default: quick for the pocket models, else paper).",
            autocompletion=complete.presets,
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help=f"What chose its hyper-parameters: {', '.join(PROTOCOLS[:-1])} or {PROTOCOLS[-1]}.",
            autocompletion=complete.protocols,
        ),
    ] = RECIPE,
    set_: Set = None,
    results: Annotated[Path, typer.Option(help="Folder that `bench run` wrote.")] = Path("results"),
    cache: Cache = None,
    data_root: DataRoot = None,
    prompt_dir: Annotated[
        Path | None, typer.Option(help="Folder of prompt files that the cell was run with.")
    ] = None,
    device: Device = "auto",
    plugin: Annotated[
        list[Path] | None,
        typer.Option(help="Python file with the method. Give the option again to load more."),
    ] = None,
    allow_torchscript: Annotated[
        bool, typer.Option(help="Load weights that are a TorchScript archive, which runs code.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a classifier of other data in --out.")
    ] = False,
) -> None:
    """Save the fitted method of a recorded cell as a classifier, which `bench predict` uses on new images.

    The classifier is a folder of two files. It needs neither the dataset nor the records, only the weights
    of its CLIP. Fitted tensors that the run did not keep are fitted again.
    """
    from bench.classifier import cell, file
    from bench.cli import asked
    from bench.cli.explain_shared import spec_of
    from bench.names import canonical
    from bench.plan import settings
    from bench.plan.request import Request
    from bench.registry import with_plugins
    from bench.run import devices
    from bench.run.session import Session

    devices.check(device)
    asked.places(results, cache, "local", reads=True)
    if out.exists() and not out.is_dir():
        file.require_place(out, "", force)
    registry = with_plugins(tuple(plugin or ()))
    known = {canonical(m.name): m for m in registry.methods.values()}
    request = Request(
        methods=(method,),
        datasets=(dataset,),
        shots=(shots,),
        seeds=(seed,),
        backbones=(backbone or spec_of(None, dataset).name,),
        prompts=(prompts,) if prompts else (),
        preset=preset,
        protocol=protocol,
        overrides=settings.parse_overrides(set_ or [], known),
        data_root=data_root,
        prompt_dir=prompt_dir,
        results=results,
        cache=cache,
        allow_torchscript=allow_torchscript,
    )
    asked.heeded(request, registry, set_ or (), ())
    session = Session(device, cache, lambda line: say.echo(line, err=True))
    try:
        made = cell.of_cell(request, registry, session, lambda digest: file.require_place(out, digest, force))
    finally:
        session.close()
    file.save(made, out, force)
    about = made.about
    say.echo(f"wrote {out}: {about.title} for {counted(len(about.classnames), 'class', 'classes')}")
