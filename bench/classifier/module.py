"""Put an image tower and a fitted method into one module: from pixels to logits and probabilities.

Nothing is stored on the way, so features are not rounded to half precision here as the store of features
rounds them: probabilities differ from those of an evaluation in the fourth digit or later.

Legend: n images, S side of the input, K classes, T temperature.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from bench.clip.backbone import Backbone
from bench.errors import BenchError
from bench.interface import Consts, Method, Params


class Whole(nn.Module):
    """A classifier as one module: ``forward`` turns normalised pixels into logits and probabilities.

    ``backbone``: in single precision, on the device of ``params`` and ``consts``. ``params``, ``consts`` and
    ``values`` are what ``method.logits`` gets, and are fixed here. ``temperature``: T; the logits are divided
    by it, so that their softmax is calibrated (protocol 24.6).

    Raises BenchError if the tower lacks a tap that the method reads, or computes in another precision.
    """

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        params: Params,
        consts: Consts,
        values: Mapping[str, Any],
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if unknown := sorted(set(method.taps) - backbone.taps):
            raise BenchError(
                f"{backbone.spec.name} has no tap {', '.join(unknown)}, which {method.name} reads: "
                "choose a CLIP ResNet or ViT backbone"
            )
        if backbone.dtype != torch.float32:
            raise BenchError(
                f"{backbone.spec.name} computes in {str(backbone.dtype).removeprefix('torch.')} here, and an "
                "export in float32: run the cell with --precision fp32"
            )
        self.method, self.temperature = method, float(temperature)
        self.side, self.device = backbone.image_size, backbone.device
        self.values = dict(values)
        self._backbone = (backbone,)  # in a tuple: the text tower is no part of this module
        self._visual = backbone._trunk
        # Copies, which inference mode has not touched: an exporter reads their versions.
        self._params = _named(self, "param", params)
        self._consts = _named(self, "const", consts)
        self.eval().requires_grad_(False)

    def forward(self, x_nCSS: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits / T and their softmax, (n, K) each, of normalised pixels (n, 3, S, S).

        The pixels are normalised as the backbone wants them (``Backbone.mean``, ``Backbone.std``).
        """
        (backbone,) = self._backbone
        features = backbone.encode_images(x_nCSS, self.method.taps)
        params = {name: _held(self, at) for name, at in self._params.items()}
        consts = {name: _held(self, at) for name, at in self._consts.items()}
        logits_nK = self.method.logits(params, consts, features, deepcopy(self.values))
        logits_nK = logits_nK.float() / self.temperature
        return logits_nK, logits_nK.softmax(-1)


def _named(module: nn.Module, kind: str, held: Mapping[str, Any]) -> dict[str, Any]:
    """Register tensors as buffers of a module, and return by name the buffer's name or the other value."""
    places: dict[str, Any] = {}
    for i, (name, value) in enumerate(held.items()):
        if isinstance(value, Tensor):
            with torch.inference_mode(False):
                module.register_buffer(f"{kind}_{i}", value.detach().clone().contiguous())
            places[name] = _Buffer(f"{kind}_{i}")
        else:
            places[name] = value
    return places


class _Buffer(str):
    """The name of a buffer, in the place of a tensor."""


def _held(module: nn.Module, at: Any) -> Any:
    return getattr(module, at) if isinstance(at, _Buffer) else at
