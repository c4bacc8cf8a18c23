"""Write a classifier as one ONNX file, which programs without PyTorch can run.

The file is compared with PyTorch on real images before it gets its place. Its graph has one input, ``pixels``
(n, 3, S, S), normalised, and two outputs, ``logits`` and ``probabilities`` (n, K). Its metadata say in JSON
what a program needs around the graph: the names of the classes, and the way from a picture to ``pixels``.

The packages of the extra ``[onnx]`` are imported when they are used, and not before.

Legend: n images, S side of the input, K classes.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from bench.classifier.file import About
from bench.classifier.module import Whole
from bench.errors import BenchError, short_of_memory
from bench.files import write_bytes

OPSET = 20  # pinned: a newer opset may need a newer runtime
TOLERANCE = 1e-4
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# What torch says, in many lines, of a method whose computation is no fixed graph -> what that means.
_KNOWN = {
    "Constraints violated": "what it computes depends on the number of images",
    "data-dependent": "what it computes depends on the numbers in an image",
}
_LIMIT = 2**31 - 2**20  # bytes: a file of the format cannot have more than 2 GiB


@dataclass(frozen=True)
class Compared:
    """The comparison of an exported file with PyTorch.

    ``images``: how many were compared. ``probability``: the largest difference of a probability. ``logit``:
    the largest difference of a logit, as a share of the largest logit (or of 1, if all are smaller).
    """

    images: int
    probability: float
    logit: float


def require() -> None:
    """Raise BenchError, which names the extra, if one of its packages is not installed."""
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise BenchError(
            f"an export to ONNX needs {', '.join(missing)}: pip install 'fewshot-clip-bench[onnx]'"
        )


def metadata(about: About) -> dict[str, str]:
    """Return what an exported file says about itself: JSON by key.

    ``classes``: K names, in the order of the outputs. ``preprocessing``: how an RGB image becomes ``pixels``;
    ``opening``: how a file becomes an RGB image, null: by Pillow's conversion alone. ``temperature``: what
    the logits were divided by; null if none was fitted, and then they were not. ``method``: its name, title,
    version and values. ``backbone``: its name and the digest of its weights and architecture. ``estimate``:
    the accuracy to expect, null if it is not known. ``made``: where the classifier comes from.
    """
    how = about.preprocessing
    said: dict[str, Any] = {
        "classes": about.classnames,
        "preprocessing": {
            "colours": "RGB",
            "resize_mode": how.resize_mode,  # "shortest": the shorter side becomes ``size``, then the centre
            "interpolation": how.interpolation,
            "size": how.size,
            "rescale": 1 / 255,
            "mean": how.mean,
            "std": how.std,
            "layout": "NCHW",
        },
        "opening": about.opening,
        "temperature": about.temperature,
        "method": {
            "name": about.method,
            "title": about.title,
            "version": about.version,
            "values": about.values,
        },
        "backbone": {"name": about.backbone, "digest": about.weights},
        "estimate": about.estimate,
        "made": about.made,
    }
    return {key: msgspec.json.encode(value).decode() for key, value in said.items()}


def export(whole: Whole, file: Path, x_nCSS: Tensor, said: Mapping[str, str]) -> Compared:
    """Write a classifier as an ONNX file, and return how far it is from PyTorch.

    ``x_nCSS``: normalised pixels (n, 3, S, S) of at least one real image, on which the file is compared with
    ``whole`` before it is written: all images at once, and the first one alone. ``said``: ``metadata``.

    Raises BenchError, and leaves ``file`` as it was, if the extra is not installed, there is no image, the
    method cannot be exported, the file would be too large for the format, or a probability or a logit differs
    by more than ``TOLERANCE`` (``Compared`` has the units).
    """
    require()
    if not len(x_nCSS):
        raise BenchError("an export is compared with PyTorch on real images: name at least one image")
    data = serialised(whole, x_nCSS, said)
    compared = compare(whole, data, x_nCSS)
    write_bytes(file, data)
    return compared


def serialised(whole: Whole, x_nCSS: Tensor, said: Mapping[str, str]) -> bytes:
    """Return the bytes of the ONNX file; they are not compared with anything yet.

    Raises BenchError as ``export`` does. ``x_nCSS``: an example of the input; only its shape (n, 3, S, S)
    matters, of which n stays open.
    """
    import onnx

    held = sum(t.numel() * t.element_size() for t in (*whole.parameters(), *whole.buffers()))
    _require_size(whole, held)
    two_nCSS = torch.zeros(2, *x_nCSS.shape[1:])  # a batch of one would become a constant of the graph
    with torch.inference_mode(False), torch.no_grad(), _quiet():
        try:
            traced = torch.export.export(
                whole, (two_nCSS,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},), strict=False
            )
            program = torch.onnx.export(
                traced,
                input_names=["pixels"],
                output_names=["logits", "probabilities"],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except Exception as error:  # of every kind: the exporter runs the method's own code
            if short_of_memory(error):
                raise
            raise BenchError(
                f"{whole.method.name} cannot be exported to ONNX: {_reason(error)}; use it with "
                "`bench predict`, or choose another method"
            ) from error
    assert program is not None
    model = program.model_proto
    _strip(model)
    onnx.helper.set_model_props(model, dict(said))
    model.producer_name = "fewshot-clip-bench"
    _require_size(whole, model.ByteSize())
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def _strip(model: Any) -> None:
    """Remove the exporter's notes, which hold paths of this machine and lines of source."""
    parts = [*model.functions, model.graph, *model.graph.node, *model.graph.initializer]
    parts += [*model.graph.input, *model.graph.output, *model.graph.value_info]
    parts += [part for function in model.functions for part in (*function.node, *function.value_info)]
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""


