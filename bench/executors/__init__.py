"""The executors: one loop over the cells that are left, and three ways to get them done.

``loop`` encodes, hands out portions of cells and records failures. A way does the portions and returns their
results: ``serial`` in this process, ``processes`` in several processes of this machine, ``on_ray`` on a
cluster. A ``worker`` makes the plan again from the request and does its cells at a desk of its own.
``budget`` stops cells that still run after the end of a time budget. ``bench.plan.rounds`` makes the portions
and explains the words: unit, round, group, portion.

The room may import the ground of bench and ``run``, ``plan``, ``records`` and ``registry``
(``tests/imports.py`` holds the list). It computes no number itself, prints nothing, and knows no method or
dataset by name.
"""
