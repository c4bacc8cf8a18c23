"""Hold what one fit said about the test images of one evaluation, and read confidences from it.

Legend: S seeds, n test images, K classes of the test set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# A fitted temperature is kept between these bounds. Protocol 24.6 keeps the logarithm of the scale within
# [ln 1, ln 1000], which are these bounds for CLIP's scale of 100.
TEMPERATURES = (0.1, 100.0)
_PER_IMAGE = ("top1", "rank", "true_logp", "squares", "lse_t", "squares_t")


@dataclass(frozen=True, eq=False)
class Outputs:
    """What one fit said about n test images of K classes. A field that was not kept is None.

    - ``labels``, ``top1`` (n,): true and predicted class, from 0 to K - 1.
    - ``classes`` (n, m): the best m classes, best first, padded with -1 (m is 5 in records).
    - ``logp`` (n, m): log-probabilities of ``classes`` in nats, padded with -inf.
    - ``rank`` (n,): rank of the true class, from 0.
    - ``true_logp`` (n,): log-probability of the true class in nats.
    - ``squares`` (n,): sum over the K classes of the squared probability.
    - ``lse_t``, ``squares_t`` (n,): at the temperature T, the log-sum-exp of (log-probabilities / T) over
      the K classes, and the sum of the squared probabilities.
    - ``temperature``: T of the fit; 1.0 where nothing could be fitted.

    Raises ValueError for arrays that do not fit together, classes beyond K, probabilities above 1, NaN, and
    temperatures that are not positive.
    """

    labels: NDArray[Any]
    top1: NDArray[Any]
    K: int
    classes: NDArray[Any] | None = None
    logp: NDArray[Any] | None = None
    rank: NDArray[Any] | None = None
    true_logp: NDArray[Any] | None = None
    squares: NDArray[Any] | None = None
    lse_t: NDArray[Any] | None = None
    squares_t: NDArray[Any] | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be true, so that no metric is computed from it."""
        if np.ndim(self.labels) != 1 or len(self.labels) == 0:
            raise ValueError(f"outputs need one label per test image, not shape {np.shape(self.labels)}")
        n = len(self.labels)
        for name in _PER_IMAGE:
            array = getattr(self, name)
            if array is not None and np.shape(array) != (n,):
                raise ValueError(f"{name} needs one value for each of {n} labels, not {np.shape(array)}")
        for name in ("classes", "logp"):
            array = getattr(self, name)
            if array is not None and (array.ndim != 2 or len(array) != n or array.shape[1] == 0):
                raise ValueError(f"{name} needs a row for each of {n} labels, not shape {np.shape(array)}")
        if self.classes is not None and self.logp is not None and self.classes.shape != self.logp.shape:
            raise ValueError(f"classes {self.classes.shape} and logp {self.logp.shape} need one shape")
        self._check_values()

    def _check_values(self) -> None:
        for name, least in (("labels", 0), ("top1", 0), ("rank", 0), ("classes", -1)):
            array = getattr(self, name)
            if array is None:
                continue
            if np.asarray(array).dtype.kind not in "iu":
                raise ValueError(f"{name} needs whole numbers, not {np.asarray(array).dtype}")
            if array.min() < least or array.max() >= self.K:
                raise ValueError(
                    f"{name} holds {array.min()} to {array.max()}, "
                    f"but the test set has the classes 0 to {self.K - 1}"
                )
        for name in ("logp", "true_logp", "squares", "lse_t", "squares_t"):
            array = getattr(self, name)
            if array is not None and np.isnan(array).any():
                raise ValueError(f"{name} holds a NaN")
        for name in ("logp", "true_logp"):
            array = getattr(self, name)
            if array is not None and array.max() > _ROUNDING:
                raise ValueError(f"{name} holds a probability above 1 (its logarithm is {array.max():.3g})")
        if self.temperature is not None and not 0 < self.temperature < np.inf:
            raise ValueError(f"a temperature is a positive number, not {self.temperature}")

    @property
    def n(self) -> int:
        """The number of test images."""
        return len(self.labels)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Return whether each prediction is right, (n,)."""
        return np.asarray(self.top1 == self.labels)

    def has(self, names: Sequence[str]) -> bool:
        """Return whether all of these fields were kept."""
        return all(getattr(self, name) is not None for name in names)

    def kept(self, name: str) -> Array:
        """Return an array as float64. Raises ValueError if it was not kept."""
        array = getattr(self, name)
        if array is None:
            raise ValueError(f"this evaluation kept no {name}; run it again to have it")
        return np.asarray(array, dtype=np.float64)

    def confidence(self, after: bool = False) -> Array:
        """Return the probability of the predicted class (n,), after temperature scaling if ``after``.

        It is the probability of the best class. Raises ValueError if the evaluation kept no probabilities.
        """
        best = self.kept("logp")[:, 0]
        if after:
            # Both terms are rounded to float32 in records, so their difference may exceed 0 by a last digit.
            best = best / self.kept_temperature() - self.kept("lse_t")
        return np.exp(np.minimum(best, 0.0))

    def kept_temperature(self) -> float:
        """Return the temperature. Raises ValueError if none was kept."""
        if self.temperature is None:
            raise ValueError("this fit kept no temperature; run it again to have one")
        return self.temperature


_ROUNDING = 1e-5  # what float32 may leave of the logarithm of 1


def checked(outputs: Sequence[Outputs]) -> Sequence[Outputs]:
    """Return the outputs of several seeds as they are.

    Raises ValueError if there is none, or if their test images differ.
    """
    if not outputs:
        raise ValueError("a metric needs the outputs of at least one seed")
    first = outputs[0]
    for one in outputs[1:]:
        if one.K != first.K or not np.array_equal(one.labels, first.labels):
            raise ValueError("seeds can be taken together only if their test images are the same")
    return outputs
