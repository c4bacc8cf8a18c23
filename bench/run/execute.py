"""Run a plan: encode, fit, evaluate, record; resume what is done; a failing cell costs only itself."""

from __future__ import annotations

import math
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.registry import Registry
from bench.run import needs, record
from bench.run.joined import Joiner, kind
from bench.run.plan import Evaluation, Plan, Planned

if TYPE_CHECKING:
    from bench.interface import Consts, State
    from bench.run.onepass import Job
    from bench.run.session import Session

Progress = Callable[[str, int, int], None]  # (what, cells done, cells in all)
Taps = dict[str, dict[tuple[str, str, str], set[str]]]  # backbone -> (dataset, part, view) -> taps


@dataclass
class Outcome:
    """What a run did: counts, and the failures as (cell, message)."""

    cells: int = 0
    resumed: int = 0
    fits: int = 0
    evaluations: int = 0
    encodes: int = 0
    steps: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    out_of_time: bool = False

    def add(self, other: Outcome) -> None:
        """Count in what another process did."""
        for name in ("fits", "evaluations", "encodes", "steps"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failures += other.failures
        self.out_of_time |= other.out_of_time


@dataclass(frozen=True)
class Todo:
    """A fit with work left: the evaluations that lack a record, and whether the fit itself does."""

    fit: Planned
    evaluations: tuple[Evaluation, ...]
    stored: dict[str, Any] | None


def remaining(plan: Plan, fresh: bool = False) -> tuple[list[Todo], int]:
    """What is left to do, in plan order, and how many asked-for cells are complete. No torch."""
    todo, complete = [], 0
    for fit in plan.fits:
        stored = None if fresh else record.done(record.fit_path(fit.where, fit.key), fit.key)
        lacking = tuple(e for e in fit.evaluations if fresh or not _evaluated(fit, e))
        if fit.asked and stored and not lacking:
            complete += 1
        elif fit.asked:
            todo.append(Todo(fit, lacking, stored))
    return todo, complete


def _evaluated(fit: Planned, evaluation: Evaluation) -> bool:
    return record.evaluated(record.evaluation_path(fit.where, fit.key, evaluation.key), evaluation.key) is not None


def label(fit: Planned) -> str:
    """A cell in one line."""
    c = fit.cell
    shots = f" {c.shots}-shot seed {c.seed}" if c.shots else ""
    return f"{c.method} {c.dataset}{shots} ({c.backbone}, {c.prompts})"


class Runner:
    """Works through the cells in order, dependencies first; a state is held until the last cell that reads it is done.

    ``join``: seeds and shots of the same work train together, and those that trained together are held side by side.
    """

    def __init__(
        self, session: Session, registry: Registry, results: Path, keep_states: str = "needed", fresh: bool = False,
        join: bool = False,
    ) -> None:  # fmt: skip
        self.join, self.joiner = join, Joiner(session)
        self.ready: dict[str, Consts] = {}  # constants of fits that were made along with another
        self.readers: Counter[str] = Counter()  # by fit key: cells of the round yet to be done that read its state
        self.session, self.results, self.fresh = session, results, fresh
        self.keep = _keeper(registry, keep_states)
        self.states: dict[str, State] = {}
        self.waiting: list[tuple[Todo, Job, dict[str, Any]]] = []
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
            self.encode(group, taps)
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
                self._cell(t)
                self._release(t)
                done += 1
                progress(label(t.fit), done, total)
            if self.outcome.out_of_time:
                break
        self._one_pass()
        return self.outcome

    def taps(self, todo: list[Todo]) -> Taps:
        """By backbone: all taps that the whole run wants of each (dataset, part, view), so that one pass serves them."""
        everything = [need for t in todo for need in self._needs(t)]
        names = {name for name, _ in everything}
        return {name: needs.taps_by_view(n for s, n in everything if s == name) for name in names}

    def _needs(self, t: Todo) -> Iterator[tuple[str, needs.Need]]:
        name = t.fit.backbone.name
        for fit in chain(t.fit):
            if fit is not t.fit and not self.fresh and record.done(record.fit_path(fit.where, fit.key), fit.key):
                continue
            for need in needs.of_fit(fit, fit.cell.protocol == "test-oracle"):
                yield name, need
        for evaluation in t.evaluations:
            for need in needs.of_evaluation(t.fit, evaluation, self.session.dense_cache):
                yield name, need

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

    def encode(self, group: list[Todo], taps: Taps) -> None:
        """Bring into the store what the cells of a round read."""
        found = [(t.fit.backbone, need) for t in group for _, need in self._needs(t)]
        for spec in {s.name: s for s, _ in found}.values():
            wanted = needs.requests((n for s, n in found if s.name == spec.name), taps[spec.name])
            for dataset, requests in wanted.values():
                try:
                    self.outcome.encodes += self.session.encode(spec, dataset, requests).encodes
                except BenchError as error:
                    # The cells that need these images fail one by one below and say why; the others go on.
                    self.session.report(f"{dataset.name}: {error}")

    def _cell(self, t: Todo) -> None:
        try:
            with self.session.threads(t.fit.backbone):
                self._fit_and_evaluate(t)
        except KeyboardInterrupt:
            raise
        except Exception as error:
            self.failed(t, error)

    def _fit_and_evaluate(self, t: Todo) -> None:
        from bench.run import evaluate, onepass, provenance

        state = self.state(t.fit)
        if not t.evaluations:
            return
        consts = self.ready.pop(t.fit.key, None)
        if consts is None:
            consts = t.fit.method.prepare(self.session.task(t.fit, self._after(t.fit)))
        facts = {**provenance.of_run(self.session.device), "source": provenance.source_digest(t.fit.method)}
        for e in t.evaluations:
            if onepass.waits(self.session, t.fit, e):
                self.waiting.append((t, onepass.Job(t.fit, e, state.params, consts, state.values), facts))
                continue
            self._conclude(t, e, facts, *evaluate.evaluate(self.session, t.fit, e, state.params, consts, state.values))

    def _conclude(self, t: Todo, e: Evaluation, facts: dict[str, Any], found: dict[str, Any], arrays: Any) -> None:
        path = record.evaluation_path(t.fit.where, t.fit.key, e.key)
        record.write_predictions(path.with_suffix(".npz"), *arrays)
        head = {"kind": "evaluation", "status": "ok", "key": e.key, "fit": t.fit.key, "cell": asdict(t.fit.cell)}
        record.write(path, {**head, **found, "provenance": facts})
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

        groups: dict[tuple[str, str], list[tuple[Todo, Job, dict[str, Any]]]] = defaultdict(list)
        for t, job, facts in self.waiting:
            groups[t.fit.backbone.name, job.evaluation.target.name].append((t, job, facts))
        self.waiting = []
        for group in groups.values():
            try:
                results: Sequence[Any] = onepass.run(self.session, [job for _, job, _ in group])
            except Exception as error:
                results = [error] * len(group)
            for (t, job, facts), result in zip(group, results, strict=True):
                if isinstance(result, Exception):
                    self.failed(t, result)
                else:
                    self._conclude(t, job.evaluation, facts, *result)

    def _after(self, fit: Planned) -> dict[str, State]:
        return {name: self.state(other) for name, other in fit.after.items()}

    def state(self, fit: Planned) -> State:
        """The state of a fit: from this round, from disk, or fitted now."""
        from bench.run import fit as fitting
        from bench.run import provenance

        if fit.key in self.states:
            return self.states[fit.key]
        path = record.fit_path(fit.where, fit.key)
        stored = None if self.fresh else record.done(path, fit.key)
        found = fitting.load_state(self.results, fit, stored, self.session.device) if stored else None
        if found is not None:
            self.states[fit.key] = found
            return found
        for made, (fitted, consts, seconds) in self.joiner.fit(fit, self._open, self._after):
            facts = {**provenance.of_run(self.session.device), "source": provenance.source_digest(made.method)}
            if fitted.params and self.keep(made):
                fitting.save_state(self.results, made, fitted)
            record.write(record.fit_path(made.where, made.key), fitting.fit_record(made, fitted, seconds, facts))
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
        return self.fresh or record.done(record.fit_path(fit.where, fit.key), fit.key) is None

    def failed(self, t: Todo, error: Exception) -> None:
        """A failed cell is a record too, of the fit or of the evaluations that it lacks; tables print ERR for it."""
        message = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error))
        head = {"status": "failed", "cell": asdict(t.fit.cell), "error": message, "traceback": trace}
        path = record.fit_path(t.fit.where, t.fit.key)
        if record.done(path, t.fit.key) is None:
            changed = {"changed": dict(t.fit.changed), "parts": t.fit.parts}
            record.write(path, {"kind": "fit", "key": t.fit.key, **head, **changed})
        else:
            for e in t.evaluations:
                path = record.evaluation_path(t.fit.where, t.fit.key, e.key)
                if record.evaluated(path, e.key) is None:
                    more = {"target": e.target.name, "values": dict(e.values), "changed": dict(e.changed)}
                    record.write(path, {"kind": "evaluation", "key": e.key, "fit": t.fit.key, **head, **more})
        self.outcome.failures.append((label(t.fit), message))


