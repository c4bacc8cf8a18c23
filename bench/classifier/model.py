"""Use a classifier: from images to logits, probabilities and class names, with scikit-learn's conventions.

Images pass the same decoding, evaluation view, image tower and taps as in a run, and ``Method.logits`` gets
the same constants, tensors and values as in the evaluation. Nothing is stored: features of all taps are
computed as they are needed.

``Method.logits`` always gets the same number of rows; the last ones are copies. So an image gets the same
answer to the last bit in whatever company it is asked about (``bench.features.forward`` says why).

Legend: n images, B rows of one call, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench import registry as methods
from bench.classifier import file, images, parts
from bench.classifier.file import About, Classifier, opening_of
from bench.clip import backbone as backbones
from bench.clip.backbone import Backbone, BackboneSpec
from bench.errors import BenchError, MissingWeights, UnreadableImage
from bench.features.decode import default_workers, unreadable
from bench.features.encode import stream
from bench.features.key import prepared
from bench.interface import EVAL, LAYER3, PIXELS, Consts, Features, Method, Params
from bench.names import canonical, shown
from bench.registry import Registry
from bench.run import devices, logits
from bench.run.session import few_threads, repeatable, restored

if TYPE_CHECKING:
    from bench.data.dataset import ImageSource

ROWS = 256  # rows of a call of ``Method.logits``
_DEEP_ROWS = 32  # the same where the method itself passes images through (a part of) the tower
_BYTES = 64 << 20  # most bytes of features in a call
_CHUNK, _NUMBERS = 4096, 1 << 22  # images and logits that are held before they are given out
Watch = Callable[[int, int], None]  # (images done, images in all)


@dataclass(frozen=True)
class Answer:
    """What is known of one image: its logits (K,), float32, or the reason why it could not be read."""

    name: str
    logits: NDArray[np.float32] | None
    reason: str = ""


class _Source:
    """The images of a question, in the form in which the features are asked for."""

    stored_as = ""  # nothing is stored

    def __init__(self, source: ImageSource) -> None:
        self.source = source


class Model:
    """A classifier that is ready to answer, on one device.

    ``classes_``: the K class names, in the order of the probabilities. ``about``: what the classifier is.
    ``tower``, ``method``, ``params``, ``consts`` and ``values`` are the parts that ``logits`` is made of.
    """

    def __init__(
        self,
        classifier: Classifier,
        device: str = "auto",
        *,
        backbone: str | None = None,
        registry: Registry | None = None,
        allow_torchscript: bool = False,
        max_pixels: int | None = None,
        workers: int | None = None,
    ) -> None:
        """Load the backbone and put the classifier together.

        ``backbone``: where the weights are, if the classifier's own name of them does not say it
        (``ARCH@FILE``). ``workers``: processes that decode, as in ``bench run``. ``max_pixels``: the size
        from which on an image is refused. Raises BenchError if the weights, the method, its version or the
        way to open images are not here as the classifier was made with them.
        """
        about = classifier.about
        self.about, self.workers, self.max_pixels = about, workers, max_pixels
        self.opening = opening_of(about)
        self.method = method_of(about, registry or methods.builtin())
        spec = weights_of(about, backbone, allow_torchscript)
        self.device = devices.pick(device)
        with restored():
            repeatable()
            self.tower: Backbone = backbones.load(spec, self.device)
            self.params: Params = {name: x.to(self.device) for name, x in classifier.params.items()}
            self.consts: Consts = parts.unpacked(about.constants, classifier.tensors, self.tower, self.method)
        self.values: dict[str, Any] = {name: _tuples(value) for name, value in about.values.items()}
        self.classes_: NDArray[np.str_] = np.array(about.classnames)

    def score_features(self, features: Features) -> Tensor:
        """Return the logits (B, K) of raw features by tap, on the model's device.

        Raises BenchError if they are not finite.
        """
        return logits.given(
            self.method, len(self.about.classnames), self.params, self.consts, features, self.values
        )

    def logits(self, X: Any) -> NDArray[np.float32]:
        """Return the logits (n, K), before the temperature.

        ``X``: a path, a PIL image, an array of pixels (uint8, (H, W), (H, W, 3) or (H, W, 4); (n, H, W, 3)
        for several), or a list of these. Raises UnreadableImage for an image that cannot be read.
        """
        source, names = images.given(X, self.opening, self.max_pixels)
        made = np.empty((len(names), len(self.classes_)), np.float32)
        for i, answer in enumerate(self.answers(source, names)):
            if answer.logits is None:
                raise UnreadableImage(answer.reason, answer.name)
            made[i] = answer.logits
        return made

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probabilities (n, K): the softmax of the logits at the classifier's temperature.

        ``X`` and errors: as for ``logits``.
        """
        return probabilities(self.logits(X), self.about.temperature)

    def predict(self, X: Any) -> NDArray[np.str_]:
        """Return the most probable class of each image (n,). ``X`` and errors: as for ``logits``."""
        return self.classes_[best(self.logits(X))[:, 0]]

    def score(self, X: Any, y: Sequence[str]) -> float:
        """Return the share of images whose class, a name of ``classes_``, is predicted.

        Raises BenchError for a name that is no class, and for another number of names than of images.
        """
        true = np.asarray(y).reshape(-1)
        known = set(self.about.classnames)
        if unknown := [name for name in true.tolist() if name not in known]:
            raise BenchError(f"'{shown(str(unknown[0]))}' is no class of this classifier; see its classes_")
        predicted = self.predict(X)
        if len(true) != len(predicted) or not len(true):
            raise BenchError(
                f"{len(predicted)} images and {len(true)} classes: give one class for each image"
            )
        return float((predicted == true).mean())

    def answers(
        self, source: ImageSource, names: Sequence[str], watch: Watch = lambda done, total: None
    ) -> Iterator[Answer]:
        """Yield an answer for each name, in order. ``source`` opens the image of a name.

        An image that cannot be read is an answer with a reason. Memory holds one portion of images. ``watch``
        hears of progress. Raises BenchError if the method's logits are not finite.
        """
        size = max(1, min(_CHUNK, _NUMBERS // len(self.classes_)))
        done = 0

        def step(count: int) -> None:
            nonlocal done
            done += count
            watch(done, len(names))

        for start in range(0, len(names), size):
            yield from self._portion(source, names[start : start + size], step)

    def _portion(
        self, source: ImageSource, names: Sequence[str], step: Callable[[int], None]
    ) -> list[Answer]:
        """Return the answers for a few names. Images that cannot be read are found when encoding stops."""
        found: dict[int, Answer] = {}
        waiting = list(range(len(names)))
        while waiting:
            scored = 0
            try:
                with closing(self._scored(source, [names[i] for i in waiting])) as parts_of:
                    for rows in parts_of:
                        for i, row in zip(waiting[scored : scored + len(rows)], rows, strict=True):
                            found[i] = Answer(names[i], row)
                        scored += len(rows)
                        step(len(rows))
                waiting = waiting[scored:]
            except UnreadableImage as error:
                waiting = waiting[scored:]
                bad = unreadable(
                    source, dict.fromkeys(names[i] for i in waiting), self._openers(source, len(waiting))
                )
                # At least the one at which encoding stopped, even if it can be read now.
                bad.setdefault(error.path, error)
                if not any(names[i] in bad for i in waiting):
                    raise  # it names no image, so nothing could be left out
                for i in waiting:
                    if names[i] in bad:
                        found[i] = Answer(names[i], None, str(bad[names[i]]))
                left = [i for i in waiting if names[i] not in bad]
                step(len(waiting) - len(left))
                waiting = left
        return [found[i] for i in range(len(names))]

    def _workers(self, source: ImageSource) -> int | None:
        """Return how many processes decode; None: by the number of images.

        Pictures in memory are not sent to other processes.
        """
        return 0 if isinstance(source, images.Pictures) else self.workers

    def _openers(self, source: ImageSource, count: int) -> int:
        """Return how many processes look for unreadable images among ``count``: as many as decoded them."""
        workers = self._workers(source)
        return default_workers(count, self.tower.device.type)[0] if workers is None else workers

    def _scored(self, source: ImageSource, names: Sequence[str]) -> Generator[NDArray[np.float32]]:
        """Yield the logits (B, K) of images, in order."""
        taps = self.method.taps
        passes = stream(self.tower, _Source(source), names, EVAL, taps, workers=self._workers(source))
        with self._computing(), closing(passes):
            rows = None
            held: list[Features] = []
            n = 0
            for _, raw in passes:
                part = {tap: x.to(self.device).float() for tap, x in raw.items()}
                rows = rows or self._rows(part)
                held.append(part)
                n += len(next(iter(part.values())))
                while n >= rows:
                    whole = _joined(held, taps)
                    yield self._padded({tap: x[:rows] for tap, x in whole.items()}, rows)
                    held, n = [{tap: x[rows:] for tap, x in whole.items()}], n - rows
            if n and rows:
                yield self._padded(_joined(held, taps), rows)

    def _rows(self, part: Features) -> int:
        """Return how many rows each call of ``Method.logits`` gets, by the size of a row alone."""
        each = sum(4 * x[0].numel() for x in part.values())
        most = _DEEP_ROWS if {PIXELS, LAYER3} & set(part) else ROWS
        return max(1, min(most, _BYTES // each))

    def _padded(self, features: Features, rows: int) -> NDArray[np.float32]:
        """Return the logits (B, K) of at most ``rows`` rows, which are filled up with copies of the last."""
        B = len(next(iter(features.values())))
        full = {
            tap: torch.cat([x, x[-1:].expand(rows - B, *x.shape[1:])]) if rows > B else x
            for tap, x in features.items()
        }
        with torch.no_grad():
            made: NDArray[np.float32] = self.score_features(full)[:B].float().cpu().numpy()
        return made

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Compute as ``bench run`` does inside the block, and leave the process as it was."""
        with restored():
            repeatable()
            with few_threads(self.tower.model):
                yield


def load(
    path: str | Path,
    device: str = "auto",
    *,
    backbone: str | None = None,
    plugin: str | Path | None = None,
    allow_torchscript: bool = False,
    max_pixels: int | None = None,
    workers: int | None = None,
) -> Model:
    """Return the classifier in a folder, ready to predict (``bench.load``).

    ``device``: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. ``backbone``: ``ARCH@FILE``, where the weights are
    a file of yours. ``plugin``: the file of a method that does not come with the program.
    ``allow_torchscript``, ``max_pixels``, ``workers``: as in ``bench run``. Raises BenchError if the folder
    holds no whole classifier, or if this machine lacks its weights or its method.
    """
    found = file.read(Path(path))
    known = methods.with_plugins((Path(plugin),)) if plugin is not None else methods.builtin()
    return Model(
        found,
        device,
        backbone=backbone,
        registry=known,
        allow_torchscript=allow_torchscript,
        max_pixels=max_pixels,
        workers=workers,
    )


def method_of(about: About, registry: Registry) -> Method:
    """Return the method of a classifier.

    Raises BenchError if it is not here, or in another version or from another source than the classifier's,
    because the classifier holds constants of that version.
    """
    try:
        method = registry.get(about.method)
    except BenchError as error:
        mend = "name its file with --plugin" if about.source else "install the program that made it"
        raise BenchError(
            f"this classifier needs the method {shown(about.method)}: {error}; {mend}"
        ) from error
    here = registry.digests.get(canonical(method.name), "")
    if method.version != about.version:
        raise BenchError(
            f"this classifier needs version {about.version} of {method.name}, and here is version "
            f"{method.version}: use the program that made it, or make the classifier again"
        )
    if here != about.source:
        raise BenchError(
            f"this classifier was made with another source of {method.name} (digest "
            f"{about.source[:12] or 'none: it came with the program'}; here "
            f"{here[:12] or 'none: it comes with the program'}): use that file, or make the classifier again"
        )
    return method


def weights_of(about: About, backbone: str | None = None, allow_torchscript: bool = False) -> BackboneSpec:
    """Return the backbone of a classifier, in its precision.

    ``backbone``: another name of it, as in ``ARCH@FILE``. Raises MissingWeights if it is not here, and
    BenchError if its weights or its preprocessing are others than the classifier's.
    """
    try:
        spec = backbones.resolve(backbone or about.backbone, allow_torchscript)
    except (MissingWeights, OSError) as error:
        if backbone is None and "@" in about.backbone:
            raise BenchError(
                f"this classifier needs the weights {shown(about.backbone)}: name the file, as in --backbone "
                f"{shown(about.backbone.partition('@')[0])}@FILE"
            ) from error
        raise
    if spec.digest != about.weights:
        raise BenchError(
            f"this classifier was made with other weights of {shown(about.backbone)}: their digest is "
            f"{about.weights}, and that of {shown(spec.name)} here is {spec.digest}; get those weights, or "
            "make the classifier again"
        )
    spec = replace(spec, dtype=about.dtype)
    if prepared(spec) != about.preprocessing.name:
        raise BenchError(
            "this classifier was made with other preprocessing of images "
            f"({shown(about.preprocessing.name)}; here {prepared(spec)}): use the settings file that lay "
            "beside the weights, or make the classifier again"
        )
    return spec


def probabilities(logits_nK: NDArray[np.floating], temperature: float | None) -> NDArray[np.float64]:
    """Return softmax(logits / T) in double precision (n, K); without a temperature T is 1 (protocol 24.5)."""
    z_nK = np.asarray(logits_nK, np.float64) / (1.0 if temperature is None else temperature)
    e_nK = np.exp(z_nK - z_nK.max(1, keepdims=True, initial=-np.inf))
    shares: NDArray[np.float64] = e_nK / e_nK.sum(1, keepdims=True)
    return shares


def best(logits_nK: NDArray[np.floating]) -> NDArray[np.intp]:
    """Return the classes (n, K) from the best on. Of equal logits the lower class comes first, as in runs."""
    return np.argsort(-logits_nK, axis=1, kind="stable")


def _joined(held: Sequence[Features], taps: Sequence[str]) -> dict[str, Tensor]:
    return {tap: torch.cat([part[tap] for part in held]) for tap in taps}


def _tuples(value: Any) -> Any:
    """Return a value as methods know it: JSON has lists where settings have tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
