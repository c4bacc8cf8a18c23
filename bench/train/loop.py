"""Train all replicas of a fit together. All get the same batches, and each has its own learning rate.

Each replica keeps its best checkpoint. The loop calls a method's ``losses`` and ``combine`` on the tensors of
one replica and maps them over the stack of all replicas.

Legend: R replicas, V views, N support images, B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.interface import (
    Batch,
    Consts,
    Method,
    Params,
    Rows,
    Values,
    fit_values,
)
from bench.recipe import LR, WD, Recipe, Stream, drawn, steps_of
from bench.train import batches, graphs, heap, optim, rng, schedule, span
from bench.train.blocks import Sizes, blocks
from bench.train.keep import Labelled, LaneScorer, Scorer, Track, Trained, read


@dataclass(frozen=True)
class Pool:
    """All rows that a stream may draw: features (V * N, ...) view-major in any float type, labels (N,)."""

    x: Tensor
    y: Tensor
    views: int = 1

    @property
    def images(self) -> int:
        """Return N."""
        return len(self.y)


@dataclass(frozen=True)
class Lane:
    """One task of a run: its constants, its replicas' first tensors, a pool for each stream, and its seed.

    ``val``: the validation images, which checks score if lanes join.
    """

    consts: Consts
    start: Sequence[Params]
    pools: Mapping[str, Pool]
    seed: int
    val: Labelled | None = None


# (parameters (G * R, ...), pool positions, rows of each lane's streams, step) -> losses (G * R,), gradients
Differentiate = Callable[[Params, Tensor, Sizes, int], tuple[Tensor, Params]]


def stack(replicas: Sequence[Params]) -> Params:
    """Stack the named tensors of R replicas on a leading axis, contiguous and with gradients."""
    return {
        k: torch.stack([r[k].detach() for r in replicas]).contiguous().requires_grad_() for k in replicas[0]
    }


def replica(params: Params, r: int) -> Params:
    """Return one replica's tensors."""
    return {name: p[r] for name, p in params.items()}


