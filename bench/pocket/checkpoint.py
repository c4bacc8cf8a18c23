"""Save the state of a pre-training run in one safetensors file.

A run that was stopped and resumed from it gives the same weights as one that was never stopped.

The file's tensors are ``model.*`` (float32, buffers too), ``prototypes_KC``,
``optimiser.<parameter>.<moment>`` and ``generator`` (the state of the torch generator). Its metadata, as
JSON, are ``asked`` (what the command asked for), ``numpy`` (the state of NumPy's generator), ``done`` (steps)
and ``spent`` (seconds).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta, Struct
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from bench import typed
from bench.errors import BenchError
from bench.files import write_bytes
from bench.pocket.learner import Learner


class _Facts(Struct):
    """The metadata of the file, with each value parsed."""

    asked: dict[str, Any]
    numpy: dict[str, Any]
    done: Annotated[int, Meta(ge=0)]
    spent: Annotated[float, Meta(ge=0)]


def write(path: Path, learner: Learner, asked: Mapping[str, Any], done: int, spent: float) -> None:
    """Save all that the next step reads, after ``done`` steps and ``spent`` seconds."""
    tensors = {f"model.{name}": x for name, x in learner.model.state_dict().items()}
    tensors["prototypes_KC"] = learner.prototypes_KC.detach()
    for i, moments in learner.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{i}.{name}": torch.as_tensor(x) for name, x in moments.items()}
    tensors["generator"] = learner.gen.get_state()
    facts = {"asked": dict(asked), "numpy": learner.rng.bit_generator.state, "done": done, "spent": spent}
    metadata = {name: json.dumps(value, sort_keys=True) for name, value in facts.items()}
    write_bytes(path, save({k: x.cpu().contiguous() for k, x in tensors.items()}, metadata=metadata))


def resume(path: Path, learner: Learner, asked: Mapping[str, Any]) -> tuple[int, float]:
    """Restore ``learner`` to the state in the file, and return (steps done, seconds spent).

    Without a file these are (0, 0.0). Raises BenchError for a file that belongs to a run with another
    request, and for one that cannot be read.
    """
    if not path.is_file():
        return 0, 0.0
    try:
        with safe_open(path, "pt") as file:
            said = {
                name: typed.decoded(text.encode(), Any, name)
                for name, text in (file.metadata() or {}).items()
            }
            facts = typed.converted(said, _Facts, "metadata")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError, typed.Odd) as error:
        raise BenchError(
            f"{path} is not a saved training state ({error}); delete it to start anew"
        ) from error
    if facts.asked != json.loads(json.dumps(dict(asked))):
        raise BenchError(
            f"{path} belongs to a run with {facts.asked}: give the same flags, or delete it to start anew"
        )
    try:
        _bring(learner, tensors, facts)
    except (RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BenchError(
            f"{path} is not a saved training state ({reason}); delete it to start anew"
        ) from error
    return facts.done, facts.spent


def _bring(learner: Learner, tensors: Mapping[str, torch.Tensor], facts: _Facts) -> None:
    """Put the tensors and the random states of a file into ``learner``."""
    learner.model.load_state_dict(
        {k.removeprefix("model."): x for k, x in tensors.items() if k.startswith("model.")}
    )
    with torch.no_grad():
        learner.prototypes_KC.copy_(tensors["prototypes_KC"])
    known = learner.optimiser.state_dict()
    known["state"] = {}
    for name, x in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimiser":
            i, _, moment = rest.partition(".")
            known["state"].setdefault(int(i), {})[moment] = x
    learner.optimiser.load_state_dict(known)
    learner.gen.set_state(tensors["generator"])
    learner.rng.bit_generator.state = facts.numpy
