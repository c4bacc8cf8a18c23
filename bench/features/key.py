"""What makes two stored feature sets the same: everything that may change a number, and nothing else. No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNSAFE = re.compile(r"[^A-Za-z0-9.+-]+")


@dataclass(frozen=True)
class FeatureKey:
    """Names one set of features; rows inside a set are found by the image's split-relative path.

    ``tower`` is the architecture (with its activation), ``weights`` and ``dataset`` are SHA-256 digests (hex),
    ``dtype`` is what the tower computed in (stored rows are always float16), ``device`` the device type.
    """

    tower: str
    weights: str
    preprocessing: str
    dataset: str
    tap: str
    view: str
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def folder(self) -> str:
        """The set's folder below the store's root: safe in a file system, short, and telling to a reader."""
        view = self.view.replace("#", ".").replace(",noflip", "n").replace("(", "").replace(")", "")
        parts = (self.tower, self.weights[:12], self.preprocessing, self.dataset[:12], self.tap, view, self.dtype)
        return "_".join(_UNSAFE.sub("-", part) for part in (*parts, self.device))
