"""Put a CLIP behind a narrow face: ``resolve`` names it without torch, ``load`` builds it frozen.

Legend: B batch, T tokens, D tower width, C embedding width, P prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bench.clip.spec import BackboneSpec, resolve
from bench.errors import BenchError
from bench.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from bench.clip.heads import PoolingHead
    from bench.clip.text import TextTower

__all__ = ["Backbone", "BackboneSpec", "load", "resolve"]


def load(
    spec: BackboneSpec, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> Backbone:
    """Build the model on ``device``, in eval mode and without gradients.

    ``dtype`` is the precision of the image tower while it encodes (default: the spec's; fp16 and bf16 are
    meant for CUDA). The text tower, the pooling head and what a method trains of the tower stay in fp32.
    Raises BenchError if the file does not fit the architecture, or if OpenAI's weights would be built with
    exact GELU (protocol 21.14).
    """
    from bench.clip import state

    return Backbone(spec, state.build(spec), torch.device(device), dtype or getattr(torch, spec.dtype))


class Backbone:
    """A frozen CLIP: taps of images, text features, and the pooling head and text tower as functions."""

    def __init__(self, spec: BackboneSpec, model: Any, device: torch.device, dtype: torch.dtype) -> None:
        from bench.clip import heads, towers

        self.spec, self.device, self.dtype = spec, device, dtype
        self.family, self.image_size = spec.family, spec.image_size
        self.mean, self.std = spec.preprocess.mean, spec.preprocess.std
        self.model = model.eval().requires_grad_(False).to(device)
        self.scale = float(self.model.logit_scale.detach().double().exp())
        self.taps = towers.TAPS[spec.family]
        self._head = heads.of_tower(self.model.visual, spec.family) if spec.family != "other" else None
        # Half precision is too coarse to train in, so a tower that encodes by a copy keeps single precision.
        own = dtype if self._head is None else torch.promote_types(dtype, torch.float32)
        self.model.visual.to(own)
        if spec.family != "vit":
            self.model.visual.to(memory_format=towers.layout(device.type, own))

    @property
    def width(self) -> int:
        """Return C, the width of the shared embedding space."""
        return int(self.spec.config["embed_dim"])

    @property
    def head(self) -> PoolingHead:
        """Return the pooling head.

        Raises BenchError for a tower that has none (SigLIP's MAP, timm trunks).
        """
        from bench.clip import heads

        return self._head or heads.of_tower(self.model.visual, "other")

    def encode_images(self, x_BCHW: Tensor, taps: Sequence[str] = ("pooled",)) -> dict[str, Tensor]:
        """Return raw features of normalised images (B, 3, S, S) at all requested taps, from one forward pass.

        The taps are:

        - ``pixels`` (B, 3, S, S), ``layer3`` (B, D/2, s, s), ``dense`` (B, T, D),
        - ``tokens`` (B, T, C), ``preproj`` (B, D) and ``pooled`` (B, C).

        They are never normalised to unit length. Raises BenchError for a tap that this tower does not have,
        and for a precision that the device does not compute in.
        """
        from bench.clip import towers

        if unknown := sorted(set(taps) - self.taps):
            raise BenchError(
                f"{self.spec.name} has no tap {', '.join(unknown)} (it has {', '.join(sorted(self.taps))}): "
                "choose a CLIP ResNet or ViT backbone, or methods that need only these"
            )
        x_BCHW = x_BCHW.to(self.device, torch.promote_types(self.dtype, torch.float32), non_blocking=True)
        try:
            with torch.no_grad():
                return towers.encode(self.model, self._head, self.family, x_BCHW, taps, self._trunk)
        except RuntimeError as error:
            # PyTorch says this if an operator does not exist in a precision.
            if "not implemented for" not in str(error):
                raise
            raise BenchError(
                f"this PyTorch has no {self.dtype} on {self.device.type} ({error}): use --precision fp32"
            ) from error

    @cached_property
    def _trunk(self) -> Any:
        """Return the image tower that encodes: the model's own, or a copy of it.

        A copy is made for a lower precision. A copy without norms is made of a ResNet on a processor: it is
        15 % faster there, and no faster on a GPU.
        """
        from bench.clip import towers

        visual = self.model.visual
        lower = self._head is not None and self.dtype.itemsize < torch.float32.itemsize
        exact = self.device.type == "cpu" and self.dtype == torch.float32
        # The first use may lie inside inference mode, and the copy must outlive that.
        with torch.inference_mode(False):
            if lower:
                return towers.lowered(visual, self.family, self.dtype)
            return towers.folded(visual) if exact and self.family == "rn" else visual

    @cached_property
    def text(self) -> TextTower:
        """Return the causal text tower as a function of embedded prompts.

        Raises BenchError for a model whose text tower is of another kind.
        """
        from bench.clip import text

        return text.of_model(self.model, self.spec)

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Return raw text features (P, C), fp32, of prompts cut at their end token.

        Every kind of tower works. They are computed in chunks. One warning says how many prompts were longer
        than the context. Raises BenchError if there are no prompts.
        """
        from bench.clip import text, tokens

        if not prompts:
            raise BenchError("no prompts to encode: every class needs at least one")
        tokenize = tokens.tokenizer(self.spec)
        ids_PL = tokenize(list(prompts))
        tokens.warn_if_cut(tokenize, prompts, ids_PL)
        if text.is_causal(self.spec.config):
            return self.text.encode_ids(ids_PL).float()
        with torch.no_grad():
            parts = [
                self.model.encode_text(ids.to(self.device), normalize=False)
                for ids in torch.split(ids_PL, text.CHUNK)
            ]
        return torch.cat(parts).float()
