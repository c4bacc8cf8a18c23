"""The executors: one loop over the cells that are left, and three ways to get them done.

``loop`` encodes, hands portions out and records failures. A way submits portions and collects what became of
them: ``serial`` in this process, ``processes`` in several of this machine, ``on_ray`` on a cluster. A
``worker`` makes the plan again from the request and does its cells at a desk of its own. ``budget`` ends what
runs on after a time budget.

The room may import the ground of bench and ``run``, ``plan``, ``records`` and ``registry``
(``tests/imports.py`` holds the list). It computes no number itself, prints nothing, and knows no method or
dataset by name.
"""
