"""From a request to a plan: every fit and evaluation with its keys, before any image is opened. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from bench import prompts as prompt_sets
from bench.clip.backbone import BackboneSpec, resolve
from bench.data import catalog, fewshot
from bench.data.dataset import Dataset, Draw
from bench.errors import BenchError, MissingData
from bench.features.key import prepared
from bench.interface import Facts, Method
from bench.names import canonical
from bench.plan import protocols, settings
from bench.plan.cells import TUNED, Blocked, Evaluation, Plan, Planned
from bench.plan.request import Request
from bench.records import keys, places
from bench.records.keys import EvaluationKey, FitKey
from bench.records.types import Cell
from bench.registry import Registry


def make(request: Request, registry: Registry) -> Plan:
    """The plan of a request: breadth first, one seed of everything, then the next.

    Raises BenchError for unknown names and values; missing data only blocks the cells that need it.
    """
    return _Planner(request, registry).plan()


class _Planner:
    """Caches what many cells share: backbones, datasets, draws, prompt sets."""

    def __init__(self, request: Request, registry: Registry) -> None:
        self.request = request
        self.registry = registry
        dtype = keys.dtype(request.precision)
        self.backbones = {
            name: replace(resolve(name, request.allow_torchscript), dtype=dtype) for name in request.backbones
        }
        self.datasets: dict[str, Dataset] = {}
        self.draws: dict[tuple[str, int, int], Draw] = {}
        self.fits: dict[str, Planned] = {}
        self.blocked: dict[tuple[str, str, str], Blocked] = {}
        self.equal: set[tuple[str, str, str]] = set()
        self.twins: set[tuple[str, str, str]] = set()
        protocols.check(request.protocol)
        settings.check_preset(request.preset, registry.methods.values())

    def plan(self) -> Plan:
        r = self.request
        methods = [self.registry.get(name) for name in dict.fromkeys(r.methods)]
        found = self._found(r.datasets)
        for backbone in self.backbones.values():
            for method in methods:
                for dataset in found:
                    self._cells(method, dataset, 0, 0, backbone)
            for seed in r.seeds:
                for dataset in found:
                    for shots in r.shots:
                        for method in methods:
                            self._cells(method, dataset, shots, seed, backbone)
        fits = sorted(self.fits.values(), key=lambda f: f.cell.seed)  # stable: keeps the order within a seed
        return Plan(fits, list(self.blocked.values()), frozenset(self.equal), frozenset(self.twins))

    def _found(self, names: tuple[str, ...]) -> list[Dataset]:
        found = []
        for name in dict.fromkeys(names):
            try:
                found.append(self._dataset(name))
            except MissingData as error:
                for method in self.request.methods:
                    self._block(method, name, str(error))
        return found

    def _dataset(self, name: str) -> Dataset:
        if name not in self.datasets:
            out = self.request.results / "splits"
            self.datasets[name] = catalog.find(name, self.request.data_root, out=out)
        return self.datasets[name]

    def _block(self, method: str, dataset: str, reason: str) -> None:
        self.blocked.setdefault((method, dataset, reason), Blocked(method, dataset, reason))

    def _cells(self, method: Method, dataset: Dataset, shots: int, seed: int, backbone: BackboneSpec) -> None:
        if dataset.spec.source:
            raise BenchError(
                f"{dataset.name} is a test set for models of {dataset.spec.source}: "
                f"run --datasets {dataset.spec.source} --targets instead"
            )
        given = self.request.overrides.get(canonical(method.name), {})
        for prompts in (self.request.prompts if method.uses_prompts else ()) or method.prompts:
            # What sees labels, the method or its prompts, has shots and a seed; the rest is computed once.
            if (method.uses_labels or prompt_sets.labelled(prompts)) != (shots > 0):
                continue
            for swept in self.request.sweeps.get(canonical(method.name), [{}]):
                try:
                    self._fit(method, dataset, shots, seed, backbone, prompts, {**given, **swept}, asked=True)
                except MissingData as error:
                    self._block(method.name, dataset.name, str(error))

    def _fit(
        self,
        method: Method,
        dataset: Dataset,
        shots: int,
        seed: int,
        backbone: BackboneSpec,
        prompts: str,
        overrides: Mapping[str, Any],
        asked: bool,
    ) -> Planned | None:
        if backbone.family not in method.towers:
            reason = (
                f"{method.name} works on {' and '.join(method.towers)} towers, {backbone.name} is "
                f"'{backbone.family}'"
            )
            self._block(method.name, dataset.name, reason)
            return None
        preset = self.request.preset or backbone.preset
        built = prompt_sets.build(prompts, dataset.spec, dataset.classnames, self.request.prompt_dir)
        if built.select and not protocols.validates(self.request.protocol):
            reason = (
                f"{built.name} chooses templates on validation images, which protocol "
                f"{self.request.protocol} leaves alone"
            )
            self._block(method.name, dataset.name, reason)
            return None
        reads = {name: (name, prompts) for name in method.after}
        if built.tuned_by:
            reads[TUNED] = (built.tuned_by, built.tuned_from)
        after = {}
        for role, (name, texts) in reads.items():
            given = self.request.overrides.get(canonical(name), {})
            found = self._fit(
                self.registry.get(name), dataset, shots, seed, backbone, texts, given, asked=False
            )
            if found is None:
                return None
            after[role] = found
        values = settings.resolve(method, preset, dataset.spec.recipe_as, overrides)
        usual = settings.resolve(method, preset, dataset.spec.recipe_as, {})
        changed = {k: v for k, v in overrides.items() if v != usual[k]}
        draw = self._draw(dataset, shots, seed)
        facts = Facts(
            shots,
            len(dataset.classnames),
            len(draw.train),
            built.size,
            dataset.spec.recipe_as,
            backbone.family,
            preset,
        )
        recipe = protocols.apply(self.request.protocol, method.recipe(values, facts))
        parts = FitKey(
            method=method.name,
            version=method.version,
            settings={k: v for k, v in values.items() if k not in method.inference},
            recipe=asdict(recipe),
            dataset=dataset.digest,
            draw=draw.digest,
            shots=shots,
            seed=seed,
            weights=backbone.digest,
            preprocessing=prepared(backbone),
            prompts=built.digest,
            protocol=self.request.protocol,
            encode_dtype=backbone.dtype,
            after={role: fit.key for role, fit in after.items()},
            source=self.registry.digests.get(canonical(method.name), ""),
            sentences=not built.templates,
            engine=keys.ENGINE,
        )
        key = parts.digest()
        inference = {k: values[k] for k in method.inference}
        late = {k: v for k, v in changed.items() if k in method.inference}
        cell = Cell(
            method=method.name,
            dataset=dataset.name,
            shots=shots,
            seed=seed,
            backbone=backbone.name,
            prompts=built.name,
            protocol=self.request.protocol,
            preset=preset,
        )
        planned = self.fits.get(key)
        if planned is None:
            where = places.folder(self.request.results, backbone.name, dataset.name, method.name)
            early = {k: v for k, v in changed.items() if k not in method.inference}
            planned = Planned(
                cell,
                method,
                values,
                recipe,
                facts,
                dataset,
                draw,
                built,
                backbone,
                after,
                parts,
                key,
                where,
                early,
                asked=asked,
            )
        elif planned.cell.prompts != built.name:
            self.equal.add((dataset.name, planned.cell.prompts, built.name))
        for kind in ("dataset", "backbone"):
            if (first := getattr(planned.cell, kind)) != (name := getattr(cell, kind)):
                self.twins.add((kind, first, name))
        evaluations = self._evaluations(planned, inference, late) if asked else ()
        merged = {e.key: e for e in (*planned.evaluations, *evaluations)}
        planned = replace(planned, evaluations=tuple(merged.values()), asked=planned.asked or asked)
        self.fits[key] = planned
        return planned

    def _evaluations(
        self, fit: Planned, values: Mapping[str, Any], changed: Mapping[str, Any]
    ) -> list[Evaluation]:
        names = [fit.dataset.name, *(fit.dataset.spec.targets if self.request.targets else ())]
        found = []
        for name in names:
            try:
                target = fit.dataset if name == fit.dataset.name else self._dataset(name)
            except MissingData as error:
                self._block(fit.cell.method, name, str(error))
                continue
            parts = EvaluationKey(fit=fit.key, target=target.digest, values=dict(values))
            found.append(Evaluation(target, dict(values), parts, parts.digest(), changed))
        return found

    def _draw(self, dataset: Dataset, shots: int, seed: int) -> Draw:
        key = (dataset.name, shots, seed)
        if key not in self.draws:
            self.draws[key] = fewshot.draw(dataset, shots, seed)
        return self.draws[key]
