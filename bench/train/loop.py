"""The training loop: all replicas of a fit together, one batch for all of them, per-replica rates and best checkpoints.

Knows no method by name: it calls ``losses`` and ``combine`` on one replica's tensors and maps them over the stack.
Legend: R replicas, V views, N support images, B batch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.interface import LR, WD, Batch, Consts, Method, Params, Recipe, Rows, Stream, Values, steps_of
from bench.train import batches, graphs, optim, rng, schedule
from bench.train.blocks import Sizes, blocks


@dataclass(frozen=True)
class Pool:
    """All rows a stream may draw: features (V * N, ...) view-major in any float type, labels (N,)."""

    x: Tensor
    y: Tensor
    views: int = 1

    @property
    def images(self) -> int:
        """N."""
        return len(self.y)


Scorer = Callable[[Params, Sequence[Values]], tuple[Tensor, Tensor]]


@dataclass
class Trained:
    """The outcome of a group of replicas.

    ``params``: chosen checkpoint of every replica, (R, ...). ``score``: its criterion, larger is better (R,). ``step``: the
    0-based step after which it was taken. ``curve``: (step, accuracy per replica) of every check. ``steps``: steps made.
    ``graphs``: shapes of batches whose step was recorded and replayed; ``eager``: why others were not, on a device that can.
    """

    params: Params
    score: list[float]
    step: list[int]
    curve: list[tuple[int, list[float]]] = field(default_factory=list)
    steps: int = 0
    losses: list[tuple[int, list[float]]] = field(default_factory=list)
    graphs: int = 0
    eager: str = ""


def stack(replicas: Sequence[Params]) -> Params:
    """Named tensors of R replicas on a leading axis, contiguous and with gradients."""
    return {k: torch.stack([r[k].detach() for r in replicas]).contiguous().requires_grad_() for k in replicas[0]}


def replica(params: Params, r: int) -> Params:
    """One replica's tensors."""
    return {name: p[r] for name, p in params.items()}


def axes_of(
    values: Sequence[Values], recipe: Recipe, device: torch.device, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """The grid's values of every replica as tensors (R,), in the parameters' precision: what is mapped over."""
    return {a: torch.tensor([float(v[a]) for v in values], dtype=dtype, device=device) for a in recipe.grid}


def map_replicas(fn: Callable[..., Any], fuse: bool, *stacked: Any) -> Any:
    """``fn`` over the leading axis of every tensor in ``stacked``: in one call, or one replica after the other."""
    leaves = [x for s in stacked for x in _leaves(s)]
    R = len(leaves[0])
    if R > 1 and fuse:
        return torch.func.vmap(fn, randomness="same")(*stacked)
    parts = [fn(*(_pick(s, r) for s in stacked)) for r in range(R)]
    return _join(parts)


def _leaves(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Mapping):
        for value in tree.values():
            yield from _leaves(value)
    else:
        yield tree


def _pick(tree: Any, r: int) -> Any:
    return {k: _pick(v, r) for k, v in tree.items()} if isinstance(tree, Mapping) else tree[r]


def _join(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], Mapping):
        return {k: _join([p[k] for p in parts]) for k in parts[0]}
    return torch.stack(list(parts))


def orders(
    streams: Mapping[str, Stream], pools: Mapping[str, Pool], seed: int, steps: int
) -> tuple[int, Iterator[dict[str, Any]]]:
    """Steps per epoch of the longest stream and, for every step, the pool positions (B,) of each stream."""
    sequences, lengths = {}, []
    for name, stream in streams.items():
        pool = pools[name]
        n_rows = batches.pool_rows(stream.rows, pool.images, pool.views)
        batch = n_rows if stream.batch is None else stream.batch
        lengths.append(batches.steps_per_epoch(stream.order, n_rows, batch, pool.images))
        sequences[name] = batches.index_batches(
            stream.order, n_rows, batch, key=(seed, "order", name), steps=steps, n_images=pool.images
        )
    return max(lengths), _zipped(streams, pools, sequences)


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


def epoch_length(streams: Mapping[str, Stream], pools: Mapping[str, Pool]) -> int:
    """Steps that make one epoch (the longest stream's)."""
    return orders(streams, pools, 0, 1)[0]


def gather(pool: Pool, positions: Any, device: torch.device, dtype: torch.dtype) -> Rows:
    """The rows at ``positions``, on the device and in the parameters' precision."""
    return rows_at(pool, torch.from_numpy(positions).to(device), dtype)


def rows_at(pool: Pool, index_B: Tensor, dtype: torch.dtype) -> Rows:
    """The rows at ``index_B``, on its device: gathered where the pool lies, moved if that is elsewhere."""
    x = pool.x[index_B.to(pool.x.device)].to(device=index_B.device, dtype=dtype)
    y = pool.y[(index_B % pool.images).to(pool.y.device)].to(index_B.device)
    return Rows(x, y, index_B)


def resident(pools: Mapping[str, Pool], device: torch.device) -> bool:
    """Whether all rows lie on the device."""
    return all(t.device == device for pool in pools.values() for t in (pool.x, pool.y))


