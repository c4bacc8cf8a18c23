"""What the start of a run costs, part by part: ``python -m tests.benchmarks.start [--device cpu|cuda]``.

A process of its own goes through what ``bench run`` does for its first cell, with nothing stored before; each
part waits for the device. ``--out FILE`` writes the parts as JSON, in seconds of wall and processor time.
"""

from __future__ import annotations

import time

BEGAN = time.time()  # before anything else is imported

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

_SPAWNED = "BENCH_START_SPAWNED"  # the wall time at which the measured process was begun
METHOD, SETTINGS = "safe", ("safe.steps=40", "safe.check_every=20")  # long enough for recorded steps on CUDA
Part = dict[str, Any]  # part, seconds, cpu_seconds


def parts(device: str, backbone: str, dataset: str) -> Iterator[Part]:
    """The parts of a start in their order, as they are measured, in a folder that is gone afterwards."""
    yield {"part": "interpreter", "seconds": BEGAN - float(os.environ[_SPAWNED])}
    with _timed("imports of the command") as part:
        import bench.cli.app  # noqa: F401
        from bench.plan import planner, settings
        from bench.plan.request import Request
        from bench.plan.todo import remaining
        from bench.registry import builtin
    yield part
    with tempfile.TemporaryDirectory() as folder:
        with _timed("plan") as part:
            registry = builtin()
            request = Request(
                methods=(METHOD,),
                datasets=(dataset,),
                shots=(1,),
                seeds=(1, 2),
                backbones=(backbone,),
                prompts=("hand",),
                overrides=settings.parse_overrides(SETTINGS, registry.methods),
                results=Path(folder, "results"),
                cache=Path(folder, "cache"),
            )
            todo, _ = remaining(planner.make(request, registry))
        yield part
        yield from _work(device, todo, registry, Path(folder))


def _work(device: str, todo: list[Any], registry: Any, folder: Path) -> Iterator[Part]:
    """From the import of torch on."""
    with _timed("imports of torch") as part:
        import torch
    yield part
    with _timed("imports of the engine") as part:
        from bench.clip import deferred
        from bench.run.desk import Desk
        from bench.run.session import Session
    yield part
    with _timed("imports of open_clip") as part:
        deferred.open_clip()
    yield part
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    with _timed("first kernel", wait) as part:
        session = Session(device, folder / "cache", lambda line: None, workers=0)
        a = torch.ones(64, 64, device=device)
        torch.mm(a, a).sum().item()
    yield part
    first = todo[0].fit
    with _timed("model", wait) as part:
        session.backbone(first.backbone)
    yield part
    with _timed("first texts", wait) as part, session.threads(first.backbone):
        session.encoded_text(first.backbone, first.prompts, first.dataset.classnames)
    yield part
    desk = Desk(session, registry, folder / "results")
    with _timed("encoding", wait) as part:
        desk.encoder.begin(todo)
        ready = desk.encoder.encode(todo)
        part["images"] = ready.encodes
    yield part
    recording = _clocked(desk.recorder, "fit", "evaluation")
    desk.states.begin(todo)
    for name, t in zip(("first cell", "second cell"), todo, strict=True):
        with _timed(name, wait) as part:
            desk.do(t)
        yield part
    assert not desk.outcome.failures, desk.outcome.failures
    yield {"part": "of the two cells, recording", "seconds": sum(recording)}
    session.close()


@contextmanager
def _timed(name: str, wait: Callable[[], object] = lambda: None) -> Iterator[Part]:
    part: Part = {"part": name}
    began, cpu = time.perf_counter(), time.process_time()
    yield part
    wait()
    part |= {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}


def _clocked(of: object, *names: str) -> list[float]:
    """The seconds of every call of these methods of an object from now on."""
    seconds: list[float] = []

    def clocked(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = work(*args, **kwargs)
            seconds.append(time.perf_counter() - began)
            return result

        return call

    for name in names:
        setattr(of, name, clocked(getattr(of, name)))
    return seconds


def main() -> None:
    """Begin the process that is measured, or be it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbone", default="pocket-rn")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if _SPAWNED not in os.environ:
        environment = {**os.environ, _SPAWNED: str(time.time())}
        sys.exit(
            subprocess.run([sys.executable, "-m", __spec__.name, *sys.argv[1:]], env=environment).returncode
        )
    measured = []
    for part in parts(given.device, given.backbone, given.dataset):
        measured.append(part)
        images = f", {part['images']} images" if "images" in part else ""
        print(f"{part['seconds']:8.2f} s  {part['part']}{images}", flush=True)
    whole = sum(part["seconds"] for part in measured if "," not in part["part"])
    print(f"{whole:8.2f} s  in all")
    if given.out:
        given.out.write_text(
            json.dumps({"device": given.device, "parts": measured, "seconds": whole}, indent=1)
        )


if __name__ == "__main__":
    main()
