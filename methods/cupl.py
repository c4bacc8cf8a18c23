"""CuPL: zero-shot CLIP whose prompts are a language model's sentences about each class (protocol 5)."""

from __future__ import annotations

from bench.methods.zero_shot import ZeroShot


class Cupl(ZeroShot):
    """Describe every class by sentences of a language model in place of templates, then score as zero-shot.

    The features of a class's sentences are divided by their length, averaged and divided by their length
    again. No label is used and nothing is trained. You give the sentences with ``--prompt-dir``; for the
    embedded datasets the program has its own.

    Source: Pratt et al. 2023 (protocol 5).
    Deviates: the released sentences have no EuroSAT, so its description names those of CaFo instead. A class
        without sentences stops the cell; templates never take their place.
    """

    name = "cupl"
    title = "CuPL"
    cite = "Pratt et al. 2023"
    prompts = ("cupl",)
    uses_prompts = False
