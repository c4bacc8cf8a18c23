"""Make a plan of a request: every fit and evaluation with its key, before any image is opened.

This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from bench import prompts as prompt_sets
from bench.clip.backbone import BackboneSpec, resolve
from bench.data import catalog, seen
from bench.data.dataset import Dataset
from bench.data.imagefile import opening_of
from bench.data.targets import Unmatched, matched
from bench.errors import BenchError, MissingData
from bench.features.key import prepared
from bench.features.store import default_root
from bench.interface import Facts, Method, Recipe
from bench.names import canonical, told_apart
from bench.plan import asking, batches, classes, needs, protocols, settings
from bench.plan.asking import Unplanned
from bench.plan.cells import TUNED, Blocked, Evaluation, Plan, Planned
from bench.plan.place import Draws, Place, labelled
from bench.plan.request import Request
from bench.prompts import PromptSet
from bench.records import keys, places
from bench.records.keys import ALL, EvaluationKey, FitKey, Shots
from bench.records.types import Cell
from bench.registry import Registry

Watch = Callable[[str, int, int], None]  # (what is planned now, how many are done, of how many)


def make(request: Request, registry: Registry, watch: Watch = lambda *_: None) -> Plan:
    """Return the plan of a request. All cells of the first seed come before those of the second, and so on.

    ``watch`` is called with the name of each dataset before it is read, which takes most of the time. Raises
    BenchError for unknown names and values. Missing data only blocks the cells that need it.
    """
    return _Planner(request, registry, watch).plan()


class _Planner:
    """The maker of one plan.

    It caches what many cells share: backbones, datasets, draws, and the fits planned so far, by key.
    """

    def __init__(self, request: Request, registry: Registry, watch: Watch) -> None:
        self.request, self.watch = request, watch
        self.registry = registry
        dtype = keys.dtype(request.precision)
        towers = {name: resolve(name, request.allow_torchscript) for name in request.backbones}
        self.backbones = {
            name: replace(
                tower, dtype=dtype, name=_printed_name(tower, tower.digest, list(towers.values())[:i])
            )
            for i, (name, tower) in enumerate(towers.items())
        }
        # Printed name -> name of the folder of records. A printed name may end in digits of the digest.
        self.homes = {self.backbones[name].name: tower.name for name, tower in towers.items()}
        self.datasets: dict[str, Dataset] = {}
        self.draws = Draws(request.folds)
        self.fits: dict[str, Planned] = {}
        self.blocked: dict[tuple[str, str, str], Blocked] = {}
        self.texts: dict[tuple[str, str, str], tuple[str, str]] = {}
        self.equal: set[tuple[str, str, str]] = set()
        self.twins: set[tuple[str, str, str]] = set()
        protocols.check(request.protocol)
        settings.check_preset(request.preset, registry.methods.values())

    def plan(self) -> Plan:
        """Return the plan of the request."""
        r = self.request
        methods = [self.registry.get(name) for name in dict.fromkeys(r.methods)]
        datasets = self._datasets(r.datasets)
        for backbone in self.backbones.values():
            if not r.folds:
                for method in methods:
                    for dataset in datasets:
                        self._cells(method, dataset, 0, 0, backbone)
            for seed in range(1, r.folds + 1) or r.seeds:
                for dataset in datasets:
                    for shots in r.shots:
                        for method in methods:
                            self._cells(method, self.draws.fold(dataset, seed), shots, seed, backbone)
        fits = sorted(self.fits.values(), key=lambda f: f.cell.seed)  # stable: keeps the order within a seed
        contents = {name: dataset.digest for name, dataset in self.datasets.items()}
        return Plan(fits, list(self.blocked.values()), frozenset(self.equal), frozenset(self.twins), contents)

    def _datasets(self, names: tuple[str, ...]) -> list[Dataset]:
        """Return the datasets whose files are here. For each of the others, block every method."""
        here = []
        names = tuple(dict.fromkeys(names))
        for i, name in enumerate(names):
            self.watch(name, i, len(names))
            try:
                here.append(self._dataset(name))
            except MissingData as error:
                for method in self.request.methods:
                    self._block(method, name, str(error))
        self.watch("cells", len(names), len(names))
        return here

    def _dataset(self, name: str) -> Dataset:
        """Return a dataset by the name that the user gave. Raises MissingData if its files are not here."""
        if name not in self.datasets:
            r = self.request
            found = catalog.find(
                name, r.data_root, out=r.results, skip_bad=r.skip_bad, max_pixels=r.max_pixels
            )
            found = self._with_current_digest(name, found)
            printed = _printed_name(found, found.spec.identity or found.digest, self.datasets.values())
            self.datasets[name] = replace(found, name=printed)
        return self.datasets[name]

    def _with_current_digest(self, name: str, found: Dataset) -> Dataset:
        """Return the dataset with the digest that its image files have now (``bench.data.seen``)."""
        r = self.request
        if r.contents is None:
            return seen.current(found, (r.results, r.cache or default_root()))
        return replace(found, digest=r.contents.get(name, found.digest))

    def _block(self, method: str, dataset: str, reason: str, failed: bool = False) -> None:
        self.blocked.setdefault((method, dataset, reason), Blocked(method, dataset, reason, failed))

    def _cells(
        self, method: Method, dataset: Dataset, shots: Shots, seed: int, backbone: BackboneSpec
    ) -> None:
        """Plan the cells at these coordinates, one for each prompt set and each point of a sweep."""
        if dataset.spec.source:
            raise BenchError(
                f"{dataset.name} is a test set for models of {dataset.spec.source}: "
                f"run --datasets {dataset.spec.source} --targets instead"
            )
        given = self.request.overrides.get(canonical(method.name), {})
        for prompts in (self.request.prompts if method.uses_prompts else ()) or method.prompts:
            # A method or prompt set that uses labels has shots and a seed; all others are computed once, or
            # once on every fold, because each fold has test images of its own.
            if shots != ALL and labelled(method, prompts) != (shots > 0):
                continue
            for swept in self.request.sweeps.get(canonical(method.name), [{}]):
                place = Place(method, dataset, shots, seed, backbone, prompts, {**given, **swept})
                try:
                    self._fit(place, asked=True)
                except (MissingData, Unplanned) as error:
                    self._block(method.name, dataset.name, str(error), isinstance(error, Unplanned))

    def _fit(self, place: Place, asked: bool) -> Planned | None:
        """Plan a fit and return it, or block its cells and return None if it cannot run here.

        ``asked``: whether the user asked for the fit itself. Only then are its evaluations planned.
        """
        if reason := self._wrong_tower(place):
            self._block(place.method.name, place.dataset.name, reason)
            return None
        prompts = prompt_sets.build(
            place.prompts, place.dataset.spec, place.dataset.classnames, self.request.prompt_dir
        )
        if reason := self._forbidden(prompts) or self._text_notes(place, prompts)[0]:
            self._block(place.method.name, place.dataset.name, reason)
            return None
        after = self._dependencies(place, prompts)
        if after is None:
            return None
        fit, values, late = self._keyed(place, prompts, after)
        if reason := classes.unseen(fit.dataset, fit.draw) or needs.unvalidated(fit):
            self._block(place.method.name, place.dataset.name, reason)
            return None
        known = self.fits.get(fit.key)
        if known is not None:
            self._note_other_names(known, fit)
            fit = known
        evaluations = {e.key: e for e in fit.evaluations}
        if asked:
            for e in self._evaluations(fit, values, late):
                evaluations.setdefault(e.key, e)  # if two test sets are equal, the fit's own comes first
        fit = replace(
            fit, evaluations=tuple(evaluations.values()), asked=asked or (known is not None and known.asked)
        )
        self.fits[fit.key] = fit
        return fit

    def _wrong_tower(self, place: Place) -> str:
        """Return why the method cannot work on the backbone, or "" if it can."""
        method, backbone = place.method, place.backbone
        if backbone.family in method.towers:
            return ""
        towers = " and ".join(method.towers)
        return f"{method.name} works on {towers} towers, {backbone.name} is '{backbone.family}'"

    def _forbidden(self, prompts: PromptSet) -> str:
        """Return why the protocol forbids the prompt set, or "" if it allows it."""
        protocol = self.request.protocol
        if not prompts.select or protocols.validates(protocol):
            return ""
        return (
            f"{prompts.name} chooses templates on validation images, which protocol {protocol} never scores"
        )

    def _text_notes(self, place: Place, prompts: PromptSet) -> tuple[str, str]:
        """Return why the prompts cannot tell the classes apart, and a note on class names. Each may be ""."""
        dataset, backbone = place.dataset, place.backbone
        key = (dataset.digest, backbone.name, prompts.digest)
        if key not in self.texts:
            self.texts[key] = classes.alike(prompts, dataset, backbone), classes.note(prompts, dataset)
        return self.texts[key]

    def _dependencies(self, place: Place, prompts: PromptSet) -> dict[str, Planned] | None:
        """Return the fits whose states this one reads, by role, or None if one of them cannot run here."""
        reads = {name: (name, place.prompts) for name in place.method.after}
        if prompts.tuned_by:
            reads[TUNED] = (prompts.tuned_by, prompts.tuned_from)
        after = {}
        for role, (name, texts) in reads.items():
            given = self.request.overrides.get(canonical(name), {})
            other = replace(place, method=self.registry.get(name), prompts=texts, given=given)
            planned = self._fit(other, asked=False)
            if planned is None:
                self._block(
                    place.method.name, place.dataset.name, f"it reads a fit of {name}, which cannot run here"
                )
                return None
            after[role] = planned
        return after

    def _keyed(
        self, place: Place, prompts: PromptSet, after: Mapping[str, Planned]
    ) -> tuple[Planned, dict[str, Any], dict[str, Any]]:
        """Return the fit with its key, the values of its evaluations, and those that the user changed."""
        method, dataset = place.method, place.dataset
        values, changed, facts = self._settings_and_facts(place, prompts)
        batches.check(method, values)
        plugin = bool(self.registry.digests.get(canonical(method.name)))
        recipe, learned, notes = asking.recipe(method, values, facts, self.request.protocol, plugin)
        early, late = settings.by_time(method, values)
        changed_early, changed_late = settings.by_time(method, changed)
        parts = self._parts(place, prompts, early, recipe, {role: fit.key for role, fit in after.items()})
        fit = Planned(
            cell=self._cell(place, prompts, facts.preset),
            method=method,
            settings=values,
            learned=learned,
            recipe=recipe,
            facts=facts,
            dataset=dataset,
            draw=self.draws.of(place),
            prompts=prompts,
            backbone=place.backbone,
            after=after,
            parts=parts,
            key=parts.digest(),
            where=places.folder(
                self.request.results, self.homes[place.backbone.name], dataset.spec.name, method.name
            ),
            changed=changed_early,
            notes=tuple(filter(None, (*notes, self._text_notes(place, prompts)[1]))),
        )
        return fit, late, changed_late

    def _settings_and_facts(
        self, place: Place, prompts: PromptSet
    ) -> tuple[dict[str, Any], dict[str, Any], Facts]:
        """Return the settings' values, those that the user changed, and the facts for the recipe."""
        method, backbone, row = place.method, place.backbone, place.dataset.spec.recipe_as
        preset = self.request.preset or backbone.preset
        values = settings.resolve(method, preset, row, place.given)
        usual = settings.resolve(method, preset, row, {})
        facts = Facts(
            shots=self.draws.shots(place),
            n_classes=len(place.dataset.classnames),
            n_support=len(self.draws.of(place).train),
            n_prompts=prompts.size,
            recipe_as=row,
            tower=backbone.family,
            preset=preset,
        )
        return values, {k: v for k, v in place.given.items() if v != usual[k]}, facts

    def _parts(
        self,
        place: Place,
        prompts: PromptSet,
        values: Mapping[str, Any],
        recipe: Recipe,
        after: Mapping[str, str],
    ) -> FitKey:
        """Return everything that may change the fit, from which its key is made.

        ``values``: the settings that the fit can read. ``after``: the keys of the fits whose states it reads.
        """
        method, dataset, backbone = place.method, place.dataset, place.backbone
        return FitKey(
            method=method.name,
            version=method.version,
            settings=dict(values),
            recipe=asdict(recipe),
            dataset=dataset.digest,
            draw=self.draws.of(place).digest,
            draw_kind=keys.FOLD if place.shots == ALL else keys.FEW_SHOT,
            shots=place.shots,
            seed=place.seed,
            weights=backbone.digest,
            preprocessing=prepared(backbone, dataset.source),
            prompts=prompts.digest,
            protocol=self.request.protocol,
            encode_dtype=backbone.dtype,
            after=dict(after),
            source=self.registry.digests.get(canonical(method.name), ""),
            sentences=not prompts.templates,
            engine=keys.ENGINE,
        )

    def _cell(self, place: Place, prompts: PromptSet, preset: str) -> Cell:
        """Return the coordinates of a fit by name, as records and tables show them."""
        return Cell(
            method=place.method.name,
            dataset=place.dataset.name,
            shots=place.shots,
            seed=place.seed,
            backbone=place.backbone.name,
            prompts=prompts.name,
            protocol=self.request.protocol,
            preset=preset,
        )

    def _note_other_names(self, known: Planned, again: Planned) -> None:
        """Note that one fit was asked for under two names of a prompt set, a dataset or a backbone."""
        if known.cell.prompts != again.cell.prompts:
            self.equal.add((again.dataset.name, known.cell.prompts, again.cell.prompts))
        for what in ("dataset", "backbone"):
            if (first := getattr(known.cell, what)) != (name := getattr(again.cell, what)):
                self.twins.add((what, first, name))

    def _evaluations(
        self, fit: Planned, values: Mapping[str, Any], changed: Mapping[str, Any]
    ) -> list[Evaluation]:
        """Return the fit's evaluations: on its own test set and, if asked for, on shifted ones.

        A shifted test set is blocked if its files are not here or its classes are not those of the dataset.
        """
        shifted = self.request.targets and fit.dataset.whole is None
        names = [fit.dataset.name, *(fit.dataset.spec.targets if shifted else ())]
        evaluations = []
        for name in names:
            try:
                target = (
                    fit.dataset if name == fit.dataset.name else matched(self._dataset(name), fit.dataset)
                )
            except (MissingData, Unmatched) as error:
                self._block(fit.cell.method, name, str(error))
                continue
            parts = EvaluationKey(
                fit=fit.key, target=target.digest, values=dict(values), opening=opening_of(target.source)
            )
            evaluations.append(Evaluation(target, dict(values), parts, parts.digest(), changed))
        return evaluations


def _printed_name(
    one: Dataset | BackboneSpec, identity: str, others: Iterable[Dataset | BackboneSpec]
) -> str:
    """Return the name to print for a dataset or backbone.

    If another one has the same name, digits of the identity are added, such as ``birds-4f1c2a``.
    """
    taken = any(other.name == one.name and other.digest != one.digest for other in others)
    return told_apart(one.name, identity) if taken else one.name
