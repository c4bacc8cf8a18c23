"""Encode into the feature store what the cells of a portion read, and find the cells that cannot go on.

Texts are encoded first. If they cannot tell classes apart, no image is encoded for the cells that read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.clip.backbone import BackboneSpec
from bench.data import seen
from bench.data.dataset import Dataset
from bench.errors import UnreadableImage
from bench.features.wanted import Wanted
from bench.names import counted
from bench.plan import needs
from bench.plan.cells import Evaluation, Planned, chain
from bench.plan.needs import Need, Taps
from bench.plan.todo import Fresh, Todo
from bench.run import stages
from bench.run.session import Session

_NAMED = 5  # most unreadable images of a dataset that messages name; records name the others
Place = tuple[str, str]  # (backbone's digest, name of the stored features)


@dataclass
class Encoded:
    """The result for a portion: the cells that can go on, those that cannot with their errors, and a count.

    ``encodes``: how many image x view passes through the tower were made.
    """

    ready: list[Todo]
    stopped: list[tuple[Todo, Exception]]
    encodes: int


class Encoder:
    """An encoder of one portion after the other. It encodes an image x view once for the whole run."""

    def __init__(self, session: Session, fresh: Fresh) -> None:
        self.session, self.fresh = session, fresh
        self.taps: dict[str, Taps] = {}  # by the backbone's digest
        self.texts: dict[tuple[str, str, tuple[str, ...]], Exception | None] = {}  # None: no error
        self.bad: dict[Place, dict[str, UnreadableImage]] = {}  # unreadable images of the portion, by path

    def begin(self, todo: Iterable[Todo]) -> None:
        """Work out everything that the run will read, so that one pass of an image serves every tap."""
        reads = [(t.fit.backbone.digest, need) for t in todo for need in self._reads(t)]
        towers = {tower for tower, _ in reads}
        self.taps = {tower: needs.taps_by_view(n for s, n in reads if s == tower) for tower in towers}

    def lacking(self, todo: Sequence[Todo]) -> int | None:
        """Return how many image x view passes the run will make. Call ``begin`` first.

        Return None if a backbone does not load; ``encode`` then reports why. Raises OSError as ``encode``
        does.
        """
        reads = [(t.fit.backbone, need) for t in todo for need in self._reads(t)]
        towers = {s.digest: s for s, _ in reads}
        try:
            for spec in towers.values():
                self.session.backbone(spec)
        except (ValueError, RuntimeError):
            # A file does not fit (BenchError is a ValueError), or the device refuses. `encode` gets the error
            # again, and the cells that need this backbone record it.
            return None
        return sum(
            self.session.lacking(spec, dataset, wanted)
            for tower, spec in towers.items()
            for dataset, wanted in needs.wanted(
                (n for s, n in reads if s.digest == tower), self.taps[tower]
            ).values()
        )

    def encode(self, group: Sequence[Todo]) -> Encoded:
        """Encode what the cells of a portion read and the store lacks.

        A cell is stopped if its fit reads an image that cannot be encoded, or if all its missing evaluations
        do. If only some evaluations do, the cell goes on, and ``unread`` returns their errors. Raises OSError
        if the store cannot be written, because that is no cell's fault.
        """
        unsaid = [(t, error) for t in group if (error := self._text(t))]
        group = [t for t in group if all(t is not other for other, _ in unsaid)]
        reads = [(t.fit.backbone, need) for t in group for need in self._reads(t)]
        broken: dict[Place, Exception] = {}
        self.bad, encodes = {}, 0
        for tower, spec in {s.digest: s for s, _ in reads}.items():
            by_dataset = needs.wanted((n for s, n in reads if s.digest == tower), self.taps[tower])
            for dataset, wanted in by_dataset.values():
                place = tower, dataset.stored_as
                try:
                    with stages.stage("encode"):
                        count, self.bad[place] = self._encode(spec, dataset, wanted)
                    encodes += count
                except OSError:
                    raise
                except Exception as error:  # it stops the cells that need these images, and no others
                    broken[place] = error
        reasons = [(t, self._stops(t, broken)) for t in group]
        ready = [t for t, reason in reasons if reason is None]
        stopped = [(t, reason) for t, reason in reasons if reason is not None]
        return Encoded(ready, [*unsaid, *stopped], encodes)

    def unreadable(self, dataset: Dataset) -> set[str]:
        """Return the images of a dataset that could not be encoded for the portion."""
        return {path for (_, of), bad in self.bad.items() if of == dataset.stored_as for path in bad}

    def unread(self, fit: Planned, evaluation: Evaluation) -> UnreadableImage | None:
        """Return the error of the first image that an evaluation reads and the store lacks, or None."""
        reads = needs.of_evaluation(fit, evaluation, self.session.dense_cache)
        return self._first_bad(fit.backbone, reads)

    def _text(self, t: Todo) -> Exception | None:
        """Return the error of making a classifier from the texts of a cell or of a fit below it, or None."""
        for fit in chain(t.fit):
            spec, prompts, names = fit.backbone, fit.prompts, fit.dataset.classnames
            key = spec.digest, prompts.digest, names
            if key not in self.texts:
                self.texts[key] = None
                try:
                    with stages.stage("encode"), self.session.threads(spec):
                        self.session.encoded_text(spec, prompts, names)
                except Exception as error:  # it stops the cells that read these texts, and no others
                    self.texts[key] = error
            if known := self.texts[key]:
                return known
        return None

    def _reads(self, t: Todo) -> Iterable[Need]:
        """Return everything that a cell still reads."""
        return needs.of_cell(t, self.fresh, self.session.dense_cache)

    def _encode(
        self, spec: BackboneSpec, dataset: Dataset, wanted: Sequence[Wanted]
    ) -> tuple[int, dict[str, UnreadableImage]]:
        """Encode all readable images; return the number of encodes, and by path the errors of the others."""
        try:
            return self.session.encode(spec, dataset, wanted).encodes, {}
        except UnreadableImage as error:
            bad = self.session.unreadable(spec, dataset, wanted) or {error.path: error}
            seen.forget(self.session.store.root, dataset, bad)
            rest = [replace(w, paths=tuple(p for p in w.paths if p not in bad)) for w in wanted]
            count = self.session.encode(spec, dataset, rest).encodes
            for one in list(bad.values())[:_NAMED]:
                self.session.report(f"{dataset.name}: {one}")
            self.session.report(
                f"{counted(len(bad), 'image')} of {dataset.name} cannot be read so far; "
                "`bench data verify` finds damaged images before a run"
            )
            return count, bad

    def _stops(self, t: Todo, broken: Mapping[Place, Exception]) -> Exception | None:
        """Return why a cell cannot go on, or None.

        It cannot if its fits, or all its missing evaluations, read something that cannot be encoded.
        """
        spec, dense = t.fit.backbone, self.session.dense_cache

        def error(reads: Iterable[Need]) -> Exception | None:
            wanted = list(reads)
            places = [
                (spec.digest, dataset.stored_as)
                for dataset, _, _, view, tap in wanted
                if needs.stored(tap, view)
            ]
            whole = next((broken[place] for place in places if place in broken), None)
            return whole or self._first_bad(spec, wanted)

        if early := error(needs.of_fitting(t, self.fresh)):
            return early
        late = [error(needs.of_evaluation(t.fit, e, dense)) for e in t.evaluations]
        return late[0] if late and all(late) else None

    def _first_bad(self, spec: BackboneSpec, reads: Iterable[Need]) -> UnreadableImage | None:
        """Return the error of the first unreadable image among what is read, or None.

        An image whose features the store already holds counts as readable.
        """
        for dataset, _, paths, view, tap in reads:
            bad = self.bad.get((spec.digest, dataset.stored_as), {})
            for path in paths if bad else ():
                if path in bad and (
                    not needs.stored(tap, view) or self.session.lacks(spec, dataset, [path], view, [tap])
                ):
                    return bad[path]
        return None
