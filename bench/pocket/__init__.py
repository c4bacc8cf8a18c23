"""The embedded suite: its drawings, scenes and digits, and the recipe that made the two embedded CLIPs.

This room provides the readers of datasets that need no download (``readers``), and pre-trains the embedded
backbones (``pretrain``). It imports the ground and ``bench.data``, and no other part of bench. The readers
import no torch. Scenes never depend on the machine or on a library version beyond rounding, and the artists
that the suite tests on are never among those that the CLIPs are trained on.
"""
