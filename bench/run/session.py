"""Hold what the fits of one command share: device, backbones, feature store and text classifiers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from bench import process
from bench.clip import backbone as backbones
from bench.clip.backbone import Backbone, BackboneSpec
from bench.clip.text import EqualTexts, classifier
from bench.clip.vocabulary import untrained_tokens, why_equal
from bench.data import seen
from bench.data.dataset import Dataset, Items
from bench.errors import BenchError, UnreadableImage
from bench.features.decode import default_workers, unreadable
from bench.features.encode import EncodeReport, encode, in_pieces, keys, stream
from bench.features.store import FeatureStore
from bench.features.wanted import Wanted, outstanding
from bench.interface import EVAL, POOLED, TextSide
from bench.plan.needs import stored
from bench.prompts import PromptSet
from bench.run import devices
from bench.run.guard import Guard
from bench.run.outcome import Now, Watch, unwatched

SMALL = 10_000_000  # parameters without the token table; RN50 has 77 million


def repeatable() -> None:
    """Make the arithmetic of this process repeatable. Every process that computes calls it first.

    TF32 is off and deterministic algorithms are on, so that a repeated command gives the same numbers.
    Numbers below 2^-126 in float32 (2^-1022 in float64) count as zero if the processor can do that. Gradients
    are full of them once training saturates, and some processors take several times as long for a product
    with them. A thread inherits this setting from the thread that starts it, so threads that exist already do
    not have it.
    """
    torch.set_flush_denormal(True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    # These two lines do what `use_deterministic_algorithms(True)` does. That function would import torch's
    # compiler to set it, which takes seconds in every process. If a method imports the compiler, it reads the
    # variable.
    os.environ.setdefault("TORCHINDUCTOR_DETERMINISTIC", "1")
    torch.set_deterministic_debug_mode("error")
    # No code here reads memory before writing it, and filling every new tensor would launch one more kernel.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def restored() -> Iterator[None]:
    """Put back after the block what ``repeatable`` sets in it, for callers that own their process.

    The environment variables stay; CUDA reads them once.
    """
    # A thread's handling of tiny numbers, and torch's switches.
    flushes = process.flushes_denormal()
    mode = torch.get_deterministic_debug_mode()
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_flush_denormal(flushes)
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]


@contextmanager
def few_threads(model: torch.nn.Module) -> Iterator[None]:
    """Use one thread in the block if a model is small, because its work is too little to divide.

    The size of the model decides this and not a measured time, because the number of threads can change the
    last bits of a product.
    """
    before = torch.get_num_threads()
    size = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("token_embedding"))
    if size >= SMALL:
        yield
        return
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):  # NumPy's and scikit-learn's libraries
            yield
    finally:
        torch.set_num_threads(before)


class Session:
    """The backbones, features and text classifiers of one command, each made once.

    ``report`` is called with lines for the user, and ``watch`` with what this process is doing.
    ``dense_cache``: whether dense features are stored. ``sharers``: how many processes use the device,
    including this one. Each takes an equal part of the memory. ``keep_logits``: whether evaluations keep the
    logits of all classes.
    """

    def __init__(
        self,
        device: str,
        cache: Path | None,
        report: Callable[[str], None],
        workers: int | None = None,
        dense_cache: bool = True,
        sharers: int = 1,
        keep_logits: bool = False,
    ) -> None:
        assert sharers >= 1
        repeatable()
        self.dense_cache = dense_cache
        self.keep_logits = keep_logits
        self.device = devices.pick(device)
        if self.device.startswith("cuda:"):
            # Streams and memory figures without a device are those of the current one.
            torch.cuda.set_device(self.device)
        self.store = FeatureStore(cache, report)
        self.report = report
        self.watch: Watch = unwatched
        self.workers = workers
        self.sharers = sharers
        self.guard = Guard()
        self._backbones: dict[tuple[str, str], Backbone] = {}
        self._texts: dict[tuple[str, str, tuple[str, ...]], tuple[Tensor, TextSide]] = {}

    def backbone(self, spec: BackboneSpec) -> Backbone:
        """Return the loaded model, which encodes in the precision of ``spec``."""
        key = (spec.digest, spec.dtype)
        if key not in self._backbones:
            self.watch(Now(f"loading {spec.name}"))
            self._backbones[key] = backbones.load(spec, self.device)
        return self._backbones[key]

    @contextmanager
    def threads(self, spec: BackboneSpec) -> Iterator[None]:
        """Use one thread in the block if the model is small (``few_threads``)."""
        with few_threads(self.backbone(spec).model):
            yield

    def encoded_text(
        self, spec: BackboneSpec, prompts: PromptSet, classnames: tuple[str, ...]
    ) -> tuple[Tensor, TextSide]:
        """Return W and the text side of a prompt set. Each string is encoded once in a session.

        Raises BenchError, with the reason if it is known, if two classes have equal text features.
        """
        key = (spec.digest, prompts.digest, classnames)
        if key not in self._texts:
            self.watch(Now(f"encoding the texts of {len(classnames)} classes"))
            flat = [p for group in prompts.prompts for p in group]
            class_of = [k for k, group in enumerate(prompts.prompts) for _ in group]
            with warnings.catch_warnings(record=True) as cut:  # warnings about texts that are too long
                warnings.simplefilter("always")
                raw_PC = self.backbone(spec).encode_text(flat).float()
            for warning in cut:
                self.report(f"{spec.name}: {warning.message}")
            try:
                W_KC = classifier(raw_PC, class_of, len(classnames), prompts.reduce, classnames)
            except EqualTexts as error:
                same = [prompts.prompts[k] for k in error.classes]
                why = why_equal(self.backbone(spec), *same)
                raise BenchError(f"{error} ({why})" if why else str(error)) from error
            if unseen := untrained_tokens(self.backbone(spec), classnames):
                self.report(unseen)
            side = TextSide(
                raw_PC, torch.tensor(class_of, device=raw_PC.device), classnames, prompts.templates
            )
            self._texts[key] = W_KC, side
        return self._texts[key]

    def encode(self, spec: BackboneSpec, dataset: Dataset, wanted: Sequence[Wanted]) -> EncodeReport:
        """Encode features into the store, together with stamps of their images; return what was encoded."""

        def progress(done: int, total: int) -> None:
            self.watch(Now(f"encoding {dataset.name}", done, total))

        def waits() -> None:
            self.watch(Now(f"waiting for another process that encodes {dataset.name}"))
            self.report(f"waiting for another process that encodes {dataset.name}")

        tower = self.backbone(spec)
        key_of = keys(tower, dataset)
        if not outstanding(wanted, self.store, key_of):
            return EncodeReport(0, 0, 0.0)
        with self.store.encoding(key_of(POOLED, EVAL), waits):
            pieces = outstanding(wanted, self.store, key_of)  # fewer, if another process encoded some
            self.watch(Now(f"looking at the images of {dataset.name}"))
            seen.note(self.store.root, dataset, (path for piece in pieces for path in piece.paths))
            return encode(tower, dataset, wanted, self.store, workers=self.workers, progress=progress)

    def release(self, models: bool = True) -> None:
        """Free the memory that encoding left on the device and, with ``models``, that of the backbones.

        A backbone that is needed later is loaded again.
        """
        if models:
            self._backbones.clear()
            self._texts.clear()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Release the feature store, so that other processes can clear what this session used."""
        self.store.close()

    def lacking(self, spec: BackboneSpec, dataset: Dataset, wanted: Sequence[Wanted]) -> int:
        """Return how many image x view passes ``encode`` would make."""
        return sum(p.encodes for p in outstanding(wanted, self.store, keys(self.backbone(spec), dataset)))

    def unreadable(
        self, spec: BackboneSpec, dataset: Dataset, wanted: Sequence[Wanted]
    ) -> dict[str, UnreadableImage]:
        """Return by path the errors of wanted images that the store lacks and that cannot be read."""
        pieces = outstanding(wanted, self.store, keys(self.backbone(spec), dataset))
        workers = self.workers
        if workers is None:  # as many as ``encode`` used, even if few passes are left
            passes = sum(len(w.paths) * len(w.views) for w in wanted)
            workers, _ = default_workers(passes, self.backbone(spec).device.type)
        paths = dict.fromkeys(path for piece in pieces for path in piece.paths)
        return unreadable(dataset.source, paths, workers)

    def lacks(
        self, spec: BackboneSpec, dataset: Dataset, paths: Sequence[str], view: str, taps: Sequence[str]
    ) -> bool:
        """Return whether any of these features is not in the store."""
        key_of = keys(self.backbone(spec), dataset)
        return any(self.store.missing(key_of(tap, view), paths) for tap in taps)

    def stream(
        self, spec: BackboneSpec, dataset: Dataset, paths: Sequence[str], view: str, taps: Sequence[str]
    ) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Yield raw float32 features of several taps from one pass over the images, without storing them.

        Each item is (start, features of a batch by tap).
        """
        for start, batch in stream(self.backbone(spec), dataset, paths, view, taps, workers=self.workers):
            yield start, {tap: x.to(self.device).float() for tap, x in batch.items()}

    def slices(
        self, spec: BackboneSpec, dataset: Dataset, paths: Sequence[str], view: str, tap: str, rows: int = 256
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield raw float32 features on the device in pieces (start, (n, ...)), stored ones or made now."""
        tower = self.backbone(spec)
        if not stored(tap, view):
            parts = stream(tower, dataset, paths, view, [tap], workers=self.workers)
            for start, piece_nF in in_pieces((taps[tap] for _, taps in parts), rows):
                yield start, piece_nF.to(self.device).float()
            return
        for start, piece in self.store.slices(keys(tower, dataset)(tap, view), paths, rows):
            yield start, torch.from_numpy(piece).to(self.device).float()

    def features(
        self, spec: BackboneSpec, dataset: Dataset, paths: Sequence[str], view: str, tap: str
    ) -> Tensor:
        """Return all features that ``slices`` yields in one tensor."""
        return filled(len(paths), self.slices(spec, dataset, paths, view, tap))

    def labels(self, items: Items) -> Tensor:
        """Return the classes (n,) of images, on the device."""
        return torch.tensor(items.labels, dtype=torch.long, device=self.device)


def filled(rows: int, pieces: Iterable[tuple[int, Tensor]], dtype: torch.dtype | None = None) -> Tensor:
    """Return one tensor of ``rows`` rows from its pieces (start, (n, ...)).

    ``dtype``: its type (None: the first piece's). It is allocated once and filled piece by piece, because
    joining all pieces at the end would take twice the memory.
    """
    whole: Tensor | None = None
    done = 0
    for start, piece in pieces:
        assert start == done, "pieces come one after the other"
        done += len(piece)
        if whole is None:
            whole = piece.new_empty((rows, *piece.shape[1:]), dtype=dtype or piece.dtype)
        whole[start : start + len(piece)] = piece
    assert whole is not None and done == rows, f"{done} of {rows} rows"
    return whole
