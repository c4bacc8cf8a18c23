"""``bench records``: list what is stale, drifted, orphaned, failed or damaged in a results folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import complete, say
from bench.cli.codes import Code, first
from bench.errors import BenchError
from bench.names import counted, few, short

if TYPE_CHECKING:
    from bench.report.survey import Finding, Survey

_LONG = 110  # characters of a reason


def records(
    results: Annotated[Path, typer.Option(help="Folder that `bench run` wrote to, or a packed one.")] = Path(
        "results"
    ),
    remove: Annotated[
        str | None,
        typer.Option(
            help="Delete what is 'stale', 'orphaned' or both ('stale,orphaned').",
            autocompletion=complete.removable,
        ),
    ] = None,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(
            help="Python file with a method, to compare its records with. Give the option again to name more."
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="List the path of everything found.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
) -> None:
    """List what is stale, drifted, orphaned, failed or damaged in a results folder.

    Stale: a newer record counts, or a run would make another one today. Drifted: the code of the method has
    changed since. Orphaned: what it belongs to is gone.
    """
    from bench.records import store
    from bench.report import survey

    kinds = _kinds(remove, survey.REMOVABLE)
    if not results.is_dir():
        raise BenchError(f"{results}: no such folder; name the one that `bench run --results` wrote to")
    if survey.STALE in kinds:
        store.require_present(results)
    found = _look(results, plugin)
    if not found.records and not found.findings:
        raise BenchError(f"{results}: no records there; name the folder that `bench run --results` wrote to")
    say.echo(f"{results}: {counted(found.records, 'record')}")
    _tell(found.findings, verbose)
    if found.unjudged:
        names = few(found.unjudged)
        say.echo(
            f"not compared with today's code, because these methods are not loaded: {names}; "
            "name their files with --plugin"
        )
    chosen = [one for one in found.findings if one.kind in kinds]
    if kinds and chosen:
        if not found.records and any(one.is_state for one in chosen):
            raise BenchError(
                f"--remove: {results} holds no record that can be read, so every fitted state looks "
                "orphaned: bring the records back, or delete the folder yourself"
            )
        _remove(chosen, yes, lambda: _look(results, plugin))
        found = _look(results, plugin)
    elif kinds:
        say.echo(f"nothing is {' or '.join(kinds)}; nothing was deleted")
    left = {one.kind for one in found.findings}
    raise typer.Exit(
        first(
            Code.FAILED if survey.FAILED in left else Code.GOOD,
            Code.CHANGED if left & {survey.STALE, survey.DRIFTED, survey.ORPHANED} else Code.GOOD,
            Code.INCOMPLETE if survey.DAMAGED in left else Code.GOOD,
        )
    )


def _kinds(text: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the kinds to remove. Raises BenchError for one that is never removed."""
    from bench.cli.options import names

    kinds = names(text)
    for kind in kinds:
        if kind not in known:
            raise BenchError(f"--remove {kind}: only {' and '.join(known)} records can be removed")
    if text is not None and not kinds:
        raise BenchError(f"--remove: name what to remove, {' or '.join(known)}")
    return kinds


def _look(results: Path, plugins: list[Path] | None) -> Survey:
    """Return what is in the folder, compared with the methods as they are now."""
    from bench.records.today import Today
    from bench.registry import with_plugins
    from bench.report.survey import survey
    from bench.sources import code_of

    registry = with_plugins(tuple(plugins or ()))
    methods = {
        name: Today(method.version, registry.digests.get(name, ""), code_of(method))
        for name, method in registry.methods.items()
    }
    return survey(results, methods, complete=not registry.broken)


def _tell(findings: list[Finding], verbose: bool) -> None:
    """Print a line for each kind and reason: how many, how large, why; with ``verbose`` the paths too."""
    from bench.report.survey import KINDS

    if not findings:
        say.echo("nothing is stale, drifted, orphaned, failed or damaged")
    for kind, meaning in KINDS.items():
        ours = [one for one in findings if one.kind == kind]
        if not ours:
            continue
        say.echo(f"{kind}: {_many(ours)}: {meaning}")
        for reason in dict.fromkeys(one.reason for one in ours):
            those = [one for one in ours if one.reason == reason]
            say.echo(f"  {_many(those)}: {short(reason, _LONG)}")
            for one in those if verbose else ():
                say.echo(f"    {one.what}")


def _many(findings: list[Finding]) -> str:
    size = sum(one.size for one in findings)
    packed = sum(not one.files for one in findings)
    parts = [f"{size / 1e3:.1f} kB"] if size else []
    parts += [f"{packed} packed"] if packed else []
    return f"{len(findings)} ({', '.join(parts) or 'empty'})"


def _remove(chosen: list[Finding], yes: bool, look: Callable[[], Survey]) -> None:
    """Delete what was chosen, after asking, as far as another look still finds it."""
    from bench.report.survey import YOUNG, remove

    if young := [one for one in chosen if one.is_young()]:
        say.echo(
            f"orphaned, but younger than {YOUNG} minutes: {_many(young)}; they stay, because a run may be "
            "about to write their records"
        )
    chosen = [one for one in chosen if not one.is_young()]
    files = [one for one in chosen if one.files]
    if not yes and files and not say.confirmed(f"Delete {_many(files)}?"):
        say.echo("nothing was deleted")
        return
    there = {(one.kind, one.what) for one in look().findings} if files else set()
    files = [one for one in files if (one.kind, one.what) in there]
    deleted = _many(files)  # with the size that the files have now
    left = remove([*files, *(one for one in chosen if not one.files)])
    say.echo(f"deleted {deleted}" if files else "nothing was deleted")
    if left:
        stay = counted(len(left), "packed record stays", "packed records stay")
        say.echo(f"{stay}; `bench pack` writes a folder without replaced ones")
