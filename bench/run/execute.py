"""Run a plan: encode, fit, evaluate, record; resume what is done; a failing cell costs only itself."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace as with_fields

from bench.errors import BenchError, UnreadableImage
from bench.files import write_bytes
from bench.names import TEST_ORACLE
from bench.plan import needs
from bench.plan.cells import Evaluation, Plan, Planned
from bench.plan.rounds import Todo, chain, rounds
from bench.records import places, store
from bench.records.codec import SCHEMA
from bench.records.types import Failure, FitRecord, Provenance
from bench.registry import Registry
from bench.run import provenance, stages
from bench.run.provenance import Conditions
from bench.run.together import Joiner

if TYPE_CHECKING:
    from bench.clip.backbone import BackboneSpec
    from bench.data.dataset import Dataset
    from bench.features.wanted import Wanted
    from bench.interface import Consts, State
    from bench.run.evaluate import Evaluated
    from bench.run.onepass import Job
    from bench.run.session import Session

_NAMED = 5  # unreadable images of a dataset that are named one by one; records name the others
Progress = Callable[[str, int, int], None]  # (what, cells done, cells in all)
Taps = dict[str, dict[tuple[str, str, str], set[str]]]  # backbone -> (dataset, part, view) -> taps


@dataclass
class Outcome:
    """What a run did: counts, the failures as (cell, message), and the conditions that its records were made
    under.
    """

    cells: int = 0
    resumed: int = 0
    fits: int = 0
    evaluations: int = 0
    encodes: int = 0
    steps: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    # by backbone, whose size decides on threads
    conditions: set[tuple[str, Conditions]] = field(default_factory=set)
    out_of_time: bool = False

    def add(self, other: Outcome) -> None:
        """Count in what another process did."""
        for name in ("fits", "evaluations", "encodes", "steps"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failures += other.failures
        self.conditions |= other.conditions
        self.out_of_time |= other.out_of_time


def remaining(plan: Plan, fresh: bool = False) -> tuple[list[Todo], int]:
    """What is left to do, in plan order, and how many asked-for cells are complete. No torch."""
    todo, complete = [], 0
    for fit in plan.fits:
        stored = None if fresh else recorded(fit)
        lacking = tuple(e for e in fit.evaluations if fresh or not _evaluated(fit, e))
        if fit.asked and stored and not lacking:
            complete += 1
        elif fit.asked:
            todo.append(Todo(fit, lacking, stored))
    return todo, complete


def recorded(fit: Planned) -> FitRecord | None:
    """The record of a planned fit, if it was made."""
    return store.fit(places.fit_path(fit.where, fit.key), fit.key)


def _evaluated(fit: Planned, evaluation: Evaluation) -> bool:
    return (
        store.evaluation(places.evaluation_path(fit.where, fit.key, evaluation.key), evaluation.key)
        is not None
    )


def label(fit: Planned) -> str:
    """A cell in one line."""
    c = fit.cell
    shots = f" {c.shots}-shot seed {c.seed}" if c.shots else ""
    return f"{c.method} {c.dataset}{shots} ({c.backbone}, {c.prompts})"


class Runner:
    """Works through the cells in order, dependencies first; a state is held until the last cell that reads it
    is done.

    ``join``: seeds and shots of the same work train together, and those that trained together are held side
    by side.
    """

    def __init__(
        self,
        session: Session,
        registry: Registry,
        results: Path,
        keep_states: str = "needed",
        fresh: bool = False,
        join: bool = False,
        clock: store.Clock | None = None,
    ) -> None:
        self.clock = replace(clock) if clock else store.Clock.of(results)
        self.made: set[str] = set()  # keys of the fits and evaluations that this runner recorded
        self.unread: dict[
            tuple[str, str], dict[str, UnreadableImage]
        ] = {}  # by backbone and dataset of the round: paths
        self.join, self.joiner = join, Joiner(session)
        self.ready: dict[str, Consts] = {}  # constants of fits that were made along with another
        # by fit key: cells of the round yet to be done that read its state
        self.readers: Counter[str] = Counter()
        self.session, self.results, self.fresh = session, results, fresh
        self.keep = _keeper(registry, keep_states)
        self.states: dict[str, State] = {}
        self.waiting: list[tuple[Todo, Job, Provenance]] = []
        self.outcome = Outcome()

    def begin(self, plan: Plan, todo: list[Todo]) -> None:
        """Count what was there before."""
        self.outcome.cells = len([f for f in plan.fits if f.asked])
        self.outcome.resumed = self.outcome.cells - len(todo)

    def run(self, plan: Plan, todo: list[Todo], progress: Progress, deadline: float | None = None) -> Outcome:
        """Do all of ``todo``; stops starting cells after ``deadline`` (time.monotonic)."""
        self.begin(plan, todo)
        done, total = self.outcome.resumed, self.outcome.cells
        taps, streamed, dataset = self.taps(todo), not self.session.dense_cache, ""
        for name, group in rounds(todo, streamed, self.join):
            if name != dataset:
                self._one_pass()
            dataset = name
            group, stopped = self.encode(group, taps)
            for t, error in stopped:
                done += 1
                progress(self.failed(t, error), done, total)
            self.states.clear()
            self.ready.clear()
            self.readers = Counter(key for t in group for key in self._read(t))
            self.joiner.begin(fit for t in group for fit in chain(t.fit) if self.join)
            for t in group:
                if deadline is not None and time.monotonic() > deadline:
                    self.outcome.out_of_time = True
                    break
                if self._heavy():
                    self._one_pass()
                what = self._cell(t)
                self._release(t)
                done += 1
                progress(what, done, total)
            if self.outcome.out_of_time:
                break
        self._one_pass()
        return self.outcome

    def taps(self, todo: list[Todo]) -> Taps:
        """By backbone: all taps that the whole run wants of each (dataset, part, view), so that one pass
        serves them.
        """
        everything = [need for t in todo for need in self._needs(t)]
        names = {name for name, _ in everything}
        return {name: needs.taps_by_view(n for s, n in everything if s == name) for name in names}

    def _needs(self, t: Todo) -> Iterator[tuple[str, needs.Need]]:
        name = t.fit.backbone.name
        for need in self._fitting(t):
            yield name, need
        for evaluation in t.evaluations:
            for need in needs.of_evaluation(t.fit, evaluation, self.session.dense_cache):
                yield name, need

    def _fitting(self, t: Todo) -> Iterator[needs.Need]:
        """What the cell's fit reads, and the fits below it that have yet to be made."""
        for fit in chain(t.fit):
            if fit is t.fit or self.fresh or not recorded(fit):
                yield from needs.of_fit(fit, fit.cell.protocol == TEST_ORACLE)

    def _read(self, t: Todo) -> set[str]:
        """The fits whose states a cell reads, its own too."""
        return {fit.key for fit in chain(t.fit)}

    def _release(self, t: Todo) -> None:
        """Let go of what only this cell still read."""
        read = self._read(t)
        self.readers.subtract(read)
        for key in read:
            if not self.readers[key]:
                self.states.pop(key, None)
                self.ready.pop(key, None)

    def encode(self, group: list[Todo], taps: Taps) -> tuple[list[Todo], list[tuple[Todo, Exception]]]:
        """Bring into the store what the cells of a round read: the cells that can go on, and the others with
        their errors.

        A cell stops for an image that its fit reads, or for one of every test set that it lacks; where other
        test sets are whole, it goes on and ``unread`` says which evaluations fail.
        """
        found = [(t.fit.backbone, need) for t in group for _, need in self._needs(t)]
        self.unread, broken = {}, {}
        for spec in {s.name: s for s, _ in found}.values():
            wanted = needs.requests((n for s, n in found if s.name == spec.name), taps[spec.name])
            for dataset, requests in wanted.values():
                try:
                    with stages.stage("encode"):
                        self.unread[spec.name, dataset.name] = self._encode(spec, dataset, requests)
                except OSError:  # a place that the user named, such as --cache: no cell's own trouble
                    raise
                except Exception as error:  # it stops the cells that need these images, and no others
                    broken[spec.name, dataset.name] = error
        ready, stopped = [], []
        for t in group:
            reason = self._stops(t, broken)
            if reason is None:
                ready.append(t)
            else:
                stopped.append((t, reason))
        return ready, stopped

    def _encode(
        self, spec: BackboneSpec, dataset: Dataset, requests: Sequence[Wanted]
    ) -> dict[str, UnreadableImage]:
        """Encode what the store lacks; the images that cannot be read are left out, and returned with their
        errors.
        """
        try:
            self.outcome.encodes += self.session.encode(spec, dataset, requests).encodes
            return {}
        except UnreadableImage as error:
            bad = self.session.unreadable(spec, dataset, requests) or {error.path: error}
            rest = [replace(r, paths=tuple(p for p in r.paths if p not in bad)) for r in requests]
            self.outcome.encodes += self.session.encode(spec, dataset, rest).encodes
            for one in list(bad.values())[:_NAMED]:
                self.session.report(f"{dataset.name}: {one}")
            self.session.report(
                f"{len(bad)} unreadable so far; `bench data verify` finds damaged images before a run"
            )
            return bad

    def _stops(self, t: Todo, broken: Mapping[tuple[str, str], Exception]) -> Exception | None:
        """Why a cell cannot go on: what its fits read, or every test set that it lacks, cannot be encoded."""
        spec, dense = t.fit.backbone, self.session.dense_cache

        def error(of: Iterable[needs.Need]) -> Exception | None:
            wanted = list(of)
            datasets = (dataset.name for dataset, _, _, view, tap in wanted if needs.stored(tap, view))
            whole = next((broken[spec.name, name] for name in datasets if (spec.name, name) in broken), None)
            return whole or self._unread(spec, wanted)

        if found := error(self._fitting(t)):
            return found
        late = [error(needs.of_evaluation(t.fit, e, dense)) for e in t.evaluations]
        return late[0] if late and all(late) else None

    def _unread(self, spec: BackboneSpec, wanted: Iterable[needs.Need]) -> UnreadableImage | None:
        """The first image of what is wanted that cannot be read, unless the store holds its features from
        before.
        """
        for dataset, _, paths, view, tap in wanted:
            bad = self.unread.get((spec.name, dataset.name), {})
            for path in paths if bad else ():
                if path in bad and (
                    not needs.stored(tap, view) or self.session.lacks(spec, dataset, [path], view, [tap])
                ):
                    return bad[path]
        return None

    def _cell(self, t: Todo) -> str:
        """Do one cell; what to say of it."""
        try:
            with self.session.threads(t.fit.backbone):
                return self._fit_and_evaluate(t)
        except KeyboardInterrupt:
            raise
        except Exception as error:
            return self.failed(t, error)

    def _fit_and_evaluate(self, t: Todo) -> str:
        from bench.run import evaluate, onepass

        state = self.state(t.fit)
        if not t.evaluations:
            return label(t.fit)
        consts = self.ready.pop(t.fit.key, None)
        if consts is None:
            with stages.stage("prepare"):
                consts = t.fit.method.prepare(self.session.task(t.fit, self._after(t.fit)))
        facts = self._facts(t.fit)
        said = label(t.fit)
        for e in t.evaluations:  # the failure of one is not that of the others
            try:
                if unread := self._unread(
                    t.fit.backbone, needs.of_evaluation(t.fit, e, self.session.dense_cache)
                ):
                    raise unread
                if onepass.waits(self.session, t.fit, e):
                    self.waiting.append((t, onepass.Job(t.fit, e, state.params, consts, state.values), facts))
                    continue
                with stages.stage("evaluate"):
                    found = evaluate.evaluate(self.session, t.fit, e, state.params, consts, state.values)
                self._conclude(t, e, facts, found)
            except Exception as error:
                said = self.failed(replace(t, evaluations=(e,)), error)
        return said

    def _facts(self, fit: Planned) -> Provenance:
        """Where a number that is made now comes from; counted in."""
        streamed = not self.session.dense_cache and bool(needs.HEAVY.intersection(fit.method.taps))
        facts = provenance.of_run(self.session.device, fit.method, streamed)
        self.outcome.conditions.add((fit.backbone.name, provenance.conditions(facts)))
        return facts

    def _conclude(self, t: Todo, e: Evaluation, facts: Provenance, found: Evaluated) -> None:
        path = places.evaluation_path(t.fit.where, t.fit.key, e.key)
        record, arrays = found
        checksums = store.write_predictions(path, arrays)
        store.write(path, with_fields(record, predictions=checksums, provenance=facts), self.clock)
        self.made.add(e.key)
        self.outcome.evaluations += 1

    def _heavy(self) -> bool:
        """Whether the evaluations that wait hold more memory than they may: then they wait no longer."""
        from bench.run import onepass
        from bench.train import waves

        kept = [x for _, job, _ in self.waiting for x in (*job.params.values(), *job.consts.values())]
        return bool(kept) and waves.held(kept) > onepass.HELD_BYTES

    def _one_pass(self) -> None:
        """The evaluations that wait for streamed features: one pass for each backbone and test set."""
        from bench.run import onepass

        groups: dict[tuple[str, str], list[tuple[Todo, Job, Provenance]]] = defaultdict(list)
        for t, job, facts in self.waiting:
            groups[t.fit.backbone.name, job.evaluation.target.name].append((t, job, facts))
        self.waiting = []
        for group in groups.values():
            try:
                with stages.stage("evaluate"):
                    results: Sequence[Evaluated | Exception] = onepass.run(
                        self.session, [job for _, job, _ in group]
                    )
            except Exception as error:
                results = [error] * len(group)
            for (t, job, facts), result in zip(group, results, strict=True):
                if isinstance(result, Exception):
                    self.session.report(self.failed(replace(t, evaluations=(job.evaluation,)), result))
                else:
                    self._conclude(t, job.evaluation, facts, result)

    def _after(self, fit: Planned) -> dict[str, State]:
        return {name: self.state(other) for name, other in fit.after.items()}

    def state(self, fit: Planned) -> State:
        """The state of a fit: from this round, from disk, or fitted now."""
        from bench.run import fit as fitting

        if fit.key in self.states:
            return self.states[fit.key]
        stored = None if self.fresh else recorded(fit)
        found = fitting.load_state(self.results, fit, stored, self.session.device) if stored else None
        if found is not None:
            self.states[fit.key] = found
            return found
        for made, (fitted, consts, seconds) in self.joiner.fit(fit, self._open, self._after):
            data = fitting.state_bytes(fitted) if self.keep(made) else b""
            if data:
                write_bytes(places.state_path(self.results, made.key), data)
            record = fitting.fit_record(made, fitted, seconds, self._facts(made), data)
            store.write(places.fit_path(made.where, made.key), record, self.clock)
            self.made.add(made.key)
            self.outcome.fits += 1
            self.outcome.steps += fitted.budget["steps"]
            self.states[made.key] = fitting.state_of(made, fitted.params, fitted.values)
            if made.asked:
                self.ready[made.key] = consts
        return self.states[fit.key]

    def _open(self, fit: Planned) -> bool:
        """Whether a fit has yet to be made for a cell of this round."""
        if fit.key in self.states or not self.readers[fit.key]:
            return False
        return self.fresh or recorded(fit) is None

    def failed(self, t: Todo, error: Exception) -> str:
        """A failed cell is a record too, of the fit or of the evaluations that it lacks; tables print ERR for
        it.

        Returns what to say of it.
        """
        fit, message = t.fit, stages.message(error)
        head = Failure(
            schema=SCHEMA,
            key=fit.key,
            of="fit",
            fit=fit.key,
            cell=fit.cell,
            stage=stages.of(error),
            error=message,
            traceback=stages.trace(error),
            title=fit.method.title,
            parts=fit.parts,
            changed=dict(fit.changed),
            provenance=provenance.of_run(self.session.device, fit.method),
        )
        if recorded(fit) is None or (
            self.fresh and fit.key not in self.made
        ):  # --fresh: an older record is no success
            store.write(places.fit_path(fit.where, fit.key), head, self.clock)
        else:
            for e in t.evaluations:
                path = places.evaluation_path(fit.where, fit.key, e.key)
                if store.evaluation(path, e.key) is None or (self.fresh and e.key not in self.made):
                    more = {"target": e.target.name, "values": dict(e.values), "changed": dict(e.changed)}
                    store.write(
                        path, with_fields(head, key=e.key, of="evaluation", parts=None, **more), self.clock
                    )
        self.outcome.failures.append((label(fit), message))
        return f"FAILED {label(fit)} ({head.stage})"


def _keeper(registry: Registry, rule: str) -> Callable[[Planned], bool]:
    """``--keep-states``: all, none, or those that other methods read or that later evaluations can reuse."""
    read = {name for method in registry.methods.values() for name in method.after}
    rules: dict[str, Callable[[Planned], bool]] = {
        "all": lambda fit: True,
        "none": lambda fit: False,
        "needed": lambda fit: fit.method.name in read or bool(fit.method.inference),
    }
    if rule not in rules:
        raise BenchError(f"--keep-states {rule}: choose needed, all or none")
    return rules[rule]
