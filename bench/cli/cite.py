"""``bench cite``: print BibTeX entries of methods, datasets and this benchmark.

The entries stand in files ``papers.bib``: in ``methods/``, in ``datasets/``, and beside the file of a plugin.
The field ``keywords`` of an entry names the methods or datasets that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import complete, say
from bench.cli.bibtex import FILE, Entry, entries, of
from bench.cli.options import Folders, examples
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.interface import Method
    from bench.registry import Registry

ALWAYS = "bench"  # the keyword of what every use of the program cites
EXAMPLES = examples(
    "bench cite safe,tip-adapter",
    "bench cite coop --datasets dtd,imagenet",
    "bench cite --results results/pocket",
    "bench cite my-probe --plugin my_probe.py",
)


def papers_of(method: Method) -> list[Entry]:
    """Return the entries of a method, from the ``papers.bib`` beside its file."""
    import inspect

    return of(method.name, entries(Path(inspect.getfile(type(method))).resolve().parent / FILE))


def is_ours(method: Method) -> bool:
    """Return whether a method's docstring says ``Source: ours``, so that it has no paper."""
    from bench.cli.method_docs import described

    return described(type(method)).parts.get("Source", "").lower().startswith("ours")


def cite(
    methods: Annotated[
        list[str] | None,
        typer.Argument(
            help="Methods to cite, as in safe,tip-adapter. Without METHODS and --datasets: the methods and "
            "datasets of the records in --results.",
            autocompletion=complete.methods,
        ),
    ] = None,
    datasets: Annotated[
        str | None,
        typer.Option(help="Datasets to cite, as in dtd,imagenet.", autocompletion=complete.datasets),
    ] = None,
    results: Folders = None,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(
            help="A Python file with a method, as in my_probe.py; a papers.bib beside it is read. "
            "Give the option again for several files."
        ),
    ] = None,
) -> None:
    """Print BibTeX entries of methods and datasets, of CLIP, OpenCLIP and this benchmark, each once."""
    from bench.cli.options import complete as ended
    from bench.cli.options import datasets as dataset_names
    from bench.cli.options import names, records
    from bench.imported.records import PROMPTS
    from bench.names import few
    from bench.registry import with_plugins

    registry = with_plugins(tuple(plugin or ()))
    asked = [name for text in methods or () for name in names(text)]
    if methods and not asked:
        raise BenchError("no method is named: write one, as in `bench cite safe`, or leave the argument out")
    if not asked and not datasets:
        frame = records(results)
        measured_on = {*frame["dataset"], *frame["target"]}
        elsewhere = set(frame[frame["prompts"] == PROMPTS]["method"])
        whole = _print(registry, sorted(set(frame["method"]) - elsewhere), sorted(measured_on), strict=False)
        if elsewhere:
            say.echo(f"bench: imported, so add their papers yourself: {few(sorted(elsewhere))}", err=True)
        ended(frame)
    elif results:
        raise BenchError("--results: methods or datasets are named already; leave one of the two out")
    else:
        whole = _print(registry, asked, dataset_names(datasets), strict=True)
    if not whole:
        from bench.cli.codes import Code

        raise typer.Exit(Code.INCOMPLETE)


def _print(registry: Registry, methods: Iterable[str], datasets: Iterable[str], strict: bool) -> bool:
    """Print the entries and return whether every method has one.

    With ``strict`` an unknown name raises BenchError. Without it, for names out of records, an unknown method
    is a line on standard error and an unknown dataset is passed over: it is somebody's own.
    """
    from bench.paths import methods_dir

    found: dict[str, str] = {}
    missing: list[str] = []
    for entry in [
        *_of_methods(registry, methods, strict, missing),
        *_of_datasets(datasets, strict),
        *of(ALWAYS, entries(methods_dir() / FILE)),
    ]:
        found.setdefault(entry.key, entry.text)
    say.echo("\n\n".join(found.values()))
    for line in missing:
        say.secho(f"bench: {line}", err=True, fg="yellow")
    return not missing


def _of_methods(
    registry: Registry, names: Iterable[str], strict: bool, missing: list[str]
) -> Iterator[Entry]:
    """Yield the entries of methods, and add a line to ``missing`` for each that has none."""
    from bench.data import catalog
    from bench.names import canonical

    for name in names:
        if not strict and canonical(name) not in registry.methods:
            missing.append(f"{name}: no such method here; name its file with --plugin")
            continue
        if canonical(name) not in registry.methods and name in catalog.names():
            raise BenchError(f"{name} is a dataset: --datasets {name}")
        method = registry.get(name)
        papers = papers_of(method)
        if not papers and not is_ours(method):
            missing.append(
                f"{method.name}: no entry; add one with keywords = {{{method.name}}} to {FILE} beside its "
                "file, or write `Source: ours` into its docstring"
            )
        yield from papers


def _of_datasets(names: Iterable[str], strict: bool) -> Iterator[Entry]:
    """Yield the entries of datasets; with ``strict``, say which have no paper."""
    from bench.data import catalog
    from bench.paths import datasets_dir

    known = entries(datasets_dir() / FILE)
    for name in names:
        papers = of(name, known)
        if not papers and strict:
            spec = catalog.describe(name)
            papers = of(spec.name, known)
            if not papers:
                say.echo(f"bench: {spec.name}: no paper; {spec.licence or 'your own images'}", err=True)
        yield from papers
