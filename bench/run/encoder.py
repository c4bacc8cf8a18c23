"""Brings into the feature store what the cells of a round read, and says which cells cannot go on.

Texts come first: where they cannot tell classes apart, no image is encoded for the cells that read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.clip.backbone import BackboneSpec
from bench.data import seen
from bench.data.dataset import Dataset
from bench.errors import UnreadableImage
from bench.features.wanted import Wanted
from bench.plan import needs
from bench.plan.cells import Evaluation, Planned, chain
from bench.plan.needs import Need, Taps
from bench.plan.todo import Fresh, Todo
from bench.run import stages
from bench.run.session import Session

_NAMED = 5  # unreadable images of a dataset that are named one by one; records name the others
Place = tuple[str, str]  # digests of backbone and dataset


@dataclass
class Encoded:
    """What became of a round: the cells that can go on, and the others with their errors."""

    ready: list[Todo]
    stopped: list[tuple[Todo, Exception]]
    encodes: int


class Encoder:
    """Encodes round by round, each image x view once for all that the whole run wants of it."""

    def __init__(self, session: Session, fresh: Fresh) -> None:
        self.session, self.fresh = session, fresh
        self.taps: dict[str, Taps] = {}  # by the backbone's digest
        self.texts: dict[tuple[str, str, tuple[str, ...]], Exception | None] = {}  # what became of each
        self.bad: dict[Place, dict[str, UnreadableImage]] = {}  # of the round: by path

    def begin(self, todo: Iterable[Todo]) -> None:
        """Look at all that the run will read, so that one pass of an image serves every tap."""
        reads = [(t.fit.backbone.digest, need) for t in todo for need in self._reads(t)]
        towers = {tower for tower, _ in reads}
        self.taps = {tower: needs.taps_by_view(n for s, n in reads if s == tower) for tower in towers}

    def lacking(self, todo: Sequence[Todo]) -> int | None:
        """How many image x view passes the run will make, after ``begin``.

        None where a backbone does not load: ``encode`` says why. Raises OSError as ``encode`` does.
        """
        reads = [(t.fit.backbone, need) for t in todo for need in self._reads(t)]
        towers = {s.digest: s for s, _ in reads}
        try:
            for spec in towers.values():
                self.session.backbone(spec)
        except (ValueError, RuntimeError):
            # A file that does not fit (BenchError is a ValueError), or a device that refuses: `encode` meets
            # it again, and the cells that need this backbone record it.
            return None
        return sum(
            self.session.lacking(spec, dataset, wanted)
            for tower, spec in towers.items()
            for dataset, wanted in needs.wanted(
                (n for s, n in reads if s.digest == tower), self.taps[tower]
            ).values()
        )

    def encode(self, group: Sequence[Todo]) -> Encoded:
        """Encode what the cells of a round read and the store lacks.

        A cell stops for an image that its fit reads, or for one of every test set that it lacks; where other
        test sets are whole it goes on, and ``unread`` says which evaluations fail. Raises OSError where the
        store cannot be written: the user named its place, and no cell is at fault.
        """
        unsaid = [(t, error) for t in group if (error := self._text(t))]
        group = [t for t in group if all(t is not other for other, _ in unsaid)]
        reads = [(t.fit.backbone, need) for t in group for need in self._reads(t)]
        broken: dict[Place, Exception] = {}
        self.bad, encodes = {}, 0
        for tower, spec in {s.digest: s for s, _ in reads}.items():
            by_dataset = needs.wanted((n for s, n in reads if s.digest == tower), self.taps[tower])
            for dataset, wanted in by_dataset.values():
                place = tower, dataset.digest
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

    def unreadable(self, digest: str) -> set[str]:
        """The images of a dataset that the round could not encode, by the dataset's digest."""
        return {path for (_, of), bad in self.bad.items() if of == digest for path in bad}

    def unread(self, fit: Planned, evaluation: Evaluation) -> UnreadableImage | None:
        """The first image that an evaluation reads from the store and that is not there, with its error."""
        reads = needs.of_evaluation(fit, evaluation, self.session.dense_cache)
        return self._first_bad(fit.backbone, reads)

    def _text(self, t: Todo) -> Exception | None:
        """Why the texts of a cell, or of a fit that it reads, make no classifier; None where they do."""
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
        return needs.of_cell(t, self.fresh, self.session.dense_cache)

    def _encode(
        self, spec: BackboneSpec, dataset: Dataset, wanted: Sequence[Wanted]
    ) -> tuple[int, dict[str, UnreadableImage]]:
        """How much was encoded; images that cannot be read are left out, and returned with their errors."""
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
                f"{len(bad)} unreadable so far; `bench data verify` finds damaged images before a run"
            )
            return count, bad

    def _stops(self, t: Todo, broken: Mapping[Place, Exception]) -> Exception | None:
        """Why a cell cannot go on: what its fits read, or every test set that it lacks, cannot be encoded."""
        spec, dense = t.fit.backbone, self.session.dense_cache

        def error(reads: Iterable[Need]) -> Exception | None:
            wanted = list(reads)
            places = [
                (spec.digest, dataset.digest)
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
        """The first image of what is read that cannot be read, unless the store holds it from before."""
        for dataset, _, paths, view, tap in reads:
            bad = self.bad.get((spec.digest, dataset.digest), {})
            for path in paths if bad else ():
                if path in bad and (
                    not needs.stored(tap, view) or self.session.lacks(spec, dataset, [path], view, [tap])
                ):
                    return bad[path]
        return None
