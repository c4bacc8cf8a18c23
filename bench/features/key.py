"""What makes stored feature sets the same: all that may change a number, and nothing else. No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.data.imagefile import opening_of
from bench.data.views import parse, preprocessing

if TYPE_CHECKING:
    from bench.clip.backbone import BackboneSpec
    from bench.data.dataset import ImageSource

# How values come about, beside what a key says: raise it when equal keys would get other values, be it in the
# last bits. Fits do not hold it: rounding is in no fit's key.
ARITHMETIC = 1
_UNSAFE = re.compile(r"[^A-Za-z0-9.+-]+")


@dataclass(frozen=True)
class FeatureKey:
    """Names one set of features; rows inside a set are found by the image's split-relative path.

    ``weights`` is the SHA-256 (hex) of the weights, the architecture and its activation, ``dataset`` what
    ``Dataset.stored_as`` says; ``dtype`` is what the tower computed in (stored rows are always float16),
    ``device`` the device type, ``batch`` how many rows passed the tower at a time (0: as many as there were,
    as features of before November 2026 were made; nothing reads these any more). ``arithmetic``: the
    ``ARITHMETIC`` of the program that made them (0: of before there was one; not read any more either).
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
        """The set's folder below the store's root: safe in a file system, short, and telling to a reader."""
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
    """The key of one tap of one view of the images of ``source``; ``device`` is a type: cpu or cuda."""
    how = prepared(spec, source)
    view = str(parse(view))
    return FeatureKey(
        spec.arch, spec.digest, how, stored_as, tap, view, dtype, device, batch, arithmetic=ARITHMETIC
    )


def prepared(spec: BackboneSpec, source: ImageSource | None = None) -> str:
    """The way from an image file to a backbone's input, in short; in the keys of features and of fits.

    It ends in how ``source`` opens its images, and in nothing where that is as published (``source`` None).
    """
    how = spec.preprocess
    name = preprocessing(spec.image_size, how.mean, how.std, how.interpolation, how.resize_mode)
    opening = opening_of(source)
    return f"{name}+{opening}" if opening else name
