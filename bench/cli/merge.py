"""``bench merge``: join several results folders into one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import say
from bench.names import counted

if TYPE_CHECKING:
    from bench.records.merge import Merge

_MOST = 10  # conflicts that are listed without --verbose


def merge(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders that `bench run` wrote to, or packed ones. None is changed.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder to write to. What it holds already stays, but for failed and damaged records."
        ),
    ],
    prefer: Annotated[
        Path | None,
        typer.Option(help="The folder whose results count where results differ."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List every conflict.")] = False,
) -> None:
    """Join the records, fitted states and split files of results folders.

    Where two folders hold different results for the same cell, they are listed and nothing is written until
    --prefer names the folder that counts.
    """
    from bench.cli.codes import Code, first
    from bench.cli.options import writable_folder
    from bench.records.merge import plan

    writable_folder(out, reads=dry_run)
    done = plan(folders, out, prefer)
    _tell(done, verbose)
    if done.conflicts:
        say.secho(f"bench: nothing was written; {_mend(done, prefer)}", err=True, fg="red")
    elif dry_run:
        say.echo(f"nothing was written (--dry-run); {counted(done.records, 'record')} would be")
    else:
        done.write()
        say.echo(f"merged into {out}: {counted(done.records, 'record')} written")
    raise typer.Exit(
        first(
            Code.FAILED if done.conflicts else Code.GOOD,
            Code.INCOMPLETE if done.bad else Code.GOOD,
        )
    )


def _tell(done: Merge, verbose: bool) -> None:
    """Print what is equal, new, in conflict and left out."""
    from bench.records.whole import said

    remade = f" ({done.remade} of them measured more than once, with the same result)" if done.remade else ""
    say.echo(f"equal: {done.equal}{remade}")
    by_folder = ", ".join(f"{count} from {folder}" for folder, count in done.new.items() if count)
    say.echo(f"new: {done.new.total()}{f' ({by_folder})' if by_folder else ''}")
    if done.kept:
        say.echo(f"only in {done.out}: {done.kept}")
    if done.richer:
        say.echo(f"equal, and replaced in {done.out} because the other keeps more: {done.richer}")
    if done.mended:
        say.echo(f"failed in one folder and done in another, where the result counts: {done.mended}")
    if done.decided:
        say.echo(f"in conflict, decided by --prefer: {done.decided}")
    if done.dropped:
        say.echo(f"left out, because they build on a fit that was not preferred: {done.dropped}")
    say.echo(f"in conflict: {len(done.conflicts)}")
    shown = done.conflicts if verbose else done.conflicts[:_MOST]
    for conflict in shown:
        say.echo(f"  {conflict.one}\n  {conflict.other}\n    differ in {conflict.what}")
    if len(shown) < len(done.conflicts):
        say.echo(f"  and {len(done.conflicts) - len(shown)} more (--verbose)")
    if done.bad:
        say.secho(f"bench: left out, because damaged: {said(done.bad)}", err=True, fg="yellow")


def _mend(done: Merge, prefer: Path | None) -> str:
    """Return how the conflicts can be decided."""
    if any(conflict.one.is_relative_to(done.out) for conflict in done.conflicts):
        folder = prefer if prefer is not None and prefer.resolve() != done.out.resolve() else "FOLDER"
        command = shlex.join(["bench", "merge", *map(str, (done.out, *done.new))])
        return (
            f"`{done.out}` already holds another result, and --prefer never replaces what --out holds. Write "
            f"to a new folder: `{command} --out NEW --prefer {shlex.quote(str(folder))}`"
        )
    if prefer is None:
        return "name the folder whose results count with --prefer FOLDER"
    return f"`{prefer}` has no result of these cells, so --prefer {prefer} does not decide: prefer another"
