"""This room draws figures of the recorded results with Seaborn.

Each kind of figure has a file; ``plot`` chooses among them. The room may import the rest of ``report``,
``records`` and ``stats``. It never runs a method and never opens a window: it returns figures, and
``plot.save`` writes them.
"""
