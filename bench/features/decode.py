"""Decode and render images, in worker processes without torch, or in threads if there are few images.

Blocks come back in order through a bounded queue, so that memory does not grow with the size of the dataset.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.children import Child, Died, cores, portable, send_bytes
from bench.data.views import render_views
from bench.errors import BenchError, UnreadableImage

if TYPE_CHECKING:
    from bench.data.dataset import ImageSource

_WORTH_PROCESSES = 2000  # with fewer rendered views, starting processes costs more than it saves
_THREADS = 8  # the most threads beside a tower on the processor
_THREADS_BESIDE_GPU = 16  # with 8, each decoded 140 JPEG files a second (16 cores); more were not measured
_PROCESSES = 16  # the most processes beside a tower on the processor
_PROCESSES_BESIDE_GPU = 64  # each is an interpreter that holds two blocks of pixels
_PER_PROCESS = 250  # rendered views that are worth the start of one process


@dataclass(frozen=True)
class InputFormat:
    """The form of the tower's input: its side, the filter, and the way of resizing (see ``views.render``)."""

    size: int
    mode: str = "bicubic"
    resize: str = "shortest"


@dataclass(frozen=True)
class Block:
    """A few images that are decoded once each and rendered in all of ``views``."""

    paths: tuple[str, ...]
    views: tuple[str, ...]


def render_block(source: ImageSource, form: InputFormat, block: Block) -> np.ndarray:
    """Return the pixels of a block, uint8 (n, V, size, size, 3).

    Raises UnreadableImage if an image cannot be read.
    """
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


def unreadable(source: ImageSource, paths: Iterable[str], workers: int = 0) -> dict[str, UnreadableImage]:
    """Open all of these images, and return those that cannot be read, by path, with their errors.

    ``workers`` processes open them, because an image may end the process that opens it. 0 stands for threads
    of this process.
    """
    form, chosen = InputFormat(1), list(paths)
    workers = min(workers, len(chosen))
    crew = _Crew(source, form) if workers else None

    def opened(path: str) -> UnreadableImage | None:
        block = Block((path,), ("eval",))
        try:
            if crew:
                crew.render(block)
            else:
                render_block(source, form, block)
        except UnreadableImage as error:
            return error
        return None

    pool = ThreadPoolExecutor(workers or _THREADS)
    try:
        for _ in range(workers):
            if crew:
                crew.grow(workers)
        return {path: error for path, error in zip(chosen, pool.map(opened, chosen), strict=True) if error}
    finally:
        if crew:
            crew.end()
        pool.shutdown(wait=True, cancel_futures=True)


