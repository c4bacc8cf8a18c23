"""Decodes and renders images in worker processes without torch, or in threads where images are few.

Blocks come back in order through a bounded queue, so that memory stays flat whatever the size of the dataset.
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

_FEW = 2000  # rendered views below which starting processes costs more than it saves
_THREADS = 8  # beside a tower on the processor
_THREADS_BESIDE_GPU = 16  # 8 decoded 140 JPEG files a second each (16 cores); not measured beyond 8
_PROCESSES = 16  # beside a tower on the processor
_PROCESSES_BESIDE_GPU = 64  # each is an interpreter, with two blocks of pixels under way
_PER_PROCESS = 250  # rendered views that are worth the start of one


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


def unreadable(source: ImageSource, paths: Iterable[str], workers: int = 0) -> dict[str, UnreadableImage]:
    """The images that cannot be read, with their errors, by path; all of them are opened.

    ``workers`` processes open them, for an image may end the process that does; 0: threads of this one.
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
    """Worker processes, and threads where there are none, for that many rendered views.

    Few views start no process: Pillow decodes and resizes outside the interpreter's lock, so threads share
    the cores too. Beside a tower on a GPU (``device``: its type) every core decodes, up to as many as the
    views are worth; on the processor the tower has more to do than a few processes can decode.
    """
    most = cores()
    if encodes < _FEW:
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
    """The pixels of each block in order. ``workers = 0`` decodes in ``threads`` threads of this process.

    At most ``2 * (workers or threads - 1) + ahead`` blocks are in memory. Close the iterator to stop early
    (``contextlib.closing``). Raises UnreadableImage when an image cannot be read, or ends the process that
    decodes it.
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
            crew.end()  # first: a thread that waits for a process then waits no longer
        pool.shutdown(wait=True, cancel_futures=True)


class _Crew:
    """Processes that render blocks, each asked by one thread at a time."""

    def __init__(self, source: ImageSource, form: InputFormat) -> None:
        self.job = source, form
        self.all: set[Child] = set()
        self.idle: SimpleQueue[Child] = SimpleQueue()
        self.lock = Lock()  # one is started at a time
        self.ended = False

    def grow(self, most: int) -> None:
        """Start one more, up to ``most``."""
        if len(self.all) < most:
            self.idle.put(self._start())

    def render(self, block: Block) -> np.ndarray:
        """``render_block`` in the next process that is idle; there is one for every thread that asks.

        Where the process dies, another one renders the images one by one. Raises UnreadableImage for the one
        at which that dies too, BenchError where new processes die at nothing.
        """
        child = self.idle.get()
        try:
            try:
                return _ask(child, block)
            except Died:
                child = self._instead(child)
            rows = []
            for path in block.paths:
                try:
                    rows.append(_ask(child, Block((path,), block.views)))
                except Died as died:
                    child = self._instead(child)
                    raise UnreadableImage(
                        f"cannot read the image {path}: it ends the process that decodes it ({died}); "
                        "replace the file and run again",
                        path,
                    ) from None
            return np.concatenate(rows)
        finally:
            self.idle.put(child)  # a dead one too: a thread may wait for it

    def end(self) -> None:
        """End them, whatever they are at."""
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

    def _instead(self, dead: Child) -> Child:
        """A new process for one that died. Raises BenchError where it dies before it has an image."""
        child = self._start()
        with self.lock:
            self.all.discard(dead)
        dead.line.close()
        try:
            _ask(child, Block((), ()))
        except Died as died:
            raise BenchError(
                f"processes that decode images die ({died}): run again, what is encoded is kept"
            ) from None
        return child


def _ask(child: Child, block: Block) -> np.ndarray:
    child.send(block)
    answer = child.recv()
    if isinstance(answer, Exception):
        raise answer
    pixels = np.empty(answer, np.uint8)
    child.read_into(pixels.reshape(-1).data)
    return pixels


def _render(line: Connection[Any, Any], source: ImageSource, form: InputFormat) -> None:
    """Runs in a process of the crew: answers every block with shape and pixels, or with the error."""
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