def chain(fit: Planned) -> Iterator[Planned]:
    """The fits whose states a fit reads, those that they read first, and itself."""
    for other in fit.after.values():
        yield from chain(other)
    yield fit


def rounds(todo: list[Todo], by_dataset: bool = False, join: bool = False) -> Iterator[tuple[str, list[Todo]]]:
    """The cells by (seed, dataset), in order, with the dataset's name: one round encodes what it needs and shares its states.

    ``by_dataset``: the rounds of a dataset one after the other, so that one pass over its test images serves them all.
    ``join``: one round for a dataset, ordered for few states at a time: what reads a state follows the fit that made it.
    """
    groups: dict[tuple[str, int], list[Todo]] = defaultdict(list)
    for t in todo:
        groups[t.fit.dataset.name, 0 if join else t.fit.cell.seed].append(t)
    names = list(dict.fromkeys(name for name, _ in groups))
    for key in sorted(groups, key=lambda key: names.index(key[0]) if by_dataset else 0):
        group = groups[key]
        if join:
            first = list(dict.fromkeys(kind(next(chain(t.fit))) for t in group))
            shots = list(dict.fromkeys(t.fit.cell.shots for t in group))
            group.sort(key=lambda t: (first.index(kind(next(chain(t.fit)))), shots.index(t.fit.cell.shots)))
        yield key[0], group


