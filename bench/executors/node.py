"""The actor on a Ray cluster: a process of its own whose worker does one task after the other.

This is the side of the cluster; ``on_ray`` is the side of the driver. Driver and actor exchange files as
bytes, so they need no common file system for results.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.executors import scratch
from bench.executors.loop import Done
from bench.executors.worker import Setup, Worker
from bench.files import Stamp, stamp_if_there, write_bytes
from bench.lazy import torch
from bench.run import devices

Files = dict[str, bytes]  # path below the results folder -> content


@dataclass
class Sent:
    """The result of a task: how its cells ended, and the files that it wrote."""

    done: Done
    files: Files


def write(results: Path, files: Files) -> None:
    """Write files below ``results``.

    Records are written last, because states and predictions count as soon as their record is there.
    """
    for name in sorted(files, key=lambda name: name.endswith(".json")):
        write_bytes(results / name, files[name])


class Node:
    """A worker that does one task after the other and writes into a temporary folder of its own.

    ``where``: the driver's working directory, to which the relative paths of the request refer.
    """

    def __init__(self, setup: Setup, where: str) -> None:
        with suppress(FileNotFoundError):
            os.chdir(where)
        self.setup, self.folder = setup, scratch.path()
        self.worker: Worker | None = None
        self.plugins: dict[Path, Stamp | None] = {}  # their stamps when the worker was made

    def begin(self, first: str) -> int:
        """Make the worker, load the backbone of the fit with the key ``first``, and return the process id."""
        with suppress(Exception):  # the first task raises the error again, and reports it
            self._worker().load(first)
        return os.getpid()

    def do(self, keys: frozenset[str], known: Files, until: float | None, stop: float | None = None) -> Sent:
        """Do the cells with these fit keys, in a folder where the only records are ``known``.

        No cell starts after ``until``, and none runs after ``stop`` (time.time).
        """
        worker, folder = self._worker(), self.folder
        with scratch.own(folder):
            write(folder, known)
            done, since = Done(), time.monotonic() - time.time()
            ends = [None if end is None else end + since for end in (until, stop)]
            try:
                worker.do(keys, ends[0], done.add, ends[1])
            except BaseException:
                self._forget()  # else the next task would send what the desk still holds of this one
                raise
            files = {
                str(path.relative_to(folder)): path.read_bytes()
                for part in ("runs", "states")
                for path in sorted((folder / part).rglob("*"))
                if path.is_file()
            }
        return Sent(done, {name: content for name, content in files.items() if known.get(name) != content})

    def _worker(self) -> Worker:
        """Return the worker, which computes with one thread because an actor has one CPU.

        If a plugin was edited, the worker is made again with a new plan. That plan has other keys, so the
        worker refuses the cells that the driver asks for, and no number of the edited plugin gets an old key.
        """
        plugins = {
            path: stamp_if_there(path)
            for file in self.setup.plugins
            for path in (file, *sorted(file.parent.glob("*.py")))
        }
        if self.worker is None or plugins != self.plugins:
            # NumPy's libraries read OMP_NUM_THREADS, which Ray sets to an actor's CPUs.
            torch.set_num_threads(1)
            scratch.clear()
            self._forget()
            setup = self.setup
            shared = setup.card is not None and devices.card(setup.device) == setup.card
            self.worker = Worker(setup, setup.device, self.folder, sharers=1 + shared)
            self.plugins = plugins
        return self.worker

    def _forget(self) -> None:
        """Drop the worker, and release its feature store."""
        worker, self.worker = self.worker, None
        if worker:
            worker.desk.session.close()
