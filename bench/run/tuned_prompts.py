"""Make the prompt sets that depend on the draw: mined templates, and text weights tuned on the support set.

Both use labels, so they belong to one (dataset, shots, seed). Templates are chosen on the few-shot validation
images under every protocol.

Legend: K classes, M templates, P prompts, C embedding width, n validation images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.clip.text import classifier
from bench.errors import BenchError
from bench.interface import EVAL, POOLED, State, TextSide, unit
from bench.plan.cells import Planned
from bench.run.session import Session


def ranking(raw_KMC: Tensor, f_nC: Tensor, y_n: Tensor) -> list[int]:
    """Rank templates by their zero-shot accuracy, best first. Equal ones keep their order (datasets 5.5)."""
    hits = [
        int(((unit(f_nC) @ unit(raw_KMC[:, m]).T).argmax(-1) == y_n).sum()) for m in range(raw_KMC.shape[1])
    ]
    return sorted(range(len(hits)), key=lambda m: -hits[m])


def mined(session: Session, fit: Planned) -> tuple[Tensor, TextSide]:
    """Return W and the text side of the best templates of the prompt set's pool.

    Raises BenchError if there are no validation images to choose on.
    """
    items, names, prompts = fit.draw.val, fit.dataset.classnames, fit.prompts
    if not len(items):
        raise BenchError(
            f"{fit.dataset.name} has no validation images to choose templates on: leave {prompts.name} out"
        )
    _, pool = session.encoded_text(fit.backbone, prompts, names)
    f_nC = session.features(fit.backbone, fit.dataset, items.paths, EVAL, POOLED)
    K, M = len(names), len(prompts.templates)
    chosen = ranking(pool.raw_PC.view(K, M, -1), f_nC, session.labels(items))[: prompts.select]
    raw_PC = pool.raw_PC.view(K, M, -1)[:, chosen].flatten(0, 1)
    class_of_P = torch.arange(K, device=raw_PC.device).repeat_interleave(len(chosen))
    W_KC = classifier(raw_PC, class_of_P.tolist(), K, prompts.reduce, names)
    return W_KC, TextSide(raw_PC, class_of_P, names, tuple(prompts.templates[m] for m in chosen))


def tuned(session: Session, fit: Planned, head: State) -> tuple[Tensor, TextSide]:
    """Return W from the class rows of a fitted head, divided by their mean length, and one text row a class.

    The rows keep their proportions, so that zero-shot prediction with W is the head's. Their mean length is
    one, so that terms which a method adds to s cos keep their weight. The text side's raw rows have the
    directions of W and the lengths of the raw class means before tuning. TaskRes, for example, starts from
    raw rows, and their length decides how fast its residual turns them.
    """
    rows_KC = head.params["W_KC"].float()
    W_KC = rows_KC / rows_KC.norm(dim=-1).mean()
    _, start = session.encoded_text(fit.backbone, fit.prompts, fit.dataset.classnames)
    K = len(W_KC)
    sums_KC = torch.zeros_like(W_KC).index_add(0, start.class_of_P, start.raw_PC)
    lengths_K = (sums_KC / torch.bincount(start.class_of_P, minlength=K)[:, None]).norm(dim=-1)
    class_of_P = torch.arange(K, device=W_KC.device)
    return W_KC, TextSide(lengths_K[:, None] * unit(W_KC), class_of_P, fit.dataset.classnames, ())
