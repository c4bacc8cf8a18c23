"""Zero-shot CLIP: the text features of the classes are the classifier (protocol 4)."""

from __future__ import annotations

from typing import ClassVar

from bench.interface import POOLED, Consts, Features, Method, Params, Tensor, Values, cosine_logits


class ZeroShot(Method):
    """Score an image by the cosine between its embedding and the text features of every class.

    No label is used and nothing is trained. The logits are s * norm(f) W^T, where W holds one row of length
    one per class. Tables show one row for each of two prompt sets: ``coop`` has a single template per
    dataset, ``hand`` has seven on ImageNet.

    Source: Radford et al. 2021 (protocol 4).
    Deviates: nothing known. The row that the SAFE paper prints is the one with ``coop``.
    """

    name = "zero-shot"
    title = "Zero-shot CLIP"
    cite = "Radford et al. 2021"
    uses_labels = False
    prompts: ClassVar[tuple[str, ...]] = ("coop", "hand")

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        return cosine_logits(features[POOLED], consts["W_KC"], consts["scale"])
