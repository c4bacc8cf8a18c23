"""Refuse options of ``bench run`` before any work: those that name nothing, or that the run would not use."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.options import names, writable_folder
from bench.errors import BenchError
from bench.names import KEEP_STATES, canonical

if TYPE_CHECKING:
    from bench.plan.request import Request
    from bench.registry import Registry

EXECUTORS = ("local", "ray")


def check(
    *,
    lists: Mapping[str, str | None],
    executor: str,
    ray_address: str | None,
    jobs: int | None,
    device: str,
    keep_states: str,
    time_budget: float | None,
    why: bool,
    dry_run: bool,
) -> None:
    """Raise BenchError for a value that no run can have, or for an option that this run would not use.

    ``lists``: the values of comma-separated options, by flag. torch is loaded only if a GPU is named.
    """
    from bench.run import devices

    for flag, text in lists.items():
        if text is not None and not names(text):
            raise BenchError(f"{flag} '{text}' names nothing: write names with commas, or leave {flag} out")
    if executor not in EXECUTORS:
        raise BenchError(f"--executor {executor}: choose {' or '.join(EXECUTORS)}")
    if ray_address is not None and executor != "ray":
        raise BenchError(f"--ray-address {ray_address} needs --executor ray")
    if jobs is not None and executor == "ray":
        raise BenchError(
            f"--jobs {jobs} counts processes of this machine; with --executor ray the cluster's size decides"
        )
    if keep_states not in KEEP_STATES:
        raise BenchError(f"--keep-states {keep_states}: choose {', '.join(KEEP_STATES[:-1])} or none")
    if time_budget is not None and not 0 <= time_budget < math.inf:
        raise BenchError(f"--time-budget {time_budget}: write minutes from 0 on, as in --time-budget 30")
    if why and not dry_run:
        raise BenchError("--why explains a plan: add --dry-run, which prints it and runs nothing")
    devices.check(device)


def folds(count: int | None, shots: str | None, seeds: str | None, targets: bool) -> None:
    """Raise BenchError if ``--folds`` has a wrong value or stands beside an option that says otherwise.

    ``--shots all`` is what folds mean, and may stand there; without ``--folds`` it means nothing.
    """
    everything = shots is not None and shots.strip() == "all"
    if count is None:
        if everything:
            raise BenchError(
                "--shots all leaves no image to test: add --folds 5, and each fifth is tested by a fit on "
                "the others"
            )
        return
    if count < 2:
        raise BenchError(f"--folds {count}: write a number from 2 on, as in --folds 5")
    if shots is not None and not everything:
        raise BenchError(
            f"--shots {shots}: with --folds a fit gets all images of the other folds: write --shots all, or "
            "leave --shots out"
        )
    if seeds is not None:
        raise BenchError(f"--seeds {seeds}: with --folds the fold takes the seed's place: leave --seeds out")
    if targets:
        raise BenchError(
            "--targets: folds are tested on their own images alone: leave --targets or --folds out"
        )


def places(results: Path, cache: Path | None, executor: str, reads: bool) -> None:
    """Raise BenchError if the results folder or the feature store cannot be written; leave nothing behind.

    ``reads``: a folder that exists need not be writable, as for a dry run. With Ray, the store lies on the
    workers' machines, so it is not checked here.
    """
    from bench.features.store import default_root

    writable_folder(results, "--results", reads=reads)
    if executor == "local":
        writable_folder(cache or default_root(), "--cache", reads=reads)


def one_tower(backbones: Sequence[str], executor: str) -> None:
    """Raise BenchError if ``--precision auto``, which measures one tower here, has no single answer."""
    mend = "name a precision: fp32, fp16 or bf16"
    if len(set(backbones)) > 1:
        raise BenchError(f"--precision auto chooses for one backbone, not for {', '.join(backbones)}: {mend}")
    if executor == "ray":
        raise BenchError(f"--precision auto measures this machine, not Ray's workers: {mend}")


def heeded(request: Request, registry: Registry, set_: Iterable[str], sweep: Iterable[str]) -> None:
    """Raise BenchError for ``--set`` or ``--sweep`` of a method that the run never fits.

    ``set_`` and ``sweep``: the options as the user wrote them. ``--set`` may also name a method that a method
    or a prompt set of the run builds on, because that is fitted too. A sweep must name a requested method.
    """
    asked = dict.fromkeys(registry.get(name).name for name in request.methods)
    read = _with_dependencies(asked, request, registry)
    for flag, items, known in (("--set", set_, read), ("--sweep", sweep, list(asked))):
        for text in items:
            owner = text.partition(".")[0]
            if canonical(owner) not in map(canonical, known):
                raise BenchError(
                    f"{flag} {text}: {canonical(owner)} is not in this run, which has {', '.join(known)}; "
                    f"add it to --methods, or leave {flag} out"
                )


def plugins(request: Request, registry: Registry, files: Iterable[Path]) -> None:
    """Raise BenchError for a plugin file none of whose methods the run uses."""
    asked = [registry.get(name).name for name in request.methods]
    read = _with_dependencies(asked, request, registry)
    for file in files:
        own = [m.name for key, m in registry.methods.items() if registry.sources[key] == str(file)]
        if not {*own} & {*read}:
            raise BenchError(
                f"--plugin {file}: the run has none of its methods ({', '.join(own)}): "
                f"name them, as in --methods zero-shot,{own[0]}"
            )


def _with_dependencies(asked: Iterable[str], request: Request, registry: Registry) -> list[str]:
    """Return the names of the methods that are fitted when these are requested."""
    from bench.prompts import TUNERS

    found: dict[str, None] = {}
    waiting = list(asked)
    while waiting:
        method = registry.get(waiting.pop(0))
        if method.name not in found:
            found[method.name] = None
            prompts = (request.prompts if method.uses_prompts else ()) or method.prompts
            waiting += [*method.after, *(TUNERS[p] for p in map(canonical, prompts) if p in TUNERS)]
    return list(found)
