"""The engine: it trains a method's parameters, checks them on validation, and chooses.

``select`` fits one task or several that join. Below it ``waves`` divides replicas so that memory holds them,
``loop`` makes the steps, ``join`` stacks tasks, ``score`` scores and searches, and ``graphs`` records steps
on a GPU.

The room may import the ground of bench, ``recipe`` and ``interface``, and nothing else of bench. It knows no
method and no dataset by name, opens no image, reads and writes no record, and uses no global random state.
"""
