"""Zero-shot CLIP (protocol 4): logits = s * norm(f) W^T."""

from __future__ import annotations

from typing import ClassVar

from bench.interface import POOLED, Consts, Features, Method, Params, Tensor, Values, cosine_logits


class ZeroShot(Method):
    name = "zero-shot"
    title = "Zero-shot CLIP"
    cite = "Radford et al. 2021"
    uses_labels = False
    prompts: ClassVar[tuple[str, ...]] = ("coop", "hand")

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        return cosine_logits(features[POOLED], consts["W_KC"], consts["scale"])