def default_workers(encodes: int, device: str = "cpu") -> tuple[int, int]:
    """Return how many worker processes render so many views, or, if that is 0, how many threads.

    For few views threads suffice: Pillow decodes and resizes outside the interpreter's lock, so they use all
    cores too. ``device`` is the type of the tower's device. Beside a tower on a GPU every core decodes,
    unless there are too few views. On a processor a few processes suffice, because the tower takes longer
    than they do.
    """
    most = cores()
    if encodes < _WORTH_PROCESSES:
        return 0, min(_THREADS if device == "cpu" else _THREADS_BESIDE_GPU, most)
    if device == "cpu":
        return min(_PROCESSES, max(1, most - 1)), 1
    return min(_PROCESSES_BESIDE_GPU, most, encodes // _PER_PROCESS), 1


def rendered(
    source: ImageSource,
    form: InputFormat,
    blocks: Iterable[Block],
    workers: int,
    ahead: int = 2,
    threads: int = 1,
) -> Generator[np.ndarray]:
    """Yield the pixels of each block in order.

    With ``workers = 0``, ``threads`` threads of this process decode. At most ``2 * (workers or threads - 1) +
    ahead`` blocks are in memory. Close the iterator to stop early (``contextlib.closing``). Raises
    UnreadableImage if an image cannot be read, or ends the process that decodes it.
    """
    most = 2 * (workers or threads - 1) + ahead
    waiting: deque[Future[np.ndarray]] = deque()
    crew = _Crew(source, form) if workers else None
    pool = ThreadPoolExecutor(workers or threads)
    try:
        for block in blocks:
            if crew is None:
                waiting.append(pool.submit(render_block, source, form, block))
            else:
                crew.grow(workers)
                waiting.append(pool.submit(crew.render, block))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        if crew is not None:
            crew.end()  # comes first, so that no thread waits for a process any longer
        pool.shutdown(wait=True, cancel_futures=True)


class _Crew:
    """The processes that render blocks. Each process serves one thread at a time."""

    def __init__(self, source: ImageSource, form: InputFormat) -> None:
        self.job = source, form
        self.all: set[Child] = set()
        self.idle: SimpleQueue[Child] = SimpleQueue()
        self.lock = Lock()  # lets one process be started at a time
        self.ended = False

    def grow(self, most: int) -> None:
        """Start one more process if there are fewer than ``most``."""
        if len(self.all) < most:
            self.idle.put(self._start())

    def render(self, block: Block) -> np.ndarray:
        """Have the next idle process render a block; there is a process for every thread that asks.

        If the process dies, a new one renders the images one by one. Raises UnreadableImage for the image at
        which that one dies too, and BenchError if new processes die without any image.
        """
        child = self.idle.get()
        try:
            try:
                return _ask(child, block)
            except Died:
                child = self._replacement(child)
            rows = []
            for path in block.paths:
                try:
                    rows.append(_ask(child, Block((path,), block.views)))
                except Died as died:
                    child = self._replacement(child)
                    raise UnreadableImage(
                        f"cannot read the image {path}: it ends the process that decodes it ({died}); "
                        "replace the file and run again",
                        path,
                    ) from None
            return np.concatenate(rows)
        finally:
            self.idle.put(child)  # even a dead one, because a thread may be waiting for it

    def end(self) -> None:
        """End all processes, whatever they are doing."""
        with self.lock:
            self.ended, living = True, tuple(self.all)
        for child in living:
            child.end()

    def _start(self) -> Child:
        with self.lock, _no_main_script(self.job[0]):
            if self.ended:
                raise BenchError("decoding was stopped")
            child = Child(_render, *self.job)
            self.all.add(child)
        return child

    def _replacement(self, dead: Child) -> Child:
        """Start a process in place of a dead one. Raises BenchError if it dies before it has an image."""
        child = self._start()
        with self.lock:
            self.all.discard(dead)
        dead.line.close()
        try:
            _ask(child, Block((), ()))
        except Died as died:
            raise BenchError(
                f"the processes that decode images die ({died}): run again; what was encoded is kept"
            ) from None
        return child


def _ask(child: Child, block: Block) -> np.ndarray:
    """Have a process render a block, and return the pixels. Raises the error that the process met."""
    child.send(block)
    answer = child.recv()
    if isinstance(answer, Exception):
        raise answer
    pixels = np.empty(answer, np.uint8)
    child.read_into(pixels.reshape(-1).data)
    return pixels


def _render(line: Connection[Any, Any], source: ImageSource, form: InputFormat) -> None:
    """Answer every block with its shape and pixels, or with the error. This runs in a process of the crew."""
    while True:
        block: Block = line.recv()
        try:
            pixels = render_block(source, form, block)
        except Exception as error:
            line.send(portable(error))
            continue
        line.send(pixels.shape)
        send_bytes(line, pixels.reshape(-1).data)


@contextmanager
def _no_main_script(source: ImageSource) -> Iterator[None]:
    """Keep processes that start inside the block from running the user's script again.

    A spawned process imports the main module of its parent, for objects that are defined there. Decoding
    needs none of them, and a script usually imports torch, which would cost every worker seconds and hundreds
    of megabytes.
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
