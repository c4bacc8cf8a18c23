"""``bench check-method``: whether a method keeps the contract."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli import say


def check_method(
    target: Annotated[str, typer.Argument(help="A method's name, or a Python file with methods.")],
) -> None:
    """Run the contract of methods on one: shapes, purity, replicas, leaks, saved states, small tasks."""
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
    say.echo("keeps the contract" if not bad else f"{bad} of its rules are broken")
    raise typer.Exit(1 if bad else 0)
