"""The command line: one file per verb, thin; torch is imported only inside a verb."""

from __future__ import annotations

import errno

# A place that the user named: no folder, not theirs, full. Other system errors are ours and show their place.
NOT_WRITABLE = {
    errno.ENOTDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EISDIR,
    errno.EEXIST,
}


def main() -> None:
    """Entry point of the command ``bench``: user errors are one line and exit code 2."""
    import sys

    import typer

    from bench.cli.app import app
    from bench.errors import BenchError

    try:
        app()
    except BenchError as error:
        typer.secho(f"bench: {error}", err=True, fg="red")
        sys.exit(2)
    except OSError as error:
        if error.errno not in NOT_WRITABLE or error.filename is None:
            raise
        place = f"{error.filename}: {(error.strerror or str(error)).lower()}"
        typer.secho(
            f"bench: {place}; name another place (--results, --cache, --out), or make room there",
            err=True,
            fg="red",
        )
        sys.exit(2)
