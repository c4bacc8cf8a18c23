"""Define the two identities of a number: the key of its fit and the key of its evaluation.

A key holds whatever can change a number (docs/architecture.md, "What can change a number"), and nothing else:
no path, no device, no number of workers, no schema. A field with its default value is left out of the digest.
So a field that is added later does not change the keys of old records.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from bench.errors import BenchError
from bench.files import digest

# This number rises when the harness itself (draws, views, encoding, training, selection) would give other
# numbers for equal keys. It stands in every new key. The field's default stays 1, the number of the first
# keys. Since November 2026 a grid point whose training diverged is never chosen. The number stayed 1 then:
# only fits in which a point diverged can choose otherwise, and no committed record chose such a point. The
# next rise includes that change.
ENGINE = 1

# The precisions of an image tower, by the names that users write. The fit key holds torch's name.
SINGLE = "fp32"
PRECISIONS = {SINGLE: "float32", "fp16": "float16", "bf16": "bfloat16"}

Count = Annotated[int, Meta(ge=0, le=2**62)]  # what an array of whole numbers can hold
ALL: Literal["all"] = "all"  # the shots of a fold: all labelled images but those that it tests
Shots = Count | Literal["all"]
# How images are drawn. Use these objects: msgspec leaves a field out only if it holds the default object.
FEW_SHOT: Literal["few-shot"] = "few-shot"
FOLD: Literal["fold"] = "fold"
Hex = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


def dtype(precision: str) -> str:
    """Return torch's name for a precision. Raises BenchError if it is none of ``PRECISIONS``."""
    if precision not in PRECISIONS:
        raise BenchError(f"--precision {precision}: choose {', '.join(PRECISIONS)}, or auto")
    return PRECISIONS[precision]


class FitKey(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Everything that may change a fit.

    - ``settings``: the settings that a fit can read, without those of ``Method.inference``.
    - ``recipe``: the resolved ``bench.interface.Recipe``.
    - ``dataset``: digest of lists, labels and class names, and of the images' contents where the record's
      ``dataset_covers`` says so. ``classes``: which classes the fit may learn.
    - ``draw``: digest of the drawn paths. ``draw_kind``: how they were drawn. For a ``fold``, ``shots`` is
      ``all``, ``seed`` is the number of the fold, and ``dataset`` is the digest of the fold's lists.
    - ``weights``: digest of the backbone's weights and architecture.
    - ``preprocessing``: the steps from an image file to the input of the image tower.
    - ``prompts``: digest of the strings and of how they are averaged. ``sentences``: whether the strings were
      not made from templates.
    - ``encode_dtype``: torch's name of the image tower's precision.
    - ``after``: the keys of the fits that this one builds on, by role.
    - ``source``: for a method that does not come with the program, the digest of its file and of the modules
      that it imports from its own folder. For the program's own methods ``version`` stands for the source.
    - ``engine``: the version of the harness (``ENGINE``).
    """

    method: str
    version: int
    settings: dict[str, Any]
    recipe: dict[str, Any]
    dataset: str
    draw: str
    shots: Shots
    seed: Count
    weights: str
    preprocessing: str
    prompts: str
    protocol: str
    encode_dtype: str
    after: dict[str, Hex] = {}
    source: str = ""
    sentences: bool = False
    classes: str = "all"
    draw_kind: Literal["few-shot", "fold"] = FEW_SHOT
    engine: int = 1

    def digest(self) -> str:
        """Return the SHA-256 (hex) that names the fit. Raises BenchError if a value has no JSON."""
        return _name(self, f"{self.method}: its settings or recipe")


class EvaluationKey(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Everything that may change an evaluation of a fit.

    - ``fit``: digest of the fit's key.
    - ``target``: digest of the test set, and of the subset of classes that it is scored among.
    - ``values``: the inference-time values; None where the fit's own choice counts.
    - ``text``: digest of the test set's own class names and prompts, if it has some.
    - ``opening``: how the test set's image files are opened; empty for the published way.
    - ``imported``: for predictions that were made elsewhere, their digest.
    """

    fit: str
    target: str
    values: dict[str, Any] = {}
    text: str = ""
    opening: str = ""
    imported: str = ""

    def digest(self) -> str:
        """Return the SHA-256 (hex) that names the evaluation. Raises BenchError if a value has no JSON."""
        return _name(self, "the values that act at inference")


def plain(value: Any) -> Any:
    """Return a NumPy scalar as a Python number, for JSON. Raises NotImplementedError for other types."""
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"{type(value).__name__} has no JSON")


def _name(key: FitKey | EvaluationKey, what: str) -> str:
    # msgspec leaves a field out if it holds the default object; here it is left out if the value is equal.
    usual = {f.name: f.default for f in msgspec.structs.fields(type(key))}
    try:
        values = msgspec.to_builtins(key, enc_hook=plain)
        return digest({name: value for name, value in values.items() if value != usual[name]})
    except (TypeError, ValueError, NotImplementedError) as error:
        raise BenchError(
            f"{what} cannot be in a key: {error}; use finite numbers, words and tuples of them"
        ) from error