def gradients(
    method: Method, consts: Consts, params: Params, batch: Batch, settings: Values, axes: Mapping[str, Tensor]
) -> tuple[Tensor, Params]:
    """The replicas' first losses (R,) and their combined gradients (R, ...).

    Each replica's loss depends on its own tensors only, so the gradient of the sum is the gradient of each.
    """
    fuse = method.fuse
    draw = graphs.drawn(batch)

    def losses(p: Params, a: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # Every replica meets the same noise, however replicas are grouped.
        return method.losses(p, consts, draw.again(), {**settings, **a})

    with torch.enable_grad():
        found = map_replicas(losses, fuse, params, dict(axes))
        grads, leaves = {}, list(params.values())
        for i, (name, loss_R) in enumerate(found.items()):
            keep = i + 1 < len(found)
            parts = torch.autograd.grad(loss_R.sum(), leaves, retain_graph=keep, materialize_grads=True)
            grads[name] = dict(zip(params, parts, strict=True))
    if type(method).combine is Method.combine:
        combined = grads["loss"]
    else:
        combined = map_replicas(lambda g, a: method.combine(g, {**settings, **a}), fuse, grads, dict(axes))
    return next(iter(found.values())).detach(), combined


def rate_table(recipe: Recipe, values: Sequence[Values], settings: Values, steps: int, per_epoch: int) -> Tensor:
    """(steps, R) float64: the learning rate of every replica at every step."""
    assert recipe.schedule is not None
    columns = [schedule.rates(recipe.schedule, float(v.get(LR, settings.get(LR, 0.0))), steps, per_epoch) for v in values]
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

    ``values`` are grid points, ``settings`` what all replicas share. ``score(params, values)`` gives validation accuracy and
    negative loss per replica, (R,) each; without it nothing is checked and the last step is kept. Deterministic: orders
    and noise depend on ``seed`` and the stream's name alone, never on how replicas are grouped.
    """
    assert recipe.optim is not None
    params = stack(start)
    device, dtype = next(iter(params.values())).device, next(iter(params.values())).dtype
    per_epoch = epoch_length(recipe.streams, pools)
    steps = steps_of(recipe, per_epoch)
    table_SR = rate_table(recipe, values, settings, steps, per_epoch).to(device)
    wd_R = torch.tensor([float(v.get(WD, settings.get(WD, 0.0))) for v in values], dtype=torch.float64, device=device)
    axes = axes_of(values, recipe, device, dtype)
    optimiser = optim.make(recipe.optim, params)
    keeper = _Keeper(params, recipe.criterion, recipe.patience)
    out = Trained({}, [], [])
    host = graphs.Host()

    def make_step(index_B: Tensor, lr_R: Tensor, sizes: Sizes, step: int) -> Tensor:
        parts = index_B.split(sizes)
        rows = {name: rows_at(pools[name], part, dtype) for name, part in zip(recipe.streams, parts, strict=True)}
        batch = graphs.Draw(rows, step, lambda: rng.generator(seed, "noise", step), host)
        loss_R, grads = gradients(method, consts, params, batch, settings, axes)
        optimiser.step(grads, lr_R, wd_R)
        return loss_R

    recorder = graphs.capturer(device)
    eager = graphs.obstacle(method.fuse, resident(pools, device), steps) if recorder else ""
    launch = graphs.Launcher(make_step, host, recorder, eager)

    def due(step: int) -> bool:
        return score is not None and recipe.select == "best" and _due(step, recipe.check_every, per_epoch)

    _, sequence = orders(recipe.streams, pools, seed, steps)
    for block in blocks(sequence, due, device):
        for index_B, sizes in block:
            loss_R = launch(index_B, table_SR[out.steps], sizes, out.steps)
            out.steps += 1
        step = out.steps - 1
        if score is None or not due(step):
            continue
        accuracy_R, gain_R = score(params, values)
        out.curve.append((step, accuracy_R.tolist()))
        out.losses.append((step, loss_R.tolist()))
        keeper.offer(step, accuracy_R, gain_R)
        if keeper.over:
            break
    if score is None or recipe.select != "best":
        final = score(params, values) if score else (torch.zeros(len(values)),) * 2
        keeper.offer(out.steps - 1, *final)
        out.curve.append((out.steps - 1, final[0].tolist()))
    out.params, out.score, out.step = keeper.params, keeper.score.tolist(), keeper.step
    out.graphs, out.eager = len(launch.recorded), launch.eager
    return out


def _due(step: int, every: int | None, per_epoch: int) -> bool:
    return (step + 1) % per_epoch == 0 if every is None else step % every == 0


class _Keeper:
    """The best checkpoint of every replica: strict improvement only, so ties keep the earliest (protocol 6.2).

    A replica whose ``patience`` ran out improves no more, so that what it keeps does not depend on its company.
    """

    def __init__(self, params: Params, criterion: str, patience: int | None) -> None:
        self.live, self.criterion = params, criterion
        self.params = {name: p.detach().clone() for name, p in params.items()}
        R = len(next(iter(params.values())))
        self.score = torch.full((R,), float("-inf"), dtype=torch.float64)
        self.step = [-1] * R
        self.patience = float("inf") if patience is None else patience
        self.stale = torch.zeros(R)

    @property
    def over(self) -> bool:
        """Whether no replica can improve any more."""
        return bool((self.stale >= self.patience).all())

    def offer(self, step: int, accuracy_R: Tensor, gain_R: Tensor) -> None:
        """Take the live tensors of the replicas that improved."""
        now = (gain_R if self.criterion == "loss" else accuracy_R).double().cpu()
        now = torch.where(now.isnan(), -math.inf, now)  # a diverged replica never wins
        improved = (now > self.score) & (self.stale < self.patience)
        better = improved.nonzero()[:, 0].tolist()
        self.stale = torch.where(improved, 0.0, self.stale + 1)
        self.score = torch.where(improved, now, self.score)
        with torch.no_grad():
            for r, name in itertools.product(better, self.live):
                self.params[name][r].copy_(self.live[name][r])
        for r in better:
            self.step[r] = step
