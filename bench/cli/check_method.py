"""``bench check-method``: whether a method keeps the contract."""

from __future__ import annotations

from typing import Annotated

import typer


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
            typer.echo(f"{method.name} ({registry.sources[canonical(method.name)]})")
            for found in checks.check(method, registry, lab):
                bad += bool(found.problem)
                mark = typer.style("FAIL", fg="red") if found.problem else "ok  "
                typer.echo(
                    f"  {mark} {found.tower:<4} {found.rule}{': ' if found.problem else ''}{found.problem}"
                )
    typer.echo("keeps the contract" if not bad else f"{bad} of its rules are broken")
    raise typer.Exit(1 if bad else 0)
