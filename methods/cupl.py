"""CuPL: zero-shot CLIP with a language model's sentences per class, not templates (protocol 5)."""

from __future__ import annotations

from bench.methods.zero_shot import ZeroShot


class Cupl(ZeroShot):
    """Nothing is trained: unit-normalised sentence features are averaged over the class and normalised again.

    The sentences are the user's (``--prompt-dir``); for the embedded datasets this program has its own.
    """

    name = "cupl"
    title = "CuPL"
    cite = "Pratt et al. 2023"
    prompts = ("cupl",)
    uses_prompts = False
