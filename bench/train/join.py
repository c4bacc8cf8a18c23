"""Train several tasks together: seeds and shots of one recipe become lanes of one stack.

The stack is mapped over lanes on the outside and over replicas on the inside. Each lane has its own orders,
starts, checkpoints and choices, so it ends as it would alone, except for rounding. Support sets may differ in
size if all steps have batches of equal shape. Constants that are equal in all lanes are used once, and
tensors of one shape that differ are stacked. With any other difference tasks cannot join.

Legend: G lanes, R replicas, B batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from bench.interface import Method, Params, Rows, Values
from bench.recipe import Recipe
from bench.train import graphs, loop, pure, slices, span
from bench.train import score as scoring
from bench.train.blocks import Sizes
from bench.train.keep import Labelled, LaneScorer, Trained
from bench.train.loop import Lane

Path = tuple[Any, ...]  # the keys and positions that lead to a constant


class Apart(Exception):
    """The error of tasks that cannot join. Its message says why."""


def train(
    method: Method,
    recipe: Recipe,
    lanes: Sequence[Lane],
    values: Sequence[Values],
    settings: Values,
    most: int = slices.PROCESSOR,
) -> list[Trained]:
    """Train every lane as ``loop.train`` does, all in one loop.

    ``most``: bytes of validation features that are scored at once. Raises Apart if the lanes cannot join.
    """
    if not method.fuse:
        raise Apart("replicas are trained one after the other")
    if method.micro is not None:
        raise Apart("batches go through the losses in pieces")
    G, R = len(lanes), len(values)
    check(recipe, lanes)
    shared, varying = merged([lane.consts for lane in lanes])
    first = next(iter(lanes[0].start[0].values()))
    axes, host = loop.axes_of(values, recipe, first.device, first.dtype), graphs.Host(_no_noise)

    def differentiate(params: Params, index_B: Tensor, sizes: Sizes, step: int) -> tuple[Tensor, Params]:
        parts = iter(torch.split(index_B, list(sizes)))
        drawn = [
            {name: loop.rows_at(lane.pools[name], next(parts), first.dtype) for name in recipe.streams}
            for lane in lanes
        ]
        rows = {
            name: {k: torch.stack([getattr(d[name], k) for d in drawn]) for k in ("x", "y", "index")}
            for name in drawn[0]
        }

        def losses_of_lane(
            params_R: Params, own: dict[Path, Tensor], rows: dict[str, dict[str, Tensor]]
        ) -> dict[str, Tensor]:
            consts = placed(shared, own)
            batch = graphs.WatchedBatch({name: Rows(**r) for name, r in rows.items()}, step, host)
            return loop.losses_of(method, consts, params_R, batch, settings, axes)

        def combine(grads: dict[str, Params]) -> Params:
            return loop.combined(method, grads, settings, axes)

        with torch.enable_grad():
            nested = {name: torch.unflatten(p, 0, (G, R)) for name, p in params.items()}
            losses = torch.func.vmap(losses_of_lane, randomness="same")(nested, varying, rows)
            grads = loop.derivatives(losses, params)
        if type(method).combine is not Method.combine:
            by_lane = {
                loss: {k: torch.unflatten(g, 0, (G, R)) for k, g in named.items()}
                for loss, named in grads.items()
            }
            one = torch.func.vmap(combine)(by_lane)
            return _first(losses), {k: g.flatten(0, 1) for k, g in one.items()}
        return _first(losses), combine(grads)

    score = scorer(method, recipe, lanes, shared, varying, settings, most)
    return loop.advance(recipe, lanes, values, settings, differentiate, host, score)


def scorer(
    method: Method,
    recipe: Recipe,
    lanes: Sequence[Lane],
    shared: Any,
    varying: Mapping[Path, Tensor],
    settings: Values,
    most: int,
) -> LaneScorer | None:
    """Return a scorer of lanes, or None if there are no validation images.

    It scores each lane as ``score.scorer`` does. Lanes whose validation features have equal shapes are scored
    in one call if these are small enough (``slices.together``). Raises Apart if only some lanes have
    validation images.
    """
    vals = [lane.val for lane in lanes if lane.val is not None]
    if not vals:
        return None
    if len(vals) < len(lanes):
        raise Apart("some have no validation images")
    limit = slices.Limit(most)
    alone = [
        scoring.scorer(method, recipe, lane.consts, settings, val, limit)
        for lane, val in zip(lanes, vals, strict=True)
    ]
    of = Checked(method, recipe, scoring.checked_at(method, recipe, settings), vals, shared, varying, limit)

    def score(params: Params, values: Sequence[Values], asked: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        R, found = len(values), dict[int, tuple[Tensor, Tensor]]()
        groups: dict[tuple[torch.Size, ...], list[int]] = {}
        for g in asked:
            groups.setdefault(tuple(x.shape for x in vals[g].features.values()), []).append(g)
        for group in groups.values():
            val = vals[group[0]]
            whole = len(val.y) * scoring.image_bytes(val.features) * R
            if len(group) > 1 and whole <= slices.together(val.y.device):
                found |= zip(group, zip(*_in_one_call(of, params, values, group), strict=True), strict=True)
                continue
            for g in group:
                own = {name: p[g * R : (g + 1) * R] for name, p in params.items()}
                found[g] = alone[g](own, values)
        return [found[g] for g in asked]

    return score


@dataclass(frozen=True)
class Checked:
    """What a validation check of lanes needs.

    ``base``: the values for ``logits`` except those of the grid. ``vals``: the lanes' validation images.
    ``shared``, ``varying``: the constants, as ``merged`` returns them. ``limit``: bytes of features in a
    slice, times replicas and lanes.
    """

    method: Method
    recipe: Recipe
    base: Mapping[str, Any]
    vals: Sequence[Labelled]
    shared: Any
    varying: Mapping[Path, Tensor]
    limit: slices.Limit


def _in_one_call(
    of: Checked, params: Params, values: Sequence[Values], group: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return accuracy and negative loss, (g, R) each, of g lanes whose validation features have one shape."""
    first, G, R = of.vals[group[0]], len(of.vals), len(values)
    params = {name: torch.unflatten(p.detach(), 0, (G, R)) for name, p in params.items()}
    own: dict[Path, Tensor] = dict(of.varying)
    if len(group) < G:
        at = torch.tensor(group, device=first.y.device)
        params = {name: p.index_select(0, at) for name, p in params.items()}
        own = {path: x.index_select(0, at) for path, x in own.items()}
    axes = loop.axes_of(values, of.recipe, first.y.device, next(iter(params.values())).dtype)

    def logits_of_lane(params_R: Params, own: dict[Path, Tensor], features: dict[str, Tensor]) -> Tensor:
        consts = placed(of.shared, own)

        def logits(p: Params, a: Values) -> Tensor:
            return of.method.logits(p, consts, features, {**of.base, **a})

        made: Tensor = loop.map_replicas(logits, of.method.fuse, params_R, axes)
        return made

    def of_slice(part: slice) -> tuple[Tensor, Tensor]:
        features = {
            tap: torch.stack([of.vals[g].features[tap][part] for g in group]) for tap in first.features
        }
        with pure.call(of.method, "logits", params=params, constants=of.shared, own=own, features=features):
            logits_gRBK = torch.func.vmap(logits_of_lane, randomness="same")(params, own, features)
        return scoring.counted(logits_gRBK, torch.stack([of.vals[g].y[part] for g in group]))

    each = scoring.image_bytes(first.features) * R * len(group)
    return scoring.summed(len(first.y), each, of.limit, of_slice)


