"""Show the most confident mistakes of one fit as small pictures that lie in the page itself.

A picture is shown only if the dataset that is found is the one that the record was made from, image by image.
Otherwise a sentence says why there is none.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bench.data import catalog
from bench.errors import BenchError
from bench.metrics import Outputs
from bench.report.html.text import escape

if TYPE_CHECKING:
    from PIL import Image

    from bench.data.dataset import Dataset

EACH = 12  # most pictures of a dataset
ALL = 240  # most pictures of a page: about 1 MB
SIDE = 96  # px of a picture's longer side
_QUALITY = 82  # of JPEG

Find = Callable[[str], "Dataset"]


@dataclass
class Gallery:
    """The pictures of a page.

    ``find`` returns the dataset of a name with its images, under the digest that the image files have now. It
    raises BenchError where they are not here. ``left``: how many more pictures the page may have. ``cut``:
    the datasets that got none for that reason.
    """

    find: Find
    left: int = ALL
    cut: list[str] = field(default_factory=list)

    def mistakes(self, name: str, digest: str, outputs: Outputs, class_name: Callable[[int], str]) -> str:
        """Write the wrong predictions with the highest probabilities, the highest first.

        ``name``, ``digest``: the test set, as the record has it. Without pictures, write why.
        """
        if not outputs.has(("logp",)):
            return _none("the records keep no probabilities of single images")
        confidence = outputs.confidence()
        wrong = np.flatnonzero(~outputs.right)
        if not len(wrong):
            return "<p>No test image is classified wrongly.</p>"
        if not self.left:
            self.cut.append(name)
            return _none(f"the page has {ALL} pictures already")
        order = wrong[np.argsort(-confidence[wrong], kind="stable")][: min(EACH, self.left)]
        try:
            dataset = self.find(name)
            if why := _other(dataset, digest, outputs):
                return _none(why)
            shown = [(int(i), _uri(dataset.source.open(dataset.test.paths[i]))) for i in order]
        except BenchError as error:
            return _none(str(error).splitlines()[0].rstrip("."))
        self.left -= len(shown)
        items = "".join(
            _item(
                uri,
                size,
                dataset.test.paths[i],
                class_name(int(outputs.labels[i])),
                class_name(int(outputs.top1[i])),
                float(confidence[i]),
            )
            for i, (uri, size) in shown
        )
        many = f" ({len(shown)} of {len(wrong)} mistakes)" if len(wrong) > len(shown) else ""
        return f'<p>Wrong predictions with the highest probability{many}:</p><ul class="gallery">{items}</ul>'


def of_catalog(name: str) -> Dataset:
    """Return an embedded dataset of that name, whose digest covers its images.

    Raises BenchError for other datasets, whose files would have to be compared with those that were used.
    """
    found = catalog.find(name, None)
    if found.lists:
        raise BenchError(f"the image files of {name} were not compared with those that were used")
    return found


def _other(dataset: Dataset, digest: str, outputs: Outputs) -> str:
    """Return why the images are not those of the record, or "" if they are."""
    if dataset.digest != digest:
        return f"{dataset.name} has changed since the records were made"
    if not np.array_equal(np.asarray(dataset.test.labels), outputs.labels):
        return f"the labels of {dataset.name} are not those of the records"
    return ""


def _none(why: str) -> str:
    return f'<p class="absent">No mistakes are shown, because {escape(why)}.</p>'


def _uri(image: Image.Image) -> tuple[str, tuple[int, int]]:
    """Return a small copy of an image as a data URI, with its width and height."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}", small.size


def _item(uri: str, size: Sequence[int], path: str, true: str, predicted: str, confidence: float) -> str:
    width, height = size
    alt = escape(f"Test image {path}")
    return (
        f'<li><img src="{uri}" width="{width}" height="{height}" alt="{alt}" title="{escape(path)}">'
        f"<p>{escape(true)}, taken for <b>{escape(predicted)}</b> ({100 * confidence:.1f} %)</p></li>"
    )
