"""Export a classifier that is ready to answer, and say how far the file is from PyTorch and from the model.

Legend: n images, S side of the input, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bench.classifier import onnx
from bench.classifier.images import Files
from bench.classifier.model import Model, probabilities
from bench.classifier.module import Whole
from bench.errors import BenchError, UnreadableImage
from bench.features.decode import Block, InputFormat, render_block
from bench.features.forward import normaliser
from bench.interface import EVAL

if TYPE_CHECKING:
    from bench.data.dataset import ImageSource

MOST = 32  # images that a file is compared on: they are held in memory, and more would find no other errors


@dataclass(frozen=True)
class Exported:
    """What is known of an exported file.

    ``compared``: with the same module in PyTorch. ``same``: how many of these images get the same class from
    ``Model.predict``, and ``apart``: the largest difference of a probability. They need not be equal, because
    ``Model`` rounds features to half precision, as a run stores them.
    """

    compared: onnx.Compared
    same: int
    apart: float


def to_onnx(model: Model, file: Path, names: Sequence[str], source: ImageSource | None = None) -> Exported:
    """Write a classifier as an ONNX file, which is compared with PyTorch on images before it is written.

    ``names``: image files, of which at most ``MOST`` are taken, spread over the list. ``source`` opens the
    images of these names; without it they are paths. Raises BenchError as ``onnx.export`` does,
    UnreadableImage for an image that cannot be read, and BenchError for a model that is not on the processor.
    """
    if model.device != "cpu":
        raise BenchError(f"an export is made on the processor, and this model is on {model.device}")
    onnx.require()
    source = source or Files(model.opening, model.max_pixels)
    some = spread(names)
    x_nCSS = pixels_of(model, source, some)
    module = Whole(
        model.tower, model.method, model.params, model.consts, model.values, model.about.temperature or 1.0
    )
    answers = list(model.answers(source, some))
    for answer in answers:
        if answer.logits is None:
            raise UnreadableImage(answer.reason, answer.name)
    logits_nK = np.array([answer.logits for answer in answers])
    wanted_nK = probabilities(logits_nK, model.about.temperature)
    compared = onnx.export(module, file, x_nCSS, onnx.metadata(model.about))
    with torch.inference_mode():
        given_nK = module(x_nCSS)[1].numpy()
    return Exported(
        compared,
        int((wanted_nK.argmax(1) == given_nK.argmax(1)).sum()),
        float(np.abs(wanted_nK - given_nK).max()),
    )


def spread(names: Sequence[str]) -> list[str]:
    """Return at most ``MOST`` names, spread evenly over the list."""
    if len(names) <= MOST:
        return list(names)
    return [names[i * (len(names) - 1) // (MOST - 1)] for i in range(MOST)]


def pixels_of(model: Model, source: ImageSource, names: Sequence[str]) -> Tensor:
    """Return the normalised pixels (n, 3, S, S) of images. Raises UnreadableImage."""
    how = model.about.preprocessing
    form = InputFormat(how.size, how.interpolation, how.resize_mode)
    rendered = render_block(source, form, Block(tuple(names), (EVAL,)))
    return normaliser(model.tower)(torch.from_numpy(rendered[:, 0])).contiguous()
