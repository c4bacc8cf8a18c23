"""Run ``bench run`` from Python (``bench.measure``).

Keywords become the flags of the same name, and ``bench run`` itself parses and follows them: there is no
second way to measure.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Never

import typer

from bench import process
from bench.cli.codes import Code
from bench.cli.usage import number_wanted
from bench.errors import BenchError
from bench.names import nearest

if TYPE_CHECKING:
    import pandas as pd

    from bench.plan.cells import Plan

_NUMBERS = ("shots", "seeds")
# Options that end the process or measure nothing.
_COMMAND_ONLY = ("time_budget", "dry_run", "why", "folds", "help")


def measure(
    *positional: Never,
    methods: str | Sequence[str] | None = None,
    datasets: str | Path | Sequence[str | Path] | None = None,
    shots: int | Sequence[int] | None = None,
    seeds: int | Sequence[int] | None = None,
    results: str | Path = Path("results"),
    **more: Any,
) -> pd.DataFrame:
    """Run the cells that have no record yet, as ``bench run`` does, and return the records of all of them.

    A keyword is a flag of ``bench run`` without its dashes, as in ``data_root="DATA"`` or ``join=False``.
    What is left out has the command's default. Lists are written as lists. ``set`` and ``sweep`` also take
    a mapping, as in ``set={"safe.steps": 50}``. The plan and the progress are printed as by the command.

    The frame is that of ``load_results``, with the cells of this call alone. A failed cell is a row with
    ``status = failed``. ``attrs["blocked"]`` holds a line for each cell that cannot run, with the reason.
    What a run changes for its whole process, such as torch's modes, is put back.

    Raises BenchError where the command would end with 2, and for an unknown keyword.
    """
    if positional:
        raise BenchError("measure takes keywords only, as in measure(methods='zero-shot', datasets='digits')")
    asked = {"methods": methods, "datasets": datasets, "shots": shots, "seeds": seeds, "results": results}
    code, plan = _run({**asked, **more})
    blocked = [f"{b.method} on {b.dataset}: {b.reason}" for b in plan.blocked]
    if code == Code.REFUSED:
        raise BenchError("; ".join(["nothing can run", *blocked[:3]]))
    if code == Code.INTERRUPTED:
        raise KeyboardInterrupt
    return _asked(results, plan, blocked)


def _run(options: Mapping[str, Any]) -> tuple[int, Plan]:
    """Follow ``bench run`` with these options; return its exit code and its plan."""
    from bench.cli.app import app
    from bench.cli.run import Ended

    command: Any = typer.main.get_command(app)
    run = command.commands["run"]
    words = _words(run.params, options)
    with _process():
        try:
            with run.make_context("run", words) as context:
                run.invoke(context)
        except typer.BadParameter as error:
            raise BenchError(_unfit(error, options)) from error
        except Ended as end:
            return end.exit_code, end.plan
    raise AssertionError("bench run ends with Ended")


def _words(parameters: Iterable[Any], options: Mapping[str, Any]) -> list[str]:
    """Return the options as words of a command line. Raises BenchError for one that the command lacks."""
    flags = {flag: p for p in parameters for flag in p.opts if flag.startswith("--")}
    known = {flag[2:].replace("-", "_"): (flag, p) for flag, p in flags.items()}
    known = {name: both for name, both in known.items() if name not in _COMMAND_ONLY}
    words: list[str] = []
    for name, value in options.items():
        if name in _COMMAND_ONLY:
            raise BenchError(f"measure does not take '{name}': use the command, bench run")
        if name not in known:
            raise BenchError(
                f"measure does not know '{name}'{nearest(name, known)}; it takes {', '.join(known)}"
            )
        flag, parameter = known[name]
        if value is None:
            continue
        _check(name, value)
        if parameter.is_flag:
            if not isinstance(value, bool):
                raise BenchError(f"{name}={value!r}: write True or False")
            words += [flag] if value else parameter.secondary_opts[:1]
        elif parameter.multiple:
            words += [f"{flag}={text}" for text in _texts(value)]
        else:
            words.append(f"{flag}={','.join(_texts(value))}")
    return words


def _unfit(error: typer.BadParameter, options: Mapping[str, Any]) -> str:
    """Return the line for a value that is no number, though its option takes one; else Typer's own."""
    name = str(getattr(error.param, "name", ""))
    kind = number_wanted(error)
    return f"{name}={options[name]!r}: {kind}" if kind and name in options else error.format_message()


def _check(name: str, value: Any) -> None:
    """Raise BenchError for a value that the command's own messages would not name as it was written."""
    if name in _NUMBERS:
        for item in [value] if isinstance(value, str) or not isinstance(value, Iterable) else value:
            if not all(part.strip().isdigit() for part in str(item).split(",")):
                raise BenchError(f"{name}={value!r}: write a whole number or a list, as in {name}=[1, 16]")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if inner is None:
                raise BenchError(
                    f"{name}: '{key}' is None: leave it out for its default, or write 'none' to switch it off"
                )


def _texts(value: Any) -> list[str]:
    """Return the texts that a user would write for a value: ``name=value`` for each entry of a mapping."""
    if isinstance(value, str | Path):
        return [str(value)]
    if isinstance(value, Mapping):
        return [f"{name}={','.join(_texts(inner))}" for name, inner in value.items()]
    if isinstance(value, Iterable):
        return [text for item in value for text in _texts(item)]
    return [str(value)]


@contextmanager
def _process() -> Iterator[None]:
    """Leave the process as it was: torch's modes and threads, generators, signal handlers.

    A worker process begins by importing the main module, which would run the user's script again. Workers
    therefore get an empty one: methods come from files, never from the script.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch reads it when it is imported
    import torch  # noqa: F401  # what is not imported yet could not be put back

    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        with process.kept(functions=False):
            yield
    finally:
        sys.modules["__main__"] = script


def _asked(results: str | Path, plan: Plan, blocked: list[str]) -> pd.DataFrame:
    """Return the rows that the user asked for, without fits made only because others read them."""
    from bench.report.frame import load_results

    fits = [fit for fit in plan.fits if fit.asked]
    evaluations = {evaluation.key for fit in fits for evaluation in fit.evaluations}
    failed = {fit.key for fit in fits}
    frame = load_results(results)
    own = frame[frame["key"].isin(evaluations) | (frame["fit"].isin(failed) & (frame["status"] != "ok"))]
    own = own.reset_index(drop=True)
    own.attrs = {**frame.attrs, "blocked": blocked}
    return own