def _first(losses: Mapping[str, Tensor]) -> Tensor:
    """Return the first of the named losses for all lanes and replicas (G * R,)."""
    return next(iter(losses.values())).detach().flatten()


def _no_noise(step: int) -> Generator:
    """Raise Apart, because each lane would need noise of its own seed."""
    raise Apart("the losses draw noise of their own seed")


def check(recipe: Recipe, lanes: Sequence[Lane]) -> None:
    """Raise Apart unless the lanes have equal shapes of start tensors and, at each step, of batches."""
    if reason := span.apart(recipe, [loop.sizes(lane.pools) for lane in lanes]):
        raise Apart(reason)
    for name in recipe.streams:
        pools = [lane.pools[name] for lane in lanes]
        if len({(pool.x.shape[1:], pool.x.dtype, pool.y.dtype) for pool in pools}) > 1:
            raise Apart(f"the rows of stream '{name}' differ in shape")
    starts = [
        [{name: (p.shape, p.dtype) for name, p in start.items()} for start in lane.start] for lane in lanes
    ]
    if any(start != starts[0] for start in starts):
        raise Apart("what is trained differs in shape")


def merged(consts_G: Sequence[Any], path: Path = ()) -> tuple[Any, dict[Path, Tensor]]:
    """Merge the lanes' constants: return those that are equal, and the tensors that differ, stacked (G, ...).

    Mappings, tuples and lists are searched, and a stacked tensor is named by its path in them. Raises Apart
    if a dataclass, a plain value or a tensor's shape differs, or if another object is not the same one.
    """
    first = consts_G[0]
    where = ".".join(map(str, path))
    if any(type(c) is not type(first) for c in consts_G):
        raise Apart(f"the constants '{where}' are of several kinds")
    if isinstance(first, Tensor):
        if any((c.shape, c.dtype, c.device) != (first.shape, first.dtype, first.device) for c in consts_G):
            raise Apart(f"the constants '{where}' differ in shape")
        if all(c is first or torch.equal(c, first) for c in consts_G):
            return first, {}
        return first, {path: torch.stack([c.detach() for c in consts_G])}
    if isinstance(first, Mapping):
        if any(list(c) != list(first) for c in consts_G):
            raise Apart(f"the constants '{where}' have different entries")
        entries = {key: merged([c[key] for c in consts_G], (*path, key)) for key in first}
        return {key: s for key, (s, _) in entries.items()}, {
            k: v for _, more in entries.values() for k, v in more.items()
        }
    if type(first) in (tuple, list):
        if any(len(c) != len(first) for c in consts_G):
            raise Apart(f"the constants '{where}' have different lengths")
        items = [merged([c[i] for c in consts_G], (*path, i)) for i in range(len(first))]
        return type(first)(s for s, _ in items), {k: v for _, more in items for k, v in more.items()}
    if is_dataclass(first) and not all(c is first for c in consts_G):
        # Each task made its own instance. They may join if the instances hold equal values.
        fields = [{f.name: getattr(c, f.name) for f in dataclasses.fields(c)} for c in consts_G]
        if merged(fields, path)[1]:
            raise Apart(f"the constants '{where}' hold tensors that differ")
        return first, {}
    plain = isinstance(first, bool | int | float | str | None)
    if not all(c is first or (plain and c == first) for c in consts_G):
        raise Apart(f"the constants '{where}' are not tensors and differ")
    return first, {}


def placed(shared: Any, own: Mapping[Path, Any], path: Path = ()) -> Any:
    """Return the constants of one lane: ``shared``, with its ``own`` tensors put in at their paths."""
    if path in own:
        return own[path]
    if not any(k[: len(path)] == path for k in own):
        return shared
    if isinstance(shared, Mapping):
        return {key: placed(value, own, (*path, key)) for key, value in shared.items()}
    return type(shared)(placed(value, own, (*path, i)) for i, value in enumerate(shared))
