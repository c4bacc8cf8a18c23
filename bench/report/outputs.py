"""Read what evaluations keep of every test image, in the form that ``bench.metrics`` takes.

Legend: S seeds, n test images, K classes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.files import Stamp, stamp_if_there
from bench.metrics import Outputs
from bench.records import outcomes, packed, store
from bench.records.types import EvaluationRecord

_MOST = 256 << 20  # bytes of outputs in memory: 128 evaluations on 50,000 images
_Key = tuple[str, tuple[Stamp | None, ...]]


def outputs_of(path: str | Path) -> Outputs:
    """Return what the evaluation whose record lies at ``path`` keeps of its n test images.

    Arrays that it does not keep are None: an older record, or a packed one without outputs, has the predicted
    and the true classes alone. ``K`` is the number of classes of the test set, as the record's counts by
    class say; for a record without them it is one more than the largest class that occurs. ``temperature`` is
    that of ``lse_t`` and ``squares_t``, None without these. The arrays are compared with the record's
    checksums.

    Raises BenchError if the record or its predictions are gone, or are not its own.
    """
    name = str(path)
    own = stamp_if_there(name)
    arrays = own and stamp_if_there(name.removesuffix(".json") + ".npz")
    # The stamps of the files are part of the name under which outputs are kept, so a changed file is read.
    return _kept.get(Path(name), (own, arrays) if own else packed.stamps(Path(name)))


def stacked_outputs(paths: Sequence[str | Path]) -> list[Outputs]:
    """Return the outputs of these evaluations, one for each seed, all over the same K classes.

    Raises BenchError as ``outputs_of`` does, and if the evaluations have different test sets.
    """
    every = [outputs_of(path) for path in paths]
    if any(not np.array_equal(one.labels, every[0].labels) for one in every[1:]):
        raise BenchError(f"{paths[0]}: other seeds were measured on another test set; run the cell again")
    K = max(one.K for one in every)  # what an older record has alone is the largest class that it saw
    return [one if one.K == K else replace(one, K=K) for one in every]


class _Kept:
    """The outputs that were read last, up to ``_MOST`` bytes of arrays."""

    def __init__(self) -> None:
        self.size = 0
        self.found: OrderedDict[_Key, tuple[Outputs, int]] = OrderedDict()

    def get(self, path: Path, stamps: tuple[Stamp | None, ...]) -> Outputs:
        """Return the outputs of a record, whose files have these stamps."""
        key = (str(path), stamps)
        if key in self.found:
            self.found.move_to_end(key)
            return self.found[key][0]
        read = _read(path)
        size = sum(x.nbytes for x in vars(read).values() if isinstance(x, np.ndarray))
        self.found[key] = read, size
        self.size += size
        while self.size > _MOST and len(self.found) > 1:
            _, (_, gone) = self.found.popitem(last=False)
            self.size -= gone
        return read


_kept = _Kept()


def _read(path: Path) -> Outputs:
    record = store.read(path)
    if not isinstance(record, EvaluationRecord):
        raise BenchError(f"{path}: this record was deleted meanwhile; load the results again")
    arrays = store.arrays(path, record)
    if "classes" not in arrays and "top5" in arrays:
        arrays["classes"] = _without_repeats(arrays["top5"])
    K = len(record.per_class.images) if record.per_class else _number(arrays)
    try:
        return outcomes.outputs(arrays, K, record.temperature)
    except ValueError as error:
        raise BenchError(f"{path}: damaged ({error}); run the cell again") from error


def _without_repeats(top5: NDArray[Any]) -> NDArray[np.int64]:
    """Return the best five classes (n, 5) of an older record, padded as in newer ones.

    Older records repeat the last class where a test set has fewer than five.
    """
    classes = top5.astype(np.int64)
    again = classes[:, 1:] == classes[:, :-1]
    classes[:, 1:][again] = -1
    return classes


def _number(arrays: Mapping[str, NDArray[Any]]) -> int:
    """Return one more than the largest class that occurs."""
    return 1 + max(int(arrays[name].max()) for name in ("labels", "top1", "classes") if name in arrays)
