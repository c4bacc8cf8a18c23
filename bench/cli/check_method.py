"""``bench check-method``: check that a method keeps the contract of methods."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli import complete, say
from bench.cli.codes import Code


def check_method(
    target: Annotated[
        str,
        typer.Argument(
            help="A method's name, as in safe, or a Python file with methods, as in my_probe.py.",
            autocompletion=complete.method,
        ),
    ],
) -> None:
    """Check that a method keeps the contract that all methods share.

    The rules are about shapes, purity, replicas, leaks, saved states and small tasks. A rule that is broken
    is printed with what went wrong.
    """
    from bench.contract import checks
    from bench.contract.lab import open_lab
    from bench.names import canonical

    registry, methods = checks.find(target)
    bad = 0
    with open_lab() as lab:
        for method in methods:
            say.echo(f"{method.name} ({registry.sources[canonical(method.name)]})")
            for result in checks.check(method, registry, lab):
                bad += bool(result.problem)
                line = f"{result.tower:<4} {result.rule}"
                if result.problem:
                    say.secho(f"  FAIL {line}: {result.problem}", fg="red")
                else:
                    say.echo(f"  ok   {line}")
    say.echo(f"breaks the contract in {bad} of the checks above" if bad else "keeps the contract")
    raise typer.Exit(Code.FAILED if bad else Code.GOOD)