def compare(whole: Whole, data: bytes, x_nCSS: Tensor) -> Compared:
    """Compare an ONNX file with PyTorch on images: on all at once, and on the first one alone.

    Raises BenchError, which says both numbers, if they differ by more than ``TOLERANCE``.
    """
    session = _session(data)
    worst = Compared(len(x_nCSS), 0.0, 0.0)
    for some in (x_nCSS, x_nCSS[:1]):
        with torch.inference_mode():
            wanted = [x.numpy() for x in whole(some)]
        try:
            got = session.run(["logits", "probabilities"], {"pixels": some.numpy()})
        except Exception as error:  # the runtime's own kinds, which share no other base class
            if short_of_memory(error):
                raise
            raise BenchError(
                f"onnxruntime cannot run the exported file: {_reason(error)}; nothing was written"
            ) from error
        scale = max(1.0, float(np.abs(wanted[0]).max()))
        logit = _difference("logit", wanted[0], got[0], scale)
        probability = _difference("probability", wanted[1], got[1], 1.0)
        worst = Compared(len(x_nCSS), max(worst.probability, probability), max(worst.logit, logit))
    return worst


def _difference(what: str, wanted_nK: np.ndarray, got_nK: np.ndarray, scale: float) -> float:
    """Return the largest difference in units of ``scale``. Raises BenchError if it is above ``TOLERANCE``."""
    if wanted_nK.shape != got_nK.shape:
        raise BenchError(
            f"the exported file gives a {what} array of shape {got_nK.shape}, PyTorch one of "
            f"{wanted_nK.shape}; nothing was written"
        )
    apart_nK = np.abs(wanted_nK.astype(np.float64) - got_nK) / scale
    at = np.unravel_index(np.argmax(np.nan_to_num(apart_nK, nan=np.inf)), apart_nK.shape)
    if not apart_nK[at] <= TOLERANCE:  # written so that NaN is refused too
        raise BenchError(
            f"the exported file and PyTorch differ: for image {at[0] + 1} the {what} of class {at[1] + 1} is "
            f"{wanted_nK[at]:.6g} in PyTorch and {got_nK[at]:.6g} in the file; nothing was written. "
            "Report it with the versions that `bench --version` and `pip list` print"
        )
    return float(apart_nK[at])


def _session(data: bytes) -> Any:
    """Open an ONNX file's bytes for computing on the processor, with as many threads as PyTorch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors alone
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _require_size(whole: Whole, size: int) -> None:
    if size > _LIMIT:
        raise BenchError(
            f"{whole.method.name} on this backbone has {size / 2**30:.1f} GiB of weights, and an ONNX file "
            "holds at most 2 GiB: choose a smaller backbone"
        )


def _reason(error: BaseException) -> str:
    """Return why an export failed: the meaning if it is known, else the error's first 200 characters."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    for words, meaning in _KNOWN.items():
        if words in text:
            return meaning
    first = text.splitlines()[0].strip().rstrip(".:;")[:200] if text else ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's warnings and notes off the screen; what goes wrong is raised all the same."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