def axes_of(
    values: Sequence[Values], recipe: Recipe, device: torch.device, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Return the grid's values of every replica as tensors (R,) of type ``dtype``, to be mapped over."""
    return {a: torch.tensor([float(v[a]) for v in values], dtype=dtype, device=device) for a in recipe.grid}


def map_replicas(fn: Callable[..., Any], fuse: bool, *stacked: Any) -> Any:
    """Map ``fn`` over the leading axis of every tensor in ``stacked``: in one call, or replica by replica."""
    leaves = [x for s in stacked for x in _leaves(s)]
    R = len(leaves[0])
    if R > 1 and fuse:
        return torch.func.vmap(fn, randomness="same")(*stacked)
    parts = [fn(*(_pick(s, r) for s in stacked)) for r in range(R)]
    return _stacked(parts)


def _leaves(tree: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested mappings."""
    if isinstance(tree, Mapping):
        for value in tree.values():
            yield from _leaves(value)
    else:
        yield tree


def _pick(tree: Any, r: int) -> Any:
    """Return entry ``r`` of every tensor in nested mappings."""
    return {k: _pick(v, r) for k, v in tree.items()} if isinstance(tree, Mapping) else tree[r]


def _stacked(parts: Sequence[Any]) -> Any:
    """Stack the tensors of equal nested mappings."""
    if isinstance(parts[0], Mapping):
        return {k: _stacked([p[k] for p in parts]) for k in parts[0]}
    return torch.stack(list(parts))


def orders(
    streams: Mapping[str, Stream], pools: Mapping[str, Pool], seed: int, steps: int
) -> tuple[int, Iterator[dict[str, Any]]]:
    """Return the steps per epoch of the longest stream, and the pool positions of every step.

    A step has positions (B,) for each stream. They are drawn one step at a time. Tests compare them with
    those that ``all_orders`` draws for many steps at once.
    """
    sequences = {}
    for name, stream in streams.items():
        pool = pools[name]
        n_rows, batch = drawn(stream, pool.images, pool.views)
        sequences[name] = batches.index_batches(
            stream.order, n_rows, batch, key=(seed, "order", name), steps=steps, n_images=pool.images
        )
    return epoch_length(streams, pools), _zipped(streams, pools, sequences)


def _zipped(
    streams: Mapping[str, Stream], pools: Mapping[str, Pool], sequences: Mapping[str, Iterator[Any]]
) -> Iterator[dict[str, Any]]:
    for parts in zip(*sequences.values(), strict=True):
        yield {
            name: batches.locate(
                streams[name].rows, rows, epoch, pools[name].images, pools[name].views, streams[name].first
            )
            for name, (epoch, rows) in zip(sequences, parts, strict=True)
        }


def all_orders(streams: Mapping[str, Stream], lanes: Sequence[Lane]) -> list[batches.Order]:
    """Return the orders of all lanes' streams, lane by lane. Streams that draw alike share one object."""
    known: dict[batches.Drawing, batches.Order] = {}

    def of_stream(lane: Lane, name: str, s: Stream) -> batches.Order:
        images, views = lane.pools[name].images, lane.pools[name].views
        key = (lane.seed, "order", name)
        drawing = batches.Drawing(s.order, *drawn(s, images, views), key, s.rows, images, views, s.first)
        return known.setdefault(drawing, batches.Order(drawing))

    return [of_stream(lane, name, s) for lane in lanes for name, s in streams.items()]


def epoch_length(streams: Mapping[str, Stream], pools: Mapping[str, Pool]) -> int:
    """Return the steps of one epoch of the longest stream."""
    return span.epoch(streams, sizes(pools))


def sizes(pools: Mapping[str, Pool]) -> dict[str, span.Size]:
    """Return the images and views of every pool."""
    return {name: (pool.images, pool.views) for name, pool in pools.items()}


def gather(pool: Pool, positions: Any, device: torch.device, dtype: torch.dtype) -> Rows:
    """Return the rows at ``positions``, on the device and in type ``dtype``."""
    return rows_at(pool, torch.from_numpy(positions).to(device), dtype)


def rows_at(pool: Pool, index_B: Tensor, dtype: torch.dtype) -> Rows:
    """Gather the rows at ``index_B`` where the pool lies, and return them on the device of ``index_B``."""
    x = pool.x[index_B.to(pool.x.device)].to(device=index_B.device, dtype=dtype)
    y = pool.y[(index_B % pool.images).to(pool.y.device)].to(index_B.device)
    return Rows(x, y, index_B)


def resident(pools: Mapping[str, Pool], device: torch.device) -> bool:
    """Return whether all rows lie on the device."""
    return all(t.device == device for pool in pools.values() for t in (pool.x, pool.y))


def gradients(
    method: Method, consts: Consts, params: Params, batch: Batch, settings: Values, axes: Mapping[str, Tensor]
) -> tuple[Tensor, Params]:
    """Return the replicas' first losses (R,) and their combined gradients (R, ...).

    A batch larger than ``method.micro`` goes through in pieces. Each replica's loss depends on its own
    tensors only, so the gradient of the sum is the gradient of each.
    """
    loss_R: Tensor | None = None
    grads: dict[str, Params] = {}
    for share, piece in graphs.watched(batch).pieces(method.micro):
        with torch.enable_grad():
            losses = losses_of(method, consts, params, piece, settings, axes)
            own = derivatives(losses, params)
        first = next(iter(losses.values())).detach()
        if loss_R is None:
            loss_R, grads = (first, own) if share == 1.0 else (share * first, _scaled(own, share))
        else:
            loss_R = loss_R + share * first
            _add(grads, own, share)
    assert loss_R is not None
    return loss_R, combined(method, grads, settings, axes)


def _scaled(grads: dict[str, Params], by: float) -> dict[str, Params]:
    return {loss: {name: by * g for name, g in named.items()} for loss, named in grads.items()}


def _add(grads: dict[str, Params], more: dict[str, Params], share: float) -> None:
    for loss, named in more.items():
        for name, g in named.items():
            grads[loss][name].add_(g, alpha=share)


def losses_of(
    method: Method, consts: Consts, params: Params, batch: Batch, settings: Values, axes: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return every named loss of every replica, (R,)."""
    own, shared = graphs.watched(batch), fit_values(method, settings)

    def losses(p: Params, a: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # Every replica gets the same noise, however replicas are grouped.
        return method.losses(p, consts, own.again(), shared.with_(a))

    by_name: dict[str, Tensor] = map_replicas(losses, method.fuse, params, dict(axes))
    return by_name


def derivatives(losses: Mapping[str, Tensor], params: Params) -> dict[str, Params]:
    """Return the gradients of each named loss, shaped as the stacked parameters."""
    grads, leaves = {}, list(params.values())
    for i, (name, loss_R) in enumerate(losses.items()):
        keep = i + 1 < len(losses)
        parts = torch.autograd.grad(loss_R.sum(), leaves, retain_graph=keep, materialize_grads=True)
        grads[name] = dict(zip(params, parts, strict=True))
    return grads


def combined(
    method: Method, grads: dict[str, Params], settings: Values, axes: Mapping[str, Tensor]
) -> Params:
    """Combine the gradients of the named losses into one (R, ...), as the method says."""
    if type(method).combine is Method.combine:
        return grads["loss"]
    shared = fit_values(method, settings)
    one: Params = map_replicas(
        lambda g, a: method.combine(g, shared.with_(a)), method.fuse, grads, dict(axes)
    )
    return one


def rate_table(
    recipe: Recipe, values: Sequence[Values], settings: Values, steps: int, per_epoch: int
) -> Tensor:
    """Return the learning rate of every replica at every step, (steps, R) float64."""
    assert recipe.schedule is not None
    columns = [
        schedule.rates(recipe.schedule, float(v.get(LR, settings.get(LR, 0.0))), steps, per_epoch)
        for v in values
    ]
    return torch.stack([torch.from_numpy(c) for c in columns], 1)


def train(
    method: Method,
    recipe: Recipe,
    consts: Consts,
    start: Sequence[Params],
    values: Sequence[Values],
    settings: Values,
    pools: Mapping[str, Pool],
    seed: int,
    score: Scorer | None,
) -> Trained:
    """Train ``len(values)`` replicas from ``start`` together.

    ``values`` are grid points, and ``settings`` is what all replicas share. ``score(params, values)`` returns
    validation accuracy and negative loss per replica, (R,) each; without it nothing is checked and the last
    step is kept. The result is deterministic: orders and noise depend on ``seed`` and the stream's name
    alone, never on how replicas are grouped.
    """
    host = graphs.Host(lambda step: rng.generator(seed, "noise", step))
    axes = axes_of(values, recipe, *_place(start))

    def differentiate(params: Params, index_B: Tensor, sizes: Sizes, step: int) -> tuple[Tensor, Params]:
        parts = torch.split(index_B, list(sizes))
        dtype = next(iter(params.values())).dtype
        rows = {
            name: rows_at(pools[name], part, dtype) for name, part in zip(recipe.streams, parts, strict=True)
        }
        batch = graphs.WatchedBatch(rows, step, host)
        return gradients(method, consts, params, batch, settings, axes)

    def score_one(
        params: Params, values: Sequence[Values], lanes: Sequence[int]
    ) -> list[tuple[Tensor, Tensor]]:
        assert score is not None
        return [score(params, values)]

    lanes, checks = [Lane(consts, start, pools, seed)], score_one if score else None
    return advance(recipe, lanes, values, settings, differentiate, host, checks)[0]


def advance(
    recipe: Recipe,
    lanes: Sequence[Lane],
    values: Sequence[Values],
    settings: Values,
    differentiate: Differentiate,
    host: graphs.Host,
    score: LaneScorer | None,
) -> list[Trained]:
    """Train the replicas of all lanes, step by step. Each lane is checked, kept and ended as if alone.

    All lanes have batches of one shape and the same number of steps. Epochs may differ between lanes, and so
    may the rates and checks that follow epochs.
    """
    assert recipe.optim is not None
    G, R = len(lanes), len(values)
    params = stack([start for lane in lanes for start in lane.start])
    device, _ = _place([params])
    epochs = [epoch_length(recipe.streams, lane.pools) for lane in lanes]
    steps = steps_of(recipe, epochs[0])
    tables = {per_epoch: rate_table(recipe, values, settings, steps, per_epoch) for per_epoch in set(epochs)}
    table_SR = torch.cat([tables[per_epoch] for per_epoch in epochs], 1).to(device)
    optimiser = optim.make(
        recipe.optim, params, [float(v.get(WD, settings.get(WD, 0.0))) for v in values] * G
    )
    tracks = [Track(_part(params, g, R), score is not None, recipe) for g in range(G)]

    def make_step(index_B: Tensor, lr_R: Tensor, sizes: Sizes, step: int) -> Tensor:
        loss_R, grads = differentiate(params, index_B, sizes, step)
        optimiser.step(grads, lr_R)
        return loss_R

    recorder = graphs.capturer(device)
    all_there = all(resident(lane.pools, device) for lane in lanes)
    checked = recipe.select == "best" and score is not None
    eager = graphs.obstacle(all_there, steps) if recorder else ""
    launch = graphs.Launcher(make_step, host, recorder, eager)

    def due(step: int, *lengths: int) -> bool:
        return checked and any(_due(step, recipe.check_every, per_epoch) for per_epoch in lengths)

    def judge(done: int, loss_R: Tensor) -> None:
        running = [g for g, track in enumerate(tracks) if not track.over]
        for g in running:
            tracks[g].out.steps = done
        now = [g for g in running if due(done - 1, epochs[g])]
        if now and score:
            scores = zip(now, score(_detached(params), values, now), strict=True)
            found = read([(*pair, loss_R[g * R : (g + 1) * R]) for g, pair in scores])
            for g, scored in zip(now, found, strict=True):
                tracks[g].check(done - 1, *scored)

    ahead = blocks(all_orders(recipe.streams, lanes), steps, lambda step: due(step, *tables), device)
    done, largest = 0, max(p.numel() * p.element_size() for p in params.values())
    with heap.kept(largest if device.type == "cpu" else 0), launch:
        block = next(ahead, [])
        while block:
            for index_B, sizes in block:
                loss_R = launch(index_B, table_SR[done], sizes, done)
                done += 1
            block = next(ahead, [])  # drawn before the check, which waits for the GPU to finish the steps
            judge(done, loss_R)
            if all(track.over for track in tracks):
                break
    last = [[torch.zeros(R)] * 2] * G
    if score and not checked:
        last = read(score(_detached(params), values, range(G)))
    return [track.finish(launch.graphs, launch.eager, *end) for track, end in zip(tracks, last, strict=True)]


def _detached(params: Params) -> Params:
    return {name: p.detach() for name, p in params.items()}


def _place(stacked: Sequence[Params]) -> tuple[torch.device, torch.dtype]:
    """Return the device and the type of the first tensor."""
    first = next(iter(stacked[0].values()))
    return first.device, first.dtype


def _part(params: Params, g: int, R: int) -> Params:
    """Return the replicas of lane ``g``, which share memory with the whole stack."""
    return {name: p[g * R : (g + 1) * R] for name, p in _detached(params).items()}


def _due(step: int, every: int | None, per_epoch: int) -> bool:
    """Return whether a check follows this step."""
    return (step + 1) % per_epoch == 0 if every is None else step % every == 0
