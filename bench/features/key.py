"""Make the keys of stored feature sets, which hold all that may change a number, and nothing else.

This module imports no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.data.imagefile import opening_of
from bench.data.views import parse, preprocessing

if TYPE_CHECKING:
    from bench.clip.backbone import BackboneSpec
    from bench.data.dataset import ImageSource

# The version of the arithmetic that makes features. Raise it when equal keys would get other values, even if
# only in the last bits. It is in no fit's key, because rounding is in none.
ARITHMETIC = 1
_UNSAFE = re.compile(r"[^A-Za-z0-9.+-]+")


@dataclass(frozen=True)
class FeatureKey:
    """The name of one set of features. Rows inside a set are found by the image's split-relative path.

    ``weights`` is the SHA-256 (hex) of the weights, the architecture and its activation. ``dataset`` is
    ``Dataset.stored_as``. ``dtype`` is the precision in which the tower computed; stored rows are always
    float16. ``device`` is the device type. ``batch`` is the number of rows that passed the tower at a time; 0
    stands for features from before November 2026, with as many as there were, which nothing reads any more.
    ``arithmetic`` is the ``ARITHMETIC`` of the program that made them; 0 stands for features from before it
    existed, which are not read any more either.
    """

    arch: str
    weights: str
    preprocessing: str
    dataset: str
    tap: str
    view: str
    dtype: str = "float32"
    device: str = "cpu"
    batch: int = 0
    arithmetic: int = 0

    @property
    def folder(self) -> str:
        """Return the name of the set's folder below the store's root.

        It is safe in a file system, short and readable.
        """
        view = self.view.replace("#", ".").replace(",noflip", "n").replace("(", "").replace(")", "")
        parts = (
            self.arch,
            self.weights[:12],
            self.preprocessing,
            self.dataset[:12],
            self.tap,
            view,
            self.dtype,
        )
        numbers = (("b", self.batch), ("a", self.arithmetic))
        ends = (self.device, *(f"{sign}{number}" for sign, number in numbers if number))
        return "_".join(_UNSAFE.sub("-", part) for part in (*parts, *ends))


def feature_key(
    spec: BackboneSpec,
    stored_as: str,
    tap: str,
    view: str,
    dtype: str = "float32",
    device: str = "cpu",
    batch: int = 0,
    *,
    source: ImageSource,
) -> FeatureKey:
    """Make the key of one tap of one view of the images of ``source``; ``device`` is a type: cpu or cuda."""
    how = prepared(spec, source)
    view = str(parse(view))
    return FeatureKey(
        spec.arch, spec.digest, how, stored_as, tap, view, dtype, device, batch, arithmetic=ARITHMETIC
    )


def prepared(spec: BackboneSpec, source: ImageSource | None = None) -> str:
    """Return a short text for the way from an image file to a backbone's input.

    It is in the keys of features and of fits. It ends in how ``source`` opens its images. If they are opened
    as published, or ``source`` is None, nothing is added.
    """
    how = spec.preprocess
    name = preprocessing(spec.image_size, how.mean, how.std, how.interpolation, how.resize_mode)
    opening = opening_of(source)
    return f"{name}+{opening}" if opening else name
