"""Decodes and renders images in worker processes without torch, or in threads where images are few.

Blocks come back in order through a bounded queue, so that memory stays flat whatever the size of the dataset.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from bench.data.views import render_views
from bench.errors import BenchError, UnreadableImage

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from bench.data.dataset import ImageSource

_FEW = 2000  # rendered views below which starting processes costs more than it saves
_THREADS = 8  # beyond, they wait for the interpreter's lock


@dataclass(frozen=True)
class InputFormat:
    """How pixels reach the tower: input side, filter, and how they come to size (see ``views.render``)."""

    size: int
    mode: str = "bicubic"
    resize: str = "shortest"


@dataclass(frozen=True)
class Block:
    """A few images to decode once each and render in all of ``views``."""

    paths: tuple[str, ...]
    views: tuple[str, ...]


def render_block(source: ImageSource, form: InputFormat, block: Block) -> np.ndarray:
    """The pixels of a block, uint8 (n, V, size, size, 3). Raises UnreadableImage if one cannot be read."""
    pixels = np.empty((len(block.paths), len(block.views), form.size, form.size, 3), np.uint8)
    for row, path in zip(pixels, block.paths, strict=True):
        try:
            image = source.open(path)
            image.load()
        except BenchError as error:
            raise UnreadableImage(str(error), path) from error
        # Damaged files make Pillow and the libraries below it raise nearly every exception there is.
        except Exception as error:
            raise UnreadableImage(
                f"cannot read the image {path}: {str(error) or type(error).__name__}; "
                "replace the file and run again",
                path,
            ) from error
        try:
            row[:] = render_views(image, block.views, path, form.size, form.mode, form.resize)
        except MemoryError as error:
            raise UnreadableImage(
                f"not enough memory to resize {path}: make the image smaller", path
            ) from error
    return pixels


def unreadable(source: ImageSource, paths: Iterable[str]) -> dict[str, UnreadableImage]:
    """The images that cannot be read, with their errors, by path; all of them are opened."""

    def opened(path: str) -> UnreadableImage | None:
        try:
            render_block(source, InputFormat(1), Block((path,), ("eval",)))
        except UnreadableImage as error:
            return error
        return None

    chosen = list(paths)
    with ThreadPoolExecutor(_THREADS) as pool:
        return {path: error for path, error in zip(chosen, pool.map(opened, chosen), strict=True) if error}


def default_workers(encodes: int) -> tuple[int, int]:
    """Worker processes, and threads where there are none, for that many rendered views.

    Few views start no process: Pillow decodes and resizes outside the interpreter's lock, so threads share
    the cores too.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return (0, min(_THREADS, cores)) if encodes < _FEW else (min(16, max(1, cores - 1)), 1)


def rendered(
    source: ImageSource,
    form: InputFormat,
    blocks: Iterable[Block],
    workers: int,
    ahead: int = 2,
    threads: int = 1,
) -> Generator[np.ndarray]:
    """The pixels of each block in order. ``workers = 0`` decodes in ``threads`` threads of this process.

    At most ``2 * (workers or threads - 1) + ahead`` blocks are in memory. Close the iterator to stop early
    (``contextlib.closing``). Raises BenchError when an image cannot be read or a worker dies.
    """
    pool, work = _pool(source, form, workers, threads)
    most = 2 * (workers or threads - 1) + ahead
    waiting: deque[Future[np.ndarray]] = deque()
    try:
        for block in blocks:
            with _no_main_script(source) if workers else nullcontext():
                waiting.append(pool.submit(work, block))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise BenchError(
            "a process that decodes images died (is memory short?): run again, what is encoded is kept"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(
    source: ImageSource, form: InputFormat, workers: int, threads: int
) -> tuple[Executor, Callable[[Block], np.ndarray]]:
    if workers:
        # Spawned, not forked: the parent may hold threads and a CUDA context, which do not survive a fork.
        spawn = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(workers, spawn, initializer=_start, initargs=(source, form)), _work
    return ThreadPoolExecutor(threads), lambda block: render_block(source, form, block)


@contextmanager
def _no_main_script(source: ImageSource) -> Iterator[None]:
    """Keeps processes that start inside from running the user's script again.

    Spawning imports the parent's main module, for objects that are defined there. Decoding needs none, and a
    script usually imports torch, which would cost every worker seconds and hundreds of megabytes.
    """
    script = sys.modules["__main__"]
    if type(source).__module__ == "__main__":
        yield
        return
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


# Set once in each worker process, never in the parent.
_worker: dict[str, tuple[ImageSource, InputFormat]] = {}


def _start(source: ImageSource, form: InputFormat) -> None:
    _worker["job"] = (source, form)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)  # a killed run leaves no workers behind


def _work(block: Block) -> np.ndarray:
    return render_block(*_worker["job"], block)
