"""List the metrics by name, with what a table and an interval need to know of each."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.metrics import calibration, classes, curves, ranking
from bench.metrics.calibration import Binned
from bench.metrics.outputs import Array, Outputs, checked

PerImage = Callable[[Outputs], NDArray[Any]]


def _no_excess(_: Outputs) -> float:
    return 0.0


@dataclass(frozen=True)
class Metric:
    """A number that says how good one fit is on a test set.

    ``title`` names it in words, ``heading`` in a column. ``unit`` is "%", "nats" or "". A table prints the
    natural value times ``scale`` with ``digits`` decimals. ``needs``: the fields of ``Outputs`` that it reads
    besides the labels and predictions. ``bounds``: the natural values that are possible.
    ``convention``: what a note below a table says about it, or "".
    """

    name: str
    title: str
    heading: str
    unit: str
    digits: int
    lower_is_better: bool
    needs: tuple[str, ...]
    bounds: tuple[float, float]
    image_values: PerImage
    excess_of: Callable[[Outputs], float] = _no_excess
    convention: str = ""

    @property
    def scale(self) -> float:
        """100 for percent, else 1."""
        return 100.0 if self.unit == "%" else 1.0

    def can(self, outputs: Outputs) -> bool:
        """Return whether the evaluation kept what the metric needs."""
        return outputs.has(self.needs)

    def value(self, outputs: Outputs) -> float:
        """Return the metric of one fit in natural units: shares from 0 to 1, or nats.

        Raises ValueError if the evaluation did not keep what the metric needs.
        """
        return float(np.mean(self._values(outputs), dtype=np.float64))

    def per_image(self, outputs: Sequence[Outputs]) -> NDArray[Any]:
        """Return values (S, n), a row for each seed's outputs, whose mean by row is ``value`` of that seed.

        They go into bench.stats in place of right and wrong answers. For metrics that are means over images
        they are the terms of the mean. For the others they are influence values (infinitesimal jackknife):
        the metric plus n times its derivative by the weight of each image. Their variance over n is the
        variance of the metric to first order. Raises ValueError if the seeds' test images differ, or if one
        did not keep what the metric needs.
        """
        return np.stack([self._values(one) for one in checked(outputs)])

    def excess(self, outputs: Sequence[Outputs]) -> float:
        """Return by how much, at most, the mean of ``value`` over seeds is expected to exceed the truth.

        The truth is the metric on endless test images. The excess is 0 but for calibration errors, which
        chance makes the larger the fewer images there are. An interval of ``per_image`` says what other
        images of the same number would give. With its lower end that much further down
        (``bench.stats.lowered``) it contains the true error too.
        """
        return float(np.mean([self.excess_of(one) for one in checked(outputs)]))

    def _values(self, outputs: Outputs) -> NDArray[Any]:
        missing = [name for name in self.needs if getattr(outputs, name) is None]
        if missing:
            raise ValueError(
                f"{self.name} needs {', '.join(missing)}, which this evaluation did not keep; run it again"
            )
        return self.image_values(outputs)


Binning = Callable[[Array], Binned]


def _ece(outputs: Outputs, binning: Binning, after: bool = False) -> Array:
    confidence = outputs.confidence(after)
    return calibration.influence(confidence, outputs.right, binning(confidence))


def _ece_excess(outputs: Outputs, binning: Binning, after: bool = False) -> float:
    confidence = outputs.confidence(after)
    return calibration.excess(confidence, outputs.right, binning(confidence))


_CAL: Binning = partial(calibration.bins, number=calibration.CAL_BINS, closed="left")
_SHARE = (0.0, 1.0)
_ENDLESS = (0.0, float("inf"))
_T = ("lse_t", "temperature")
# What a reader has to know of the temperature.
SCALING = (
    "The temperature is fitted on validation images. It is 1 for methods without validation images, such as "
    "zero-shot."
)
_AFTER = f" Probabilities are those after temperature scaling. {SCALING}"


def _calibration(name: str, title: str, heading: str, binning: Binning, said: str, after: bool) -> Metric:
    return Metric(
        name,
        title,
        heading,
        "%",
        2,
        True,
        ("logp", *_T) if after else ("logp",),
        _SHARE,
        partial(_ece, binning=binning, after=after),
        partial(_ece_excess, binning=binning, after=after),
        f"{said}{_AFTER if after else ''} Fewer test images make it larger by chance.",
    )


_15 = "ECE has 15 bins of equal width, closed on the right."
_BRIER = "The Brier score is the sum over classes, from 0 to 2."

_ALL = (
    Metric("top1", "accuracy", "accuracy", "%", 2, False, (), _SHARE, ranking.top1),
    Metric("top5", "top-5 accuracy", "top-5", "%", 2, False, ("classes",), _SHARE, ranking.top5),
    Metric(
        "balanced",
        "balanced accuracy",
        "balanced",
        "%",
        2,
        False,
        (),
        _SHARE,
        classes.balanced,
        convention="Balanced accuracy is the mean over classes of their accuracy.",
    ),
    Metric(
        "macro-f1",
        "macro-F1",
        "macro-F1",
        "%",
        2,
        False,
        (),
        _SHARE,
        classes.macro_f1,
        convention="Macro-F1 is the mean of F1 over the classes that occur among labels or predictions.",
    ),
    Metric("nll", "negative log-likelihood", "NLL", "nats", 3, True, ("true_logp",), _ENDLESS, ranking.nll),
    Metric(
        "nll-after",
        "negative log-likelihood after temperature scaling",
        "NLL after T",
        "nats",
        3,
        True,
        ("true_logp", *_T),
        _ENDLESS,
        partial(ranking.nll, after=True),
        convention=_AFTER.strip(),
    ),
    Metric(
        "brier",
        "Brier score",
        "Brier",
        "",
        4,
        True,
        ("true_logp", "squares"),
        (0.0, 2.0),
        ranking.brier,
        convention=_BRIER,
    ),
    Metric(
        "brier-after",
        "Brier score after temperature scaling",
        "Brier after T",
        "",
        4,
        True,
        ("true_logp", "squares_t", *_T),
        (0.0, 2.0),
        partial(ranking.brier, after=True),
        convention=_BRIER + _AFTER,
    ),
    _calibration("ece", "expected calibration error", "ECE", calibration.bins, _15, False),
    _calibration(
        "ece-after",
        "expected calibration error after temperature scaling",
        "ECE after T",
        calibration.bins,
        _15,
        True,
    ),
    _calibration(
        "ece-cal",
        "expected calibration error as CLIP_Calibration computes it",
        "ECE-10",
        _CAL,
        "ECE-10 has 10 bins of equal width, closed on the left (protocol 24.5).",
        False,
    ),
    _calibration(
        "ece-mass",
        "expected calibration error over bins of equal mass",
        "ECE mass",
        calibration.mass_bins,
        "ECE mass has 15 bins of as many images each.",
        False,
    ),
    Metric(
        "aurc",
        "area under the risk-coverage curve",
        "AURC",
        "%",
        2,
        True,
        ("logp",),
        _SHARE,
        curves.aurc,
        convention="AURC is the mean share of errors among the k surest predictions, over all k.",
    ),
)
METRICS: dict[str, Metric] = {one.name: one for one in _ALL}
# Other words for metrics, which are offered in place of a name that merely looks alike: auc is no accuracy.
_OFTEN = {"acc": "top1", "accuracy": "top1", "f1": "macro-f1", "auc": "aurc", "likelihood": "nll"}


def metric(name: str) -> Metric:
    """Return the metric of that name. Raises ValueError for an unknown one, with the nearest names."""
    if name not in METRICS:
        often = [_OFTEN[name]] if name in _OFTEN else []
        near = often or difflib.get_close_matches(name, METRICS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"there is no metric {name!r}{hint} (metrics: {', '.join(METRICS)})")
    return METRICS[name]


def values(outputs: Outputs, names: Iterable[str] = tuple(METRICS)) -> dict[str, float]:
    """Return every metric, or those of ``names``, that the evaluation can tell, in natural units."""
    return {name: METRICS[name].value(outputs) for name in names if METRICS[name].can(outputs)}
