"""``bench new``: write the first files of something that a user adds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import complete, say
from bench.cli.options import examples
from bench.names import canonical

app = typer.Typer(help="Write the first files of a method of your own.", no_args_is_help=True)


@app.callback()
def new() -> None:
    """Write the first files of a method of your own."""


@app.command(
    epilog=examples(
        "bench new method my-probe",
        "bench new method my-cache --kind solved",
        "bench new method my-context --kind prompt --folder plugins",
    )
)
def method(
    name: Annotated[str, typer.Argument(help="The method's name, for example my-probe.")],
    kind: Annotated[
        str,
        typer.Option(
            help="solved (in closed form), trained (by gradients) or prompt (vectors learned in the text).",
            autocompletion=complete.kinds,
        ),
    ] = "trained",
    folder: Annotated[
        Path,
        typer.Option(help="Where to write; a checkout gets methods/NAME.py and tests/methods/test_NAME.py."),
    ] = Path("."),
) -> None:
    """Write a method that works as it is, and its test."""
    from bench.contract import starter

    file, test = starter.write(name, folder, kind)
    inside = file.parent != test.parent
    called = canonical(name)
    say.echo(f"wrote {file} and {test}; next:")
    page = "docs/adding-a-method.md" if inside else "the page 'Adding a method'"
    say.echo(f"  1. change {file}; {page} says what is there to use")
    say.echo(f"  2. check it:  bench check-method {called if inside else file}")
    plugin = "" if inside else f"--plugin {file} "
    say.echo(f"  3. run it:    bench run {plugin}--methods zero-shot,{called} --shots 16")
    say.echo("  4. document it in the class docstring: what it does, Source:, Deviates:, Settings:")
    if inside:
        say.echo(
            "  5. add its paper to methods/papers.bib, its formulas to docs/protocol, a line to CHANGELOG.md,"
        )
        say.echo("     and run  python -m tests.docs.methods_page  for its entry in docs/methods.md")
    else:
        say.echo(f"  5. put its paper into {file.parent / 'papers.bib'}; `bench cite` reads it there")
