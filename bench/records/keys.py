"""The two identities of a number: fit key and evaluation key.

Whatever can change a number (docs/architecture.md, "What can change a number") is in its key, and nothing
else is: no path, no device, no number of workers, no schema. A field that has its default is left out of the
digest, so that a field which is added later leaves the keys of old records alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from bench.errors import BenchError
from bench.files import digest

# Counts up when the harness itself (draws, views, encoding, training, selection) would give other numbers for
# equal keys. It stands in every new key; the field's default stays 1, the number of the first keys.
# Since November 2026 a grid point whose training diverged is never chosen, and 1 stayed: only fits in which a
# point diverged can choose otherwise, and no committed record chose such a point. The next rise includes it.
ENGINE = 1

# What an image tower computes in: name -> torch's name, which is in the fit key.
SINGLE = "fp32"
PRECISIONS = {SINGLE: "float32", "fp16": "float16", "bf16": "bfloat16"}

Count = Annotated[int, Meta(ge=0, le=2**62)]  # what an array of whole numbers can hold
Shots = Count | Literal["all"]
Hex = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


def dtype(precision: str) -> str:
    """Torch's name for a precision. Raises BenchError for one that is none of ``PRECISIONS``."""
    if precision not in PRECISIONS:
        raise BenchError(f"--precision {precision}: choose {', '.join(PRECISIONS)}, or auto")
    return PRECISIONS[precision]


class FitKey(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Everything that may change a fit.

    ``source``: for a method that does not come with the program, the digest of its file and of the modules
    that it imports from its own folder; of the program's own methods ``version`` stands for the source.
    ``settings``: those that a fit can read, ``Method.inference`` left out. ``recipe``: the resolved
    ``bench.interface.Recipe``. ``dataset``: digest of lists, labels and class names, and of the images'
    contents where the record's ``dataset_covers`` says so. ``classes``: which of them the fit may learn.
    ``draw``: digest of the drawn paths; ``draw_kind``: how they were drawn. ``preprocessing``: from an image
    file to the tower's input. ``prompts``: digest of the strings and of how they are averaged; ``sentences``:
    they were not made from templates. ``after``: keys of the fits below it, by role.
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
    draw_kind: Literal["few-shot", "fold"] = "few-shot"
    engine: int = 1

    def digest(self) -> str:
        """SHA-256 (hex), the name of the fit. Raises BenchError where a value has no JSON."""
        return _name(self, f"{self.method}: its settings or recipe")


class EvaluationKey(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Everything that may change an evaluation of a fit.

    ``fit``: digest of its key. ``target``: digest of the test set, and of the class subset that it is scored
    among. ``values``: the inference-time values, None where the fit's own choice counts. ``text``: digest of
    the target's own class names and prompts, where it has some. ``opening``: how the target's image files are
    opened, where that is not as published.
    """

    fit: str
    target: str
    values: dict[str, Any] = {}
    text: str = ""
    opening: str = ""

    def digest(self) -> str:
        """SHA-256 (hex), the name of the evaluation. Raises BenchError where a value has no JSON."""
        return _name(self, "the values that act at inference")


def plain(value: Any) -> Any:
    """A NumPy scalar as Python's own number, for JSON. Raises NotImplementedError for what has none."""
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"{type(value).__name__} has no JSON")


def _name(key: FitKey | EvaluationKey, what: str) -> str:
    try:
        return digest(msgspec.to_builtins(key, enc_hook=plain))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise BenchError(
            f"{what} cannot be in a key: {error}; use finite numbers, words and tuples of them"
        ) from error
