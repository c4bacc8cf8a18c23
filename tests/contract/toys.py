"""Methods that do one impure thing in one of their functions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FUNCTIONS = {
    "recipe": ("settings, facts", "{recipe}"),
    "learned_text": ("settings, facts", "None"),
    "prepare": ("task", "{{'W_KC': task.W_KC, 'scale': task.scale}}"),
    "solve": ("task, consts, values", "{{'bias_K': torch.zeros(len(task.W_KC))}}"),
    "init": ("task, consts, values, generator", "{{'bias_K': torch.zeros(len(task.W_KC))}}"),
    "losses": (
        "params, consts, batch, values",
        "{{'loss': cross_entropy(params['bias_K'] + cosine_logits(batch['image'].x, consts['W_KC'], "
        "consts['scale']), batch['image'].y)}}",
    ),
    "combine": ("grads, values", "grads['loss']"),
    "logits": (
        "params, consts, features, values",
        "params['bias_K'] + cosine_logits(features[POOLED], consts['W_KC'], consts['scale'])",
    ),
    "sweep": (
        "params, consts, features, values, grid",
        "iter([([i], self.logits(params, consts, features, {{**values, **p}})[None]) "
        "for i, p in enumerate(grid)])",
    ),
}
_TRAINED = (
    "Recipe(streams={'image': Stream(batch=2)}, optim=OptimSpec('adamw'), schedule=Schedule('cosine'), "
    "steps=4, grid={LR: (0.1, 0.01)}, fixed={LR: 0.1}, check_every=2, search={'a': (1.0, 2.0)})"
)
_SOLVED = "Recipe(search={'a': (1.0, 2.0)}, fixed={'a': 1.0})"
_TRAINED_ALONE = ("init", "losses", "combine")


def write(file: Path, name: str, lines: Mapping[str, str], trained: bool | None = None) -> Path:
    """A plugin with one method; ``lines``: what its functions do first, by function.

    It is trained where one of these belongs to training, and solved otherwise.
    """
    if trained is None:
        trained = bool(set(lines) & set(_TRAINED_ALONE))
    text = [
        "import os, random, warnings",
        "import numpy as np",
        "from bench.interface import LR, POOLED, Method, OptimSpec, Recipe, Schedule, Stream, torch",
        "from bench.interface import cosine_logits, cross_entropy",
        f"\n\nclass Toy(Method):\n    name = '{name}'\n    title = 'Toy'",
        "    settings = {'a': 1.0, 'b': (1, 2)}",
    ]
    for function, (arguments, result) in FUNCTIONS.items():
        made = result.format(recipe=_TRAINED if trained else _SOLVED)
        text.append(f"\n    def {function}(self, {arguments}):")
        text += [f"        {line}" for line in lines.get(function, "").splitlines()]
        text.append(f"        return {made}")
    file.write_text("\n".join(text) + "\n")
    return file
