"""This room is the regression gate: it tells whether a method has got worse than a baseline.

It may import the rest of ``report``, ``records`` and ``stats``. It reads records and baselines, and writes
baselines. It never runs a method: ``bench check --rerun`` (in ``cli``) has the cells run first.
"""