def portions(todo: list[Todo], streamed: bool, jobs: int, join: bool = False) -> Iterator[list[Todo]]:
    """What one of ``jobs`` worker processes gets at a time: a round; when test features are ``streamed``, several.

    ``join``: a dataset, or of its shots as many as leave work for every worker.
    """
    if not join:
        groups = (group for _, group in rounds(todo))
        return gathered(groups, jobs) if streamed else groups
    return gathered((part for _, group in rounds(todo, join=True) for part in by_shots(group)), jobs)


def by_shots(group: list[Todo]) -> list[list[Todo]]:
    """The cells of each number of shots."""
    parts: dict[int, list[Todo]] = defaultdict(list)
    for t in group:
        parts[t.fit.cell.shots].append(t)
    return list(parts.values())


def gathered(groups: Iterable[list[Todo]], jobs: int) -> Iterator[list[Todo]]:
    """As many groups of a dataset together as leave work for all of ``jobs`` workers: they share passes, and may join."""
    by_dataset: dict[str, list[list[Todo]]] = defaultdict(list)
    for group in groups:
        by_dataset[group[0].fit.dataset.name].append(group)
    share = math.ceil(jobs / max(1, len(by_dataset)))
    for parts in by_dataset.values():
        step = math.ceil(len(parts) / share)
        for i in range(0, len(parts), step):
            yield [t for part in parts[i : i + step] for t in part]


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
