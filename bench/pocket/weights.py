"""Read and write the weights of the embedded CLIPs: fp16 safetensors with only the trained token rows.

The keys are open_clip's, without ``attn_mask``. In place of ``token_embedding.weight`` there are
``token_embedding.rows`` (n, D) and ``token_embedding.ids`` (n,) int32; all other rows are zero. The metadata
are ``config`` (the architecture as JSON), ``recipe``, ``name``, ``init``, ``seed``, ``batch``, ``steps`` and
``seconds``.

Legend: n tokens that training touched, D width of the text tower.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from bench.errors import BenchError
from bench.files import write_bytes
from bench.names import shown

RECIPE = "2"  # the version of the recipe; the prototype had version 1


def export(
    state: dict[str, torch.Tensor],
    ids_n: torch.Tensor,
    config: dict[str, Any],
    facts: dict[str, Any],
    path: Path,
) -> None:
    """Write a state dict whose token table has rows ``ids_n`` only (n, D).

    ``facts`` are added to the metadata.
    """
    kept = {k: v.detach().half().cpu().contiguous() for k, v in state.items() if k != "attn_mask"}
    kept["token_embedding.rows"] = kept.pop("token_embedding.weight")
    kept["token_embedding.ids"] = ids_n.int().cpu().contiguous()
    metadata = {"config": json.dumps(config), "recipe": RECIPE, **{k: str(v) for k, v in facts.items()}}
    write_bytes(path, save(kept, metadata=metadata))


def load_into(model: torch.nn.Module, ids_n: torch.Tensor, path: Path) -> int:
    """Load start weights from a file into ``model``, and return how many tokens the file does not have.

    The model's token table holds the rows of the tokens ``ids_n``. Tokens that the file does not have keep
    their random rows. If the file's image tower is another one, only the text tower is loaded. Raises
    BenchError for a file that is not of this format.
    """
    try:
        state = {k: v.float() for k, v in load_file(path).items()}
    except (SafetensorError, OSError, RuntimeError) as error:
        raise BenchError(f"{path} cannot be used as start weights ({error})") from error
    if lacking := [k for k in ("token_embedding.rows", "token_embedding.ids") if k not in state]:
        raise BenchError(f"{path} cannot be used as start weights (it has no {lacking[0]})")
    own = {k: v.shape for k, v in model.state_dict().items()}
    image = {k for k in state if k.startswith("visual.")}
    if any(own.get(k) != state[k].shape for k in image):
        state = {k: v for k, v in state.items() if k not in image}
        image = {k for k in own if k.startswith("visual.")}
    else:
        image = set()
    rows, ids = state.pop("token_embedding.rows"), state.pop("token_embedding.ids").long()
    place = {int(k): j for j, k in enumerate(ids)}
    table = model.get_parameter("token_embedding.weight").detach().clone()
    known = [(i, place[int(k)]) for i, k in enumerate(ids_n) if int(k) in place]
    if known:
        mine, theirs = (torch.tensor(side) for side in zip(*known, strict=True))
        table[mine] = rows[theirs].to(table)
    try:
        missing, odd = model.load_state_dict({**state, "token_embedding.weight": table}, strict=False)
    except RuntimeError as error:  # its second line names the first tensor of another shape
        raise BenchError(
            f"{path} cannot be used as start weights ({' '.join(str(error).split())[:200]})"
        ) from error
    if odd or set(missing) - {"attn_mask", *image}:
        first = shown(sorted({*odd, *missing} - {"attn_mask", *image})[0])
        raise BenchError(
            f"{path} cannot be used as start weights (they are of another model, which differs in {first})"
        )
    return len(ids_n) - len(known)


def metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a file."""
    with safe_open(path, "pt") as file:
        said: dict[str, str] = file.metadata()
        return said
