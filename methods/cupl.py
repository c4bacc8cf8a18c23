"""CuPL: zero-shot CLIP with a language model's sentences for every class instead of templates
(protocol 5).
"""

from __future__ import annotations

from bench.methods.zero_shot import ZeroShot


class Cupl(ZeroShot):
    """Nothing is trained: each sentence's feature is unit-normalised, averaged over the class and normalised
    again.

    The sentences are the user's (``--prompt-dir``); the embedded datasets have their own, written for this
    program.
    """

    name = "cupl"
    title = "CuPL"
    cite = "Pratt et al. 2023"
    prompts = ("cupl",)
    uses_prompts = False
