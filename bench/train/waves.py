"""Train replicas in waves that fit in memory. A wave that does not fit is halved.

Waves change only the peak of memory, because starts, orders and noise depend on the seed alone
(``bench.train.loop``).

Legend: R replicas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from bench.errors import short_of_memory
from bench.interface import Consts, Method, Params, Values
from bench.recipe import Recipe
from bench.train import join, loop, optim, slices
from bench.train.keep import Labelled, Trained
from bench.train.loop import Pool
from bench.train.score import scorer

# Part of the memory that replicas may take. The rest is for activations, validation features and the like.
SHARE = 0.5


@dataclass(frozen=True)
class Wave:
    """Replicas that trained together: the position of the first one, and their result in each task."""

    first: int
    trained: list[Trained]


@dataclass
class Tally:
    """Counts of a fit's training: waves, halvings for lack of memory, recorded steps.

    ``eager``: the reasons why other steps were not recorded.
    """

    waves: int = 0
    halvings: int = 0
    graphs: int = 0
    eager: set[str] = field(default_factory=set)

    def add(self, trained: Trained) -> None:
        """Add a wave to the counts."""
        self.waves += 1
        self.graphs += trained.graphs
        if trained.eager:
            self.eager.add(trained.eager)


def bytes_per_replica(start: Params, recipe: Recipe) -> int:
    """Return the bytes of one replica in training: weights, gradients, moments, best checkpoint and start."""
    assert recipe.optim is not None
    size = sum(p.numel() for p in start.values())
    itemsize = max(p.element_size() for p in start.values())
    return size * (4 * itemsize + optim.bytes_per_parameter(recipe.optim, itemsize))


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes that could be allocated now, or None if the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    info = Path("/proc/meminfo")
    if info.is_file():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        if "MemAvailable" in fields:
            return int(fields["MemAvailable"].split()[0]) * 1024
    return None


def own_part(device: torch.device, sharers: int = 1) -> int | None:
    """Return the bytes that this process may allocate if ``sharers`` processes use the device; None: unknown.

    On a GPU this is an equal part of all memory, less what this process holds already. So a process that
    begins later may take as much as the first. The result is never more than the free memory.
    """
    free = free_bytes(device)
    if free is None or sharers == 1:
        return free
    if device.type == "cuda":
        _, whole = torch.cuda.mem_get_info(device)
        return max(0, min(free, whole // sharers - torch.cuda.memory_allocated(device)))
    return free // sharers


def held(things: Iterable[object]) -> int:
    """Return the bytes that the tensors among ``things`` keep alive, shared ones counted once."""
    storages = (x.untyped_storage() for x in things if isinstance(x, torch.Tensor))
    return sum({s.data_ptr(): s.nbytes() for s in storages}.values())


def fitting(R: int, each: int, free: int | None) -> int:
    """Return how many of ``R`` replicas of ``each`` bytes train together, at least one.

    The waves are of nearly equal size.
    """
    most = R if free is None else max(1, min(R, int(SHARE * free) // max(each, 1)))
    return -(-R // -(-R // most))


def settled(pools: Mapping[str, Pool], device: torch.device, sharers: int = 1) -> dict[str, Pool]:
    """Move the pools to the device if they fit there, so that steps gather without moving rows."""

    def there(pool: Pool) -> Pool:
        if loop.resident({"": pool}, device):
            return pool
        free = own_part(device, sharers)
        if free is not None and pool.x.numel() * pool.x.element_size() > SHARE * free:
            return pool
        return replace(pool, x=pool.x.to(device), y=pool.y.to(device))

    return {name: there(pool) for name, pool in pools.items()}


@dataclass(frozen=True)
class Entrant:
    """A task to train. ``start`` makes a replica's first tensors. Other fields are as in ``loop.Lane``."""

    consts: Consts
    start: Callable[[Values], Params]
    pools: Mapping[str, Pool]
    seed: int
    val: Labelled | None


def train(
    method: Method,
    recipe: Recipe,
    entrants: Sequence[Entrant],
    values: Sequence[Values],
    settings: Values,
    tally: Tally,
    sharers: int = 1,
    most: int = slices.PROCESSOR,
) -> Iterator[Wave]:
    """Yield, wave after wave, the trained replicas at ``values`` of one task, or of several that join.

    ``sharers``: as in ``own_part``. ``most``: bytes of validation features that are scored at once. A wave
    that runs out of memory begins again with half as many replicas, and so do those after it; a single
    replica that does not fit raises its error. Raises ``join.Apart`` if several tasks cannot join.
    """
    first, size = 0, 0
    while first < len(values):
        if not size:
            probe = entrants[0].start(values[first])
            device = next(iter(probe.values())).device
            entrants = [replace(e, pools=settled(e.pools, device, sharers)) for e in entrants]
            each = len(entrants) * bytes_per_replica(probe, recipe)
            size = fitting(len(values), each, own_part(device, sharers))
            del probe
        part = values[first : first + size]
        trained = None
        try:
            trained = _trained(method, recipe, entrants, part, settings, most)
        except (MemoryError, RuntimeError) as error:
            if not short_of_memory(error) or len(part) == 1:
                raise
        # This stands outside the handler, because the error's traceback holds the tensors that did not fit.
        if trained is None:
            size = -(-len(part) // 2)
            tally.halvings += 1
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        tally.add(trained[0])
        yield Wave(first, trained)
        first += len(part)


def _trained(
    method: Method,
    recipe: Recipe,
    entrants: Sequence[Entrant],
    part: Sequence[Values],
    settings: Values,
    most: int,
) -> list[Trained]:
    """Train one wave of one task, or of several tasks that join."""
    if len(entrants) == 1:
        e = entrants[0]
        start = [e.start(v) for v in part]
        score = scorer(method, recipe, e.consts, settings, e.val, most) if e.val else None
        return [loop.train(method, recipe, e.consts, start, part, settings, e.pools, e.seed, score)]
    lanes = [loop.Lane(e.consts, [e.start(v) for v in part], e.pools, e.seed, e.val) for e in entrants]
    return join.train(method, recipe, lanes, part, settings, most)
